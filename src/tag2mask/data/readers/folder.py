"""Any folder of photos, with a tag table or with one folder per class."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tag2mask.data.class_names import (
    BACKGROUND,
    check_class_name,
    check_known,
    check_tagged,
    class_indices,
    class_list,
    class_name,
)
from tag2mask.data.image_set import ImageSet, Sample, make_samples
from tag2mask.data.matching import find_list, is_split, match_photos, words_or_lines
from tag2mask.data.photos import (
    base_of,
    masks_by_name,
    photos_by_name,
    readable,
    stray_masks,
    unread_files,
    unread_images,
)
from tag2mask.data.registry import Place, Reader
from tag2mask.data.tables import find_table, table_tags
from tag2mask.data.text import read_list
from tag2mask.errors import DataError, few

log = logging.getLogger("tag2mask")


def load_folder(
    path: str | Path,
    labels: str | Path | None = None,
    split: str | Path | None = None,
    strict: bool = False,
) -> ImageSet:
    """Load a folder of photos.

    Photos are read from ``photos/`` or ``images/`` in the folder if there is one, else from the folder and
    its sub-folders. In the folder there may also be ``classes.txt`` (one class a line, which fixes their
    order; else they are sorted), ``masks/`` (``masks/<name>.png``, the truth, for scoring only) and the
    lists ``<split>.txt`` or ``splits/<split>.txt``. The classes are those of all photos, so that they are
    the same in each split.

    Args:
        path: the folder.
        labels: the tag table (see `tag2mask.data.tables.read_table`). None: that of the folder, the first of
            `tag2mask.data.tables.TABLE_NAMES` in it, else one folder per class. The tag of a photo that shows none of
            the classes is ``background``.
        split: name of a list in the folder or path of a list: one photo a line; or a folder of photos that is named
            as a part of a data set, ``train``, ``val``, ... None: all photos.
        strict: unreadable photos are an error, not left out.

    Raises:
        DataError: the folder, a photo's name, the table, the classes or the list is wrong; a photo has no
            tags, or tags have no photo.
    """
    root = Path(path)
    photos = photos_by_name(root)
    table = find_table(root, labels)
    tags = _class_folder_tags(photos, root) if table is None else table_tags(table, photos)
    source = "class folders" if table is None else str(table)
    names = sorted(photos) if split is None else _split_names(split, root, photos)
    check_tagged(names, tags, source)
    classes = _classes(root, tags, source)
    masks = masks_by_name(root / "masks")
    kept, notes = readable({name: photos[name] for name in names}, strict)
    return ImageSet(
        tuple(classes),
        make_samples(kept, tags, classes, masks),
        notes + stray_masks(root / "masks", masks, photos) + unread_images(root),
        labels_from=source,
        remarks=_folder_remarks(photos, root) if table is None else (),
    )


def photos_in(path: str | Path) -> list[Sample]:
    """Return a photo, or the photos of a folder as `load_folder` finds them; no tags are needed.

    Raises:
        DataError: the path does not exist, or there is no photo, or two have the same name.
    """
    path = Path(path)
    if path.is_file():
        return [Sample(path.stem, path)]
    found = [Sample(name, file) for name, file in photos_by_name(path).items()]
    if unread := unread_images(path):
        log.warning("skipped: %d images, the first is %s", len(unread), unread[0])
    return found


def _class_folder_tags(photos: Mapping[str, Path], root: Path) -> dict[str, tuple[str, ...]]:
    """Return each photo's tag where photos lie in one folder per class."""
    loose = [repr(name) for name in photos if "/" not in name]
    if loose:
        raise DataError(
            f"{root}: no tags for {len(loose)} of the photos: {few(loose)};"
            " write labels.csv with the columns image,labels or put the photos into one folder per class"
        )
    parts = {name: PurePosixPath(name).parts for name in photos}
    splits = _split_folders(photos)
    if splits and (bare := [name for name, folders in parts.items() if len(folders) < 3]):
        raise DataError(
            f"{root}: folders {few(splits)} are parts of a data set, not classes: no tags for {len(bare)} photos, as"
            f" {bare[0]!r}; write labels.csv with the columns image,labels, or give a part's COCO JSON (YOLO's label"
            " files are not read)"
        )
    tags = {name: class_name(folders[1 if splits else 0]) for name, folders in parts.items()}
    for folder in set(tags.values()):
        check_class_name(folder, root)
    return {name: (folder,) for name, folder in tags.items()}


def _split_folders(photos: Mapping[str, Path]) -> list[str]:
    """Return the folders that all photos are in if they are parts of a data set, ``train``, ``val``; else none."""
    tops = sorted({PurePosixPath(name).parts[0] for name in photos})
    return tops if all(is_split(top) for top in tops) else []


def _folder_remarks(photos: Mapping[str, Path], root: Path) -> tuple[str, ...]:
    """Return remarks on class folders that are not what they seem."""
    remarks = []
    if splits := _split_folders(photos):
        remarks.append(f"the folders {', '.join(splits)} are parts of the data, not classes; --split names one of them")
    depth = 1 if splits else 0
    seen = {PurePosixPath(name).parts[depth] for name in photos}
    unread = [file.relative_to(base_of(root)).parts for file in unread_files(root)]
    bare = sorted({parts[depth] for parts in unread if len(parts) > depth + 1} - seen)
    if bare:
        remarks.append(f"no class from {few([repr(name) for name in bare])}: no photo in these folders can be read")
    return tuple(remarks)


def _split_names(split: str | Path, root: Path, photos: Mapping[str, Path]) -> list[str]:
    places = (root, root / "splits")
    inside = [name for name in photos if name.startswith(f"{split}/")] if is_split(str(split)) else []
    if inside and not any((place / f"{split}.txt").is_file() for place in places):
        return inside
    file = find_list(split, places)
    return sorted(match_photos(words_or_lines(read_list(file), photos), photos, file).values())


def _classes(root: Path, tags: Mapping[str, tuple[str, ...]], source: str) -> dict[str, int]:
    """Return the index by class: in the order of ``classes.txt``, else sorted."""
    used = sorted({tag for row in tags.values() for tag in row} - {BACKGROUND})
    file = root / "classes.txt"
    if not file.is_file():
        return class_indices(used, source)
    classes = class_indices(class_list(read_list(file), file), file)
    check_known(used, classes, source, listed=str(file))
    return classes


def _is_folder(path: Path, labels: Place, split: Place) -> bool:
    return path.is_dir()


READER = Reader(30, _is_folder, load_folder)
