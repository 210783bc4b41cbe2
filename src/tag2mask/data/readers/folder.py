"""Any folder of photos, with a tag table or with one folder per class."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tag2mask.data import tables
from tag2mask.data.image_set import ImageSet, Sample, make_samples
from tag2mask.data.photos import masks_by_name, photos_by_name, readable, stray_masks, unread_images
from tag2mask.data.registry import Place, Reader
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
    tags = _class_folder_tags(photos, root) if table is None else tables.table_tags(table, photos)
    source = "class folders" if table is None else str(table)
    names = sorted(photos) if split is None else _split_names(split, root, photos)
    tables.check_tagged(names, tags, source)
    classes = _classes(root, tags, source)
    masks = masks_by_name(root / "masks")
    kept, notes = readable({name: photos[name] for name in names}, strict)
    return ImageSet(
        tuple(classes),
        make_samples(kept, tags, classes, masks),
        notes + stray_masks(root / "masks", masks, photos) + unread_images(root),
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
    found = [Sample(name, file) for name, file in photos_by_name(path).items()]
    if unread := unread_images(path):
        log.warning("passed over: %d images, the first is %s", len(unread), unread[0])
    return found


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


def _is_folder(path: Path, labels: Place, split: Place) -> bool:
    return path.is_dir()


READER = Reader(30, _is_folder, load_folder)
