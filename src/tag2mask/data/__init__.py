"""Image sets: photos with image-level labels, read from a folder, a VOCdevkit or a COCO JSON."""

from __future__ import annotations

from tag2mask.data.decode import photo_size, read_mask, read_photo, voc_palette, write_mask
from tag2mask.data.image_set import ImageSet, Sample
from tag2mask.data.memory import Photo, as_photo
from tag2mask.data.readers.coco import load_coco
from tag2mask.data.readers.folder import load_folder, photos_in
from tag2mask.data.readers.voc import load_voc
from tag2mask.data.registry import load
from tag2mask.data.sizes import check_photo_sizes
from tag2mask.data.summary import summary
from tag2mask.data.truth import check_not_empty, check_truth, keep_truth, trainable

__all__ = [
    "ImageSet",
    "Photo",
    "Sample",
    "as_photo",
    "check_not_empty",
    "check_photo_sizes",
    "check_truth",
    "keep_truth",
    "load",
    "load_coco",
    "load_folder",
    "load_voc",
    "photo_size",
    "photos_in",
    "read_mask",
    "read_photo",
    "summary",
    "trainable",
    "voc_palette",
    "write_mask",
]
