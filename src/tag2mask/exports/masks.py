"""The masks that are exported: of a run or of any folder, with their classes and photos."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tag2mask.data import photo_size, read_mask
from tag2mask.data.class_names import class_list
from tag2mask.data.matching import match_masks
from tag2mask.data.photos import masks_by_name, photos_by_name
from tag2mask.data.text import read_list
from tag2mask.data.truth import ONLY_IGNORED
from tag2mask.errors import DataError, ExportError, RunError, nearest
from tag2mask.files import share_file
from tag2mask.names import IGNORE, MaskKind
from tag2mask.networks.weights import read_about
from tag2mask.progress import track
from tag2mask.runs.corrected import FOLDER as CORRECTED
from tag2mask.runs.folder import Run, resume_run

log = logging.getLogger("tag2mask")


@dataclass(frozen=True)
class Masks:
    """Mask files with what is known about them.

    Attributes:
        files: the PNG files by name: the path in their folder without suffix, POSIX separators.
        classes: names of the foreground classes; empty where they are not known.
        photos: the photos' files by the same names; empty where they are not known.
    """

    files: Mapping[str, Path]
    classes: tuple[str, ...]
    photos: Mapping[str, Path]

    def read(self, label: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Yield each name and mask, uint8 H x W, one at a time.

        Raises:
            DataError: a mask cannot be read, is of another size than its photo, or has an unknown class; or all masks
                together have none, only ignored pixels.
        """
        seen_class = seen_ignored = False
        for name, file in track(self.files.items(), len(self.files), label):
            mask = read_mask(file)
            highest = int(np.max(mask, where=mask != IGNORE, initial=0))
            seen_class, seen_ignored = seen_class or highest > 0, seen_ignored or bool((mask == IGNORE).any())
            if self.classes and highest > len(self.classes):
                raise DataError(f"{file}: class index {highest}, but there are {len(self.classes)} classes")
            if name in self.photos and photo_size(self.photos[name]) != mask.shape:
                seen, photo = mask.shape, photo_size(self.photos[name])
                raise DataError(
                    f"{file}: {seen[0]} x {seen[1]} pixels (height x width), but its photo {self.photos[name]} has "
                    f"{photo[0]} x {photo[1]}; give the photo that it is of, or make the mask again"
                )
            yield name, mask
        if seen_ignored and not seen_class:
            raise DataError(f"{next(iter(self.files.values()))}: this and all other masks {ONLY_IGNORED}")

    def photo_name(self, name: str) -> str:
        """Return the file name of a mask's photo: as the mask's name, with the photo's suffix."""
        return name + self.photos[name].suffix

    def put_photo(self, name: str, folder: Path) -> str:
        """Put a mask's photo in a folder, and return its file name there."""
        photo = self.photo_name(name)
        (folder / photo).parent.mkdir(parents=True, exist_ok=True)
        share_file(self.photos[name].resolve(), folder / photo)
        return photo


def open_masks(
    source: str | Path,
    *,
    masks: str | None = None,
    classes: str | Path | None = None,
    photos: str | Path | None = None,
    split: str | Path | None = None,
    need_photos: bool = False,
) -> Masks:
    """Find the masks of a run or of a folder.

    Args:
        source: a run folder, or a folder of mask files.
        masks: which ones of a run, one of `MaskKind`; None for the predictions.
        classes: file with the names of the foreground classes, one a line; None for those of the run.
        photos: folder of the photos; None for those of the run, where they still are.
        split: file with the names to take, one a line; None for all.
        need_photos: unknown photos are an error.

    Raises:
        DataError: the folder, a list, or a photo is missing or wrong.
        RunError: the run has no such masks.
        ExportError: ``masks`` is no kind of masks, or the source is no run.
    """
    source = Path(source)
    run = resume_run(source) if (source / "config.yaml").is_file() else None
    folder = _folder(source, masks, run)
    files = _chosen(_files(folder), split)
    if run is not None:  # what a person has corrected is truth
        corrected = masks_by_name(source / CORRECTED)
        files = {name: corrected.get(name, file) for name, file in files.items()}
    names: tuple[str, ...] = ()
    if classes is not None:
        names = class_list(read_list(classes), classes)
    elif run is not None:
        names = class_list(*_run_classes(run))
    found: Mapping[str, Path] = {}
    if photos is not None:
        found = photos_by_name(Path(photos))
    elif run is not None:
        found = _run_photos(run, masks or MaskKind.PREDICTIONS, need_photos)
    elif need_photos:
        raise DataError(f"{source}: this format names the photos; give their folder with --photos")
    bare = next((file for name, file in files.items() if name not in found), None)
    if bare and (need_photos or photos is not None):
        raise DataError(f"{bare}: none of the photos of {photos or source} has its name; give the right --photos")
    return Masks(files, names, {name: found[name] for name in files if name in found})


def _folder(source: Path, masks: str | None, run: Run | None) -> Path:
    if masks is not None and masks not in list(MaskKind):
        raise ExportError(f"--masks {masks}: a run has {', '.join(MaskKind)}{nearest(masks, MaskKind)}")
    if run is None:
        if masks is not None:
            raise ExportError(f"--masks {masks}: {source} is no run (no config.yaml); leave the option out")
        if not source.is_dir():
            raise DataError(f"{source}: no such run or folder of masks; check the path")
        return source
    folder = run.retrain_masks if masks == MaskKind.RETRAIN else source / (masks or MaskKind.PREDICTIONS)
    if not folder.is_dir():
        raise RunError(f"{source} has no {folder.name} yet; finish the run with tag2mask run, or name other --masks")
    return folder


def _files(folder: Path) -> dict[str, Path]:
    files = masks_by_name(folder)
    if not files:
        raise DataError(f"{folder}: no masks (*.png) in this folder; check the path")
    return files


def _chosen(files: dict[str, Path], split: str | Path | None) -> dict[str, Path]:
    if split is None:
        return files
    return {name: files[name] for name in match_masks(read_list(split), files, split)}


def _run_classes(run: Run) -> tuple[list[str], Path]:
    files = {run.segmenter_file: "a segmenter", run.out / "classifier.safetensors": "a classifier"}
    for file, kind in files.items():
        if file.is_file():
            return list(read_about(file, kind).get("classes", [])), file
    raise RunError(f"{run.out} has no model that knows the classes; give their names with --classes")


def _run_photos(run: Run, kind: str, needed: bool) -> dict[str, Path]:
    try:
        data = run.evaluation if kind == MaskKind.PREDICTIONS else run.train
    except DataError as error:
        if needed:
            raise DataError(f"{error}; or give the folder of the photos with --photos") from None
        log.warning("sizes are not compared with the photos': %s", error)
        return {}
    for line in run.changes.said:
        log.warning("%s since %s was made: these masks are older; tag2mask run makes new ones", line, run.out)
    return {sample.name: sample.image for sample in data.samples}
