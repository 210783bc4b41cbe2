"""Image sets: photos with image-level labels, read from a folder, a VOCdevkit or a COCO JSON."""

from __future__ import annotations

from tag2mask.data.decode import photo_size, read_mask, read_photo, voc_palette, write_mask
from tag2mask.data.image_set import IGNORE, ImageSet, Sample

__all__ = [
    "IGNORE",
    "ImageSet",
    "Sample",
    "photo_size",
    "read_mask",
    "read_photo",
    "voc_palette",
    "write_mask",
]
