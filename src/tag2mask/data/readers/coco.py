"""COCO instances JSON: labels from the annotations, semantic truth drawn from the polygons."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tag2mask.data.class_names import BACKGROUND, class_list, class_name
from tag2mask.data.decode import photo_size
from tag2mask.data.image_set import ImageSet, Sample
from tag2mask.data.matching import find_list, match_photos, words_or_lines
from tag2mask.data.outlines import Drawing, draw_truth, has_outline, what_is_wrong
from tag2mask.data.photos import readable
from tag2mask.data.published import coco_remarks
from tag2mask.data.registry import Place, Reader
from tag2mask.data.tables import find_table
from tag2mask.data.text import read_json, read_list
from tag2mask.errors import DataError, few
from tag2mask.names import IGNORE

Record = dict[str, Any]
_ROBOFLOW = "_annotations.coco.json"
"""The JSON in each folder, ``train``, ``valid`` and ``test``, of Roboflow's COCO exports."""


def load_coco(
    json_path: str | Path,
    split: str | Path | None = None,
    images: str | Path | None = None,
    strict: bool = False,
) -> ImageSet:
    """Load a COCO instances JSON.

    The classes are the JSON's categories in the order of their ids, so that class indices run from 1
    without gaps; categories of one name are one class, and one named ``background`` is none. A photo's labels are the
    categories of its annotations that are no crowds. Photos without any stay, with no labels: they count in an
    evaluation (`ImageSet.labelled` leaves them out of a training set). The truth is drawn by
    `tag2mask.data.outlines.draw_truth` when it is asked for.

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
    folder = path.parent.parent if path.name == _ROBOFLOW else path.parent
    if split is not None and (sister := instances_file(folder, split)):
        path, split = sister, None
    classes, photos = read_instances(path)
    files = _photo_files([name for name, _ in photos], path, images)
    drawings = dict(zip(files, (drawing for _, drawing in photos), strict=True))
    names = set(files) if split is None else _split_names(split, files, path)
    sizes = {name: drawing[:2] for name, drawing in drawings.items() if all(drawing[:2])}
    kept, notes = readable({name: files[name] for name in sorted(names)}, strict, sizes)
    drawings = {name: _sized(drawings[name], file) for name, file in kept.items()}
    _check_outlines(drawings, path)
    samples = tuple(Sample(name, file, _labels(drawings[name])) for name, file in kept.items())
    published = path.stem.removeprefix("instances_") if split is None and len(classes) == 80 else ""
    return ImageSet(
        classes,
        samples,
        notes,
        partial(draw_truth, drawings=drawings),
        labels_from=str(path),
        remarks=coco_remarks(published, len(samples), sum(bool(sample.labels) for sample in samples))
        + _without_outline(drawings),
    )


def read_instances(path: str | Path) -> tuple[tuple[str, ...], list[tuple[str, Drawing]]]:
    """Return the classes of a COCO instances JSON, and of each photo its file's name and what to draw on it.

    Raises:
        DataError: the JSON is missing or not COCO's.
    """
    path = Path(path)
    data = read_json(path)
    categories = _records(data, "categories", {"id": _id, "name": _text}, path)
    photos = _records(data, "images", {"id": _id, "file_name": _text, "width": _pixels, "height": _pixels}, path)
    annotations = _records(data, "annotations", {"image_id": _id, "category_id": _id, "iscrowd": _flag}, path)
    classes, index_of = _classes(categories, path)
    drawings = _drawings(photos, annotations, index_of, path)
    return classes, [(photo["file_name"], drawing) for photo, drawing in zip(photos, drawings, strict=True)]


def instances_file(folder: Path, split: str | Path | None) -> Path | None:
    """Return a folder's JSON of a split, or of all photos, None if there is none.

    It is ``instances_<split>.json`` or ``instances.json``, here or in ``annotations/``; or Roboflow's file, here or in
    the folder of the split.
    """
    name = "instances.json" if split is None else f"instances_{split}.json"
    roboflow = folder / _ROBOFLOW if split is None else folder / split / _ROBOFLOW
    return next((path for path in (folder / name, folder / "annotations" / name, roboflow) if path.is_file()), None)


def _records(data: Any, key: str, fields: Mapping[str, Callable[[Any], Any]], path: Path) -> list[Record]:
    """Return the list ``data[key]``, whose items have the fields as their functions read them; None is wrong."""
    items = data.get(key) if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise DataError(f"{path}: not a COCO instances file (no list {key!r}); a tag table is given as labels")
    records = []
    for number, item in enumerate(items):
        values = {field: read(item.get(field)) for field, read in fields.items()} if isinstance(item, dict) else {}
        wrong = next((field for field in fields if values.get(field) is None), None)
        if wrong:
            raise DataError(f"{path}: item {number} of {key!r} has no valid {wrong!r}; export the file again")
        records.append({**item, **values})
    return records


def _id(value: Any) -> int | str | None:
    """Return an id as it is compared: 7, 7.0 and "7" are one.

    >>> _id(7.0), _id("7"), _id("a7"), _id(7.5), _id(True)
    (7, 7, 'a7', None, None)
    """
    if isinstance(value, str):
        whole = re.fullmatch(r"\s*([0-9]{1,18})(\.0+)?\s*", value)
        return int(whole[1]) if whole else value.strip() or None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _pixels(value: Any) -> int | None:
    """Return a height or width, 0 where it is missing, None where it is none."""
    number = 0 if value is None or value == "" else _id(value)
    return number if isinstance(number, int) and number >= 0 else None


def _flag(value: Any) -> bool | None:
    """Return whether a flag is set; "0" is not.

    >>> _flag(1), _flag("0"), _flag(None), _flag("False"), _flag("maybe")
    (True, False, False, False, None)
    """
    text = "" if value is None else str(value).strip().casefold()
    known = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
    return known.get(text)


def _classes(categories: list[Record], path: Path) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Return the names of the classes and the class index of each category's id, 0 for the background."""
    ordered = sorted(categories, key=lambda category: (isinstance(category["id"], str), category["id"]))
    names = {category["id"]: class_name(category["name"]) for category in ordered}
    classes = class_list(dict.fromkeys(names.values()), path)
    indices = {BACKGROUND: 0} | {name: index for index, name in enumerate(classes, 1)}
    return classes, {number: indices[name] for number, name in names.items()}


def _drawings(
    photos: list[Record], annotations: list[Record], index_of: Mapping[int | str, int], path: Path
) -> list[Drawing]:
    """Return what to draw on each photo."""
    objects: defaultdict[int | str, list[tuple[int, Any]]] = defaultdict(list)
    for number, item in enumerate(annotations):
        if item["category_id"] not in index_of:
            raise DataError(f"{path}: item {number} of 'annotations' has no category; export the file again")
        index = IGNORE if item["iscrowd"] else index_of[item["category_id"]]
        objects[item["image_id"]].append((index, item.get("segmentation")))
    if len({photo["id"] for photo in photos}) < len(photos):
        raise DataError(f"{path}: two photos have the same id; export the file again")
    drawings = [Drawing(photo["height"], photo["width"], tuple(objects.pop(photo["id"], ()))) for photo in photos]
    if objects:
        raise DataError(f"{path}: annotations of {len(objects)} photos that 'images' lacks; export the file again")
    return drawings


def _sized(drawing: Drawing, photo: Path) -> Drawing:
    """Return a drawing of the photo's size where the JSON does not say it."""
    if all(drawing[:2]):
        return drawing
    height, width = photo_size(photo)
    return drawing._replace(height=height, width=width)


def _check_outlines(drawings: Mapping[str, Drawing], path: Path) -> None:
    """Check the segmentations now: scores come last, after hours perhaps."""
    for name, (height, width, objects) in drawings.items():
        for _, segmentation in objects:
            if wrong := what_is_wrong(segmentation, height, width):
                raise DataError(f"{path}: a segmentation of {name!r}: {wrong}; export the file again")


def _without_outline(drawings: Mapping[str, Drawing]) -> tuple[str, ...]:
    """Return a remark on photos that have no truth, since an object in them has only a box."""
    bare = [name for name, drawing in drawings.items() if not all(has_outline(one) for _, one in drawing.objects)]
    if not bare:
        return ()
    return (f"no truth to score {len(bare)} of {len(drawings)} photos: objects without outline, as in {bare[0]!r}",)


def _file_parts(file: str, path: Path) -> tuple[str, ...]:
    """Return the folders and the name of a photo's file, without those of another machine."""
    parts = PureWindowsPath(file).parts  # splits at both kinds of separators
    if "\0" in file or not parts or parts == ("..",):
        raise DataError(f"{path}: file_name {file!r} is not the name of a file; export the file again")
    if PureWindowsPath(file).anchor or ".." in parts or "://" in file:
        parts = parts[-1:]
    return parts


def _photo_files(photos: list[str], path: Path, images: str | Path | None) -> dict[str, Path]:
    """Return where each photo should lie, by name."""
    names = ("images", path.stem.removeprefix("instances_"), ".")
    beside = [folder / name for folder in (path.parent, path.parent.parent) for name in names]
    folders = beside if images is None else [Path(images)]
    files = [_file_parts(photo, path) for photo in photos]
    for surplus in range(max(map(len, files), default=0)):  # folders that the JSON has and this machine has not
        tails = [PurePosixPath(*(parts[surplus:] or parts[-1:])) for parts in files]
        for folder in folders:
            if folder.is_dir() and any(os.path.isfile(_existing(folder / tail)) for tail in tails):
                return _named(tails, folder, path)
    raise DataError(
        f"{path}: none of its {len(photos)} photos is in {few([str(folder) for folder in folders], 6)};"
        " put them into images/ beside the JSON"
    )


def _named(tails: Iterable[PurePosixPath], folder: Path, path: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for tail in tails:
        name = tail.with_suffix("").as_posix()
        if name in files:
            raise DataError(
                f"{path}: {files[name].name!r} and {tail.name!r} have the same name, and masks are named after photos;"
                " rename one of the photos, in the JSON too"
            )
        files[name] = _existing(folder / tail)
    return files


def _existing(file: Path) -> Path:
    """Return a file that is there, where need be with its suffix in upper or lower case; else the file as given."""
    suffixes = (file.suffix, file.suffix.lower(), file.suffix.upper())
    return next((found for one in suffixes if os.path.isfile(found := file.with_suffix(one))), file)


def _split_names(split: str | Path, files: Mapping[str, Path], path: Path) -> set[str]:
    file = find_list(split, (path.parent, path.parent / "splits"))
    return set(match_photos(words_or_lines(read_list(file), files), files, file).values())


def _labels(drawing: Drawing) -> tuple[int, ...]:
    return tuple(sorted({index for index, _ in drawing.objects} - {IGNORE, 0}))


def load_instances(path: Path, labels: Place, split: Place, strict: bool) -> ImageSet:
    """Load COCO data by `load_coco`, from a JSON or from a folder that has one."""
    if labels:
        raise DataError(f"{labels}: a COCO JSON has its own labels; leave the tag table out")
    return load_coco(_instances(path, split) or path, split, strict=strict)


def _is_coco(path: Path, labels: Place, split: Place) -> bool:
    if path.is_file():
        return path.suffix.lower() == ".json"
    return not labels and find_table(path, None) is None and _instances(path, split) is not None


def _instances(folder: Path, split: Place) -> Path | None:
    """Return a folder's COCO JSON, None if it has none at all."""
    found = instances_file(folder, split) or instances_file(folder, None)
    others = sorted([*folder.glob("instances_*.json"), *folder.glob("annotations/instances_*.json")])
    splits = [path.stem.removeprefix("instances_") for path in others]
    splits += sorted(path.parent.name for path in folder.glob(f"*/{_ROBOFLOW}"))
    if found is None and splits:
        named = few([repr(name) for name in splits])
        raise DataError(f"{folder}: COCO files of the splits {named}; name one of them or give one of the files")
    return found


READER = Reader(20, _is_coco, load_instances)
