"""Any folder of photos, with a tag table or with one folder per class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from tag2mask.data import tables
from tag2mask.data.decode import photo_size
from tag2mask.data.image_set import ImageSet, Sample, few
from tag2mask.errors import DataError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""What counts as a photo, in upper or lower case."""


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
        labels: the tag table (see `tables.read_table`). None: ``labels.csv``, ``tags.csv``, ``labels.json``
            or ``tags.json`` in the folder, else one folder per class. The tag of a photo that shows none of
            the classes is ``background``.
        split: name of a list in the folder or path of a list: one photo a line. None: all photos.
        strict: unreadable photos are an error, not left out.

    Raises:
        DataError: the folder, a photo's name, the table, the classes or the list is wrong; a photo has no
            tags, or tags have no photo.
    """
    root = Path(path)
    photos = photos_by_name(root)
    table = tables.find_table(root, labels)
    tags = _class_folder_tags(photos, root) if table is None else table_tags(table, photos)
    source = "class folders" if table is None else str(table)
    names = sorted(photos) if split is None else _split_names(split, root, photos)
    tables.check_tagged(names, tags, source)
    classes = _classes(root, tags, source)
    masks = root / "masks"
    kept, notes = readable({name: photos[name] for name in names}, strict)
    return ImageSet(
        tuple(classes),
        make_samples(kept, tags, classes, lambda name: masks / f"{name}.png"),
        notes + _masks_of_no_photo(masks, photos),
        labels_from=source,
    )


def photos_in(path: str | Path) -> list[Sample]:
    """Return a photo, or the photos of a folder as `load_folder` finds them; no tags are needed.

    Raises:
        DataError: the path does not exist, or there is no photo, or two have the same name.
    """
    path = Path(path)
    if path.is_file():
        return [Sample(path.stem, path)]
    return [Sample(name, file) for name, file in photos_by_name(path).items()]


def photos_by_name(root: Path) -> dict[str, Path]:
    """Return the files of the photos of a data folder by name, sorted by name.

    A name is the path within the folder without suffix. Hidden files and the folder's ``masks/`` are
    passed over; links are followed, each folder once.

    Raises:
        DataError: the folder is missing or has no photos, or two photos have one name.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; check the path")
    base = next((root / name for name in ("photos", "images") if (root / name).is_dir()), root)
    photos: dict[str, Path] = {}
    for file in sorted(_photo_files(base, leave_out=root / "masks")):
        name = file.relative_to(base).with_suffix("").as_posix()
        if name in photos:
            raise DataError(f"{base}: {photos[name].name} and {file.name} have one name; rename one of them")
        photos[name] = file
    if not photos:
        raise DataError(f"{base}: no photos in this folder; put some in ({', '.join(PHOTO_SUFFIXES)})")
    return dict(sorted(photos.items()))


def table_tags(table: Path, photos: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Return the tags by photo's name that a table gives.

    Raises:
        DataError: the table is wrong or has tags for no photo.
    """
    rows = tables.read_table(table)
    names = tables.match_photos(rows, photos, table)
    return {names[entry]: tags for entry, tags in rows.items()}


def readable(
    photos: Mapping[str, Path],
    strict: bool,
    sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the photos whose headers can be read, and a note on each of the others.

    Args:
        photos: files by name.
        strict: a photo that cannot be read is an error.
        sizes: height and width that photos must have, by name.

    Raises:
        DataError: no photo can be used, or, if ``strict``, one cannot.
    """
    kept: dict[str, Path] = {}
    notes: list[str] = []
    for name, file in photos.items():
        try:
            _check_size(file, sizes.get(name))
            kept[name] = file
        except DataError as error:
            if strict:
                raise
            notes.append(str(error))
    if not kept:
        raise DataError(f"none of the {len(notes)} photos can be used; the first is {notes[0]}")
    return kept, tuple(notes)


def make_samples(
    photos: Mapping[str, Path],
    tags: Mapping[str, Iterable[str]],
    classes: Mapping[str, int],
    mask_of: Callable[[str], Path],
) -> tuple[Sample, ...]:
    """Return a sample of each photo, with its mask where that file exists."""
    masks = {name: mask_of(name) for name in photos}
    return tuple(
        Sample(
            name,
            file,
            tables.label_indices(tags[name], classes),
            masks[name] if masks[name].is_file() else None,
        )
        for name, file in photos.items()
    )


def _check_size(file: Path, wanted: tuple[int, int] | None) -> None:
    size = photo_size(file)
    if wanted and size != wanted:
        seen, listed = (f"{height} x {width}" for height, width in (size, wanted))
        raise DataError(f"{file}: {seen} pixels (height x width), but {listed} in the JSON; mend one of them")


def _photo_files(base: Path, leave_out: Path) -> list[Path]:
    files: list[Path] = []
    seen = {os.path.realpath(leave_out)}
    for folder, subfolders, names in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(folder, name) for name in names if _is_photo(name)]
    return files


def _is_photo(file_name: str) -> bool:
    return not file_name.startswith(".") and file_name.lower().endswith(PHOTO_SUFFIXES)


def _class_folder_tags(photos: Mapping[str, Path], root: Path) -> dict[str, tuple[str, ...]]:
    """Return each photo's tag where photos lie in one folder per class."""
    loose = [repr(name) for name in photos if "/" not in name]
    if loose:
        raise DataError(
            f"{root}: no tags for {len(loose)} of the photos: {few(loose)};"
            " write labels.csv with the columns image,labels or put the photos into one folder per class"
        )
    folders = {name: PurePosixPath(name).parts[0] for name in photos}
    for folder in set(folders.values()):
        tables.check_class_name(folder, root)
    return {name: (folder,) for name, folder in folders.items()}


def _split_names(split: str | Path, root: Path, photos: Mapping[str, Path]) -> list[str]:
    file = tables.find_list(split, (root, root / "splits"))
    entries = dict.fromkeys(tables.read_list(file))
    return sorted(tables.match_photos(entries, photos, file).values())


def _classes(root: Path, tags: Mapping[str, tuple[str, ...]], source: str) -> dict[str, int]:
    """Return the index by class: in the order of ``classes.txt``, else sorted."""
    used = sorted({tag for row in tags.values() for tag in row} - {tables.BACKGROUND})
    file = root / "classes.txt"
    if not file.is_file():
        return tables.class_indices(used, source)
    names = tables.read_list(file)
    for name in names:
        tables.check_class_name(name, file)
    classes = tables.class_indices((name for name in names if name != tables.BACKGROUND), file)
    tables.check_known(used, classes, source, listed=str(file))
    return classes


def _masks_of_no_photo(masks: Path, photos: Mapping[str, Path]) -> tuple[str, ...]:
    files = sorted(masks.rglob("*.png")) if masks.is_dir() else []
    strays = [file for file in files if file.relative_to(masks).with_suffix("").as_posix() not in photos]
    return tuple(f"{file}: a mask of no photo; give it its photo's name" for file in strays)
