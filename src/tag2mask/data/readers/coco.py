"""COCO instances JSON: labels from the annotations, semantic truth drawn from the polygons."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

from tag2mask.data import tables
from tag2mask.data.image_set import ImageSet, Sample
from tag2mask.data.photos import readable
from tag2mask.data.published import coco_remarks
from tag2mask.data.registry import Place, Reader
from tag2mask.errors import DataError, few
from tag2mask.names import IGNORE

Record = dict[str, Any]
_PACKED = re.compile("(?:[P-o]{0,6}[0-O])*")
"""Packed run lengths, each ending in a sign that says so: pycocotools would read on beyond the last."""


class Drawing(NamedTuple):
    """What is drawn on one photo.

    Attributes:
        height: of the photo, pixels.
        width: of the photo, pixels.
        objects: of each annotation the index to paint (255 for a crowd) and COCO's ``segmentation``:
            polygons or run lengths; None or empty where there is only a box.
    """

    height: int
    width: int
    objects: tuple[tuple[int, Any], ...]


def load_coco(
    json_path: str | Path,
    split: str | Path | None = None,
    images: str | Path | None = None,
    strict: bool = False,
) -> ImageSet:
    """Load a COCO instances JSON.

    The classes are the JSON's categories in the order of their ids, so that class indices run from 1
    without gaps. A photo's labels are the categories of its annotations that are no crowds. Photos without
    any stay, with no labels: they count in an evaluation (`ImageSet.labelled` leaves them out of a
    training set). The truth is drawn by `draw_truth` when it is asked for.

    Args:
        json_path: ``instances_val2017.json`` or the like.
        split: a list ``<split>.txt`` beside the JSON, a path of a list, or the name of a sister file:
            ``"val2017"`` for ``instances_val2017.json``. None: all photos of the JSON.
        images: the folder of the photos. None: ``images/``, ``val2017/`` (by the JSON's name), the JSON's
            own folder, or the same beside that folder, as in COCO's own layout.
        strict: a photo that is missing, unreadable or of another size than the JSON says is an error, not
            left out.

    Raises:
        DataError: the JSON is missing or not COCO's, no photos are found, or the split is wrong.
    """
    path = Path(json_path)
    if split is not None and (sister := instances_file(path.parent, split)):
        path, split = sister, None
    data = tables.read_json(path)
    categories = sorted(_records(data, "categories", {"id": int, "name": str}, path), key=lambda c: c["id"])
    photos = _records(data, "images", {"id": int, "file_name": str, "width": int, "height": int}, path)
    annotations = _records(data, "annotations", {"image_id": int, "category_id": int}, path)
    for category in categories:
        tables.check_class_name(category["name"], path)
    classes = tables.class_indices((category["name"] for category in categories), path)
    index_of = {category["id"]: index for index, category in enumerate(categories, 1)}
    drawings = _drawings(photos, annotations, index_of, path)
    files = _photo_files(photos, path, images)
    names = set(files) if split is None else _split_names(split, files, path)
    sizes = {name: drawing[:2] for name, drawing in drawings.items()}
    kept, notes = readable({name: files[name] for name in sorted(names)}, strict, sizes)
    samples = tuple(Sample(name, file, _labels(drawings[name])) for name, file in kept.items())
    published = path.stem.removeprefix("instances_") if split is None and len(classes) == 80 else ""
    return ImageSet(
        tuple(classes),
        samples,
        notes,
        partial(draw_truth, drawings={name: drawings[name] for name in kept}),
        labels_from=str(path),
        remarks=coco_remarks(published, len(samples), sum(bool(sample.labels) for sample in samples)),
    )


def draw_truth(sample: Sample, drawings: Mapping[str, Drawing]) -> np.ndarray | None:
    """Draw the semantic truth of a photo from its annotations.

    Larger objects are painted first, so that smaller ones lie over them; crowd regions come last and are
    255 all over. Polygons of fewer than three corners are passed over.

    Args:
        sample: the photo.
        drawings: what to draw, by the photo's name.

    Returns:
        uint8 H x W, 0 to C and 255; None if some object of the photo has only a box.

    Raises:
        DataError: a segmentation is not COCO's or lies outside of the photo.
    """
    height, width, objects = drawings[sample.name]
    if not all(segmentation for _, segmentation in objects):
        return None
    try:
        regions = [(index, _encode(segmentation, height, width)) for index, segmentation in objects]
        regions.sort(key=lambda region: (region[0] == IGNORE, -int(rle.area(region[1]))))
        mask = np.zeros((height, width), np.uint8)
        for index, region in regions:
            mask[rle.decode(region) > 0] = index
    except Exception as error:  # pycocotools raises nearly anything, plain Exception too
        raise DataError(
            f"{sample.image}: a segmentation of this photo is not COCO's ({error}); correct it in the JSON"
        ) from None
    return mask


def instances_file(folder: Path, split: str | Path | None) -> Path | None:
    """Return ``instances_<split>.json``, or ``instances.json`` if no split, here or in ``annotations/``."""
    name = "instances.json" if split is None else f"instances_{split}.json"
    return next((path for path in (folder / name, folder / "annotations" / name) if path.is_file()), None)


def _records(data: Any, key: str, fields: Mapping[str, type], path: Path) -> list[Record]:
    """Return the list ``data[key]``, each of whose items has the fields with values of their types."""
    items = data.get(key) if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise DataError(f"{path}: not a COCO instances file (no list {key!r}); a tag table is given as labels")
    for number, item in enumerate(items):
        for field, kind in fields.items():
            if not isinstance(item, dict) or not isinstance(item.get(field), kind):
                raise DataError(f"{path}: item {number} of {key!r} has no valid {field!r}; export the file again")
    return items


def _drawings(
    photos: list[Record], annotations: list[Record], index_of: Mapping[int, int], path: Path
) -> dict[str, Drawing]:
    """Return what to draw by photo's name."""
    objects: defaultdict[int, list[tuple[int, Any]]] = defaultdict(list)
    for number, item in enumerate(annotations):
        if item["category_id"] not in index_of:
            raise DataError(f"{path}: item {number} of 'annotations' is of no category; export the file again")
        index = IGNORE if item.get("iscrowd") else index_of[item["category_id"]]
        objects[item["image_id"]].append((index, item.get("segmentation")))
    drawings = {
        _name(photo, path): Drawing(photo["height"], photo["width"], tuple(objects.pop(photo["id"], ())))
        for photo in photos
    }
    if objects:
        raise DataError(f"{path}: annotations of {len(objects)} photos that 'images' lacks; export the file again")
    if len(drawings) < len(photos) or len({photo["id"] for photo in photos}) < len(photos):
        raise DataError(f"{path}: two photos have one id or one file_name; export the file again")
    return drawings


def _name(photo: Record, path: Path) -> str:
    file = photo["file_name"]
    parts = PureWindowsPath(file)  # splits at both kinds of separators
    if parts.anchor or ".." in parts.parts or "\\" in file or "\0" in file or not parts.parts:
        raise DataError(f"{path}: file_name {file!r} leads out of the photos' folder; use a relative path")
    return PurePosixPath(file).with_suffix("").as_posix()


def _photo_files(photos: list[Record], path: Path, images: str | Path | None) -> dict[str, Path]:
    """Return where each photo should lie, by name."""
    names = ("images", path.stem.removeprefix("instances_"), ".")
    beside = [folder / name for folder in (path.parent, path.parent.parent) for name in names]
    folders = beside if images is None else [Path(images)]
    for folder in folders:
        if folder.is_dir() and any(os.path.isfile(folder / photo["file_name"]) for photo in photos):
            return {_name(photo, path): folder / photo["file_name"] for photo in photos}
    raise DataError(
        f"{path}: none of its {len(photos)} photos is in {few([str(folder) for folder in folders], 6)};"
        " put them into images/ beside the JSON"
    )


def _split_names(split: str | Path, files: Mapping[str, Path], path: Path) -> set[str]:
    file = tables.find_list(split, (path.parent, path.parent / "splits"))
    return set(tables.match_photos(dict.fromkeys(tables.read_list(file)), files, file).values())


def _labels(drawing: Drawing) -> tuple[int, ...]:
    return tuple(sorted({index for index, _ in drawing.objects} - {IGNORE}))


def _encode(segmentation: Any, height: int, width: int) -> Any:
    """Return a segmentation as run lengths in pycocotools' packed form."""
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError("run lengths are of another size")
        if not isinstance(segmentation["counts"], str):
            return rle.frPyObjects(segmentation, height, width)
        if not _PACKED.fullmatch(segmentation["counts"]):
            raise ValueError("run lengths are damaged")
        return segmentation
    corners = [np.asarray(polygon, np.float64) for polygon in segmentation]
    reach = 4 * max(height, width)
    if not all(polygon.ndim == 1 and (np.abs(polygon) <= reach).all() for polygon in corners):
        raise ValueError("a polygon lies far outside of the photo")
    drawable = [polygon[: len(polygon) // 2 * 2] for polygon in corners if len(polygon) >= 6]
    if not drawable:
        return rle.encode(np.zeros((height, width), np.uint8, order="F"))
    outline = sum(float(np.abs(np.diff(polygon.reshape(-1, 2), axis=0)).sum()) for polygon in drawable)
    if outline > 4 * height * width + 100 * (height + width):  # pycocotools takes memory for each pixel of it
        raise ValueError("the outline of an object is longer than any that fits in the photo")
    return rle.merge(rle.frPyObjects([polygon.tolist() for polygon in drawable], height, width))


def load_instances(path: Path, labels: Place, split: Place, strict: bool) -> ImageSet:
    """Load COCO data by `load_coco`, from a JSON or from a folder that has one."""
    if labels:
        raise DataError(f"{labels}: a COCO JSON has its own labels; leave the tag table out")
    return load_coco(_instances(path, split) or path, split, strict=strict)


def _is_coco(path: Path, labels: Place, split: Place) -> bool:
    if path.is_file():
        return path.suffix.lower() == ".json"
    return not labels and tables.find_table(path, None) is None and _instances(path, split) is not None


def _instances(folder: Path, split: Place) -> Path | None:
    """Return a folder's COCO JSON, None if it has none at all."""
    found = instances_file(folder, split) or instances_file(folder, None)
    others = sorted([*folder.glob("instances_*.json"), *folder.glob("annotations/instances_*.json")])
    if found is None and others:
        splits = few([repr(path.stem.removeprefix("instances_")) for path in others])
        raise DataError(f"{folder}: COCO files of the splits {splits}; name one of them or give one of the files")
    return found


READER = Reader(20, _is_coco, load_instances)
