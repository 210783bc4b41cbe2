"""PASCAL VOC: a VOCdevkit folder, with labels from a table, the XML annotations or the masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from tag2mask.data.class_names import BACKGROUND, check_known, check_tagged, class_indices
from tag2mask.data.decode import read_mask
from tag2mask.data.image_set import ImageSet, make_samples
from tag2mask.data.matching import find_list, match_photos, words_or_lines
from tag2mask.data.photos import PHOTO_SUFFIXES, masks_by_name, photos_by_name, readable
from tag2mask.data.published import voc_remarks
from tag2mask.data.registry import Place, Reader
from tag2mask.data.tables import find_table, table_tags
from tag2mask.data.text import PlainXml, read_list
from tag2mask.errors import DataError
from tag2mask.names import IGNORE

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
    "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes in VOC's order."""

_MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")
"""Where true masks lie; the last that has one counts."""

_LISTED = "VOC's classes (of your own ones: give JPEGImages as a folder of photos, with a tag table)"
_INDICES = class_indices(VOC_CLASSES, "VOC")


def load_voc(
    path: str | Path,
    labels: str | Path | None = None,
    split: str | Path | None = None,
    strict: bool = False,
) -> ImageSet:
    """Load PASCAL VOC. The classes are always VOC's 20, in VOC's order.

    True masks are ``SegmentationClass/<id>.png``, else ``SegmentationClassAug/<id>.png``.

    Args:
        path: the folder that has ``JPEGImages``, or ``VOCdevkit`` or the folder above it.
        labels: a tag table, ``"xml"`` (all objects in ``Annotations``, difficult ones too) or ``"masks"``
            (the classes in the true mask). None: the folder's own table, else ``Annotations``, else the
            masks. ``ImageSet.labels_from`` says which it was.
        split: a list in ``ImageSets/Segmentation`` or ``ImageSets/Main``, or path of a list; the first word
            of each line counts, with or without folders and suffix. None: all photos that have labels.
        strict: unreadable photos are an error, not left out.

    Raises:
        DataError: the folder, the labels or the split is wrong; a photo of the split has no labels.
    """
    root = existing_root(path)
    photos = photos_by_name(root / "JPEGImages")
    chosen = None if split is None else _split_names(split, root, photos)
    masks = {name: file for folder in _MASK_FOLDERS for name, file in masks_by_name(root / folder).items()}
    source, tags_of = _labels(root, labels, photos, masks)
    tags = {name: tags for name in chosen or photos if (tags := tags_of(name))}
    check_tagged(chosen or tags, tags, source)
    if not tags:
        raise DataError(f"{source}: no labels for any photo; give a tag table, 'xml' or 'masks' as labels")
    kept, notes = readable({name: photos[name] for name in sorted(tags)}, strict)
    samples = make_samples(kept, tags, _INDICES, masks)
    bare = sorted(set(chosen or photos) - set(tags))
    notes += tuple(f"{photos[name]}: no labels in {source}" for name in bare)
    remarks = voc_remarks(root, split, len(samples))
    return ImageSet(VOC_CLASSES, samples, notes, labels_from=source, remarks=remarks)


def voc_root(path: str | Path) -> Path | None:
    """Return the folder with ``JPEGImages``: this one, one named ``VOC<year>`` in it, or in its VOCdevkit."""
    path = Path(path)
    years = [*sorted(path.glob("VOC2*"), reverse=True), *sorted(path.glob("VOCdevkit/VOC2*"), reverse=True)]
    return next((root for root in (path, *years) if (root / "JPEGImages").is_dir()), None)


def existing_root(path: str | Path) -> Path:
    """Return `voc_root`.

    Raises:
        DataError: there is none.
    """
    root = voc_root(path)
    if root is None:
        raise DataError(f"{path}: no JPEGImages here or in VOC2012 below; give the folder that has JPEGImages")
    return root


def _labels(
    root: Path, labels: str | Path | None, photos: Mapping[str, Path], masks: Mapping[str, Path]
) -> tuple[str, Callable[[str], tuple[str, ...]]]:
    """Return where labels come from, and the function that gives those of a photo (none if it has none)."""
    annotations = root / "Annotations"
    if labels not in ("xml", "masks") and (table := find_table(root, labels)):
        tags = table_tags(table, photos)
        check_known({tag for row in tags.values() for tag in row}, _INDICES, table, _LISTED)
        return str(table), lambda name: tags.get(name, ())
    if labels == "xml" or (labels is None and annotations.is_dir()):
        return str(annotations), lambda name: _xml_tags(annotations / f"{name}.xml")
    return str(root / "SegmentationClass"), lambda name: _mask_tags(masks.get(name))


def _xml_tags(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    try:
        tree = ElementTree.parse(file, ElementTree.XMLParser(target=PlainXml()))
        names = [node.text or "" for node in tree.iterfind("object/name")]
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{file}: not valid XML ({error}); replace the file") from None
    check_known(names, _INDICES, file, _LISTED)
    return tuple(names) or (BACKGROUND,)


def _mask_tags(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    present = [int(index) for index in np.unique(read_mask(file)) if index not in (0, IGNORE)]
    if present and present[-1] > len(VOC_CLASSES):
        raise DataError(f"{file}: class index {present[-1]}, but VOC has 20 classes; replace the mask")
    return tuple(VOC_CLASSES[index - 1] for index in present) or (BACKGROUND,)


def _split_names(split: str | Path, root: Path, photos: Mapping[str, Path]) -> list[str]:
    file = find_list(split, (root / "ImageSets/Segmentation", root / "ImageSets/Main"))
    return sorted(match_photos(words_or_lines(read_list(file), photos), photos, file).values())


def list_ids(file: Path) -> list[str]:
    """Return the ids in one of VOC's lists.

    Raises:
        DataError: the file is missing, not UTF-8, or has no entries.
    """
    return _ids(read_list(file))


def _ids(lines: Iterable[str]) -> list[str]:
    """Return the ids that the lines name: their first words, without folder and suffix.

    >>> _ids(["2007_000032", "v1.2 -1", "/JPEGImages/2007_000063.jpg /masks/2007_000063.png"])
    ['2007_000032', 'v1.2', '2007_000063']
    """
    files = [PurePosixPath(line.split()[0]) for line in lines]
    return list(dict.fromkeys(file.stem if file.suffix.lower() in PHOTO_SUFFIXES else file.name for file in files))


def _is_voc(path: Path, labels: Place, split: Place) -> bool:
    return path.is_dir() and voc_root(path) is not None


READER = Reader(10, _is_voc, load_voc)
