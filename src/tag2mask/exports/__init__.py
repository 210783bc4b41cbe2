"""Out to other tools: masks as annotation files, segmenters as models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag2mask.errors import DataError, ExportError, nearest
from tag2mask.exports.annotations import write_coco, write_label_studio, write_labelme, write_yolo
from tag2mask.exports.fiftyone import write_fiftyone
from tag2mask.exports.masks import open_masks
from tag2mask.exports.models import write_huggingface, write_onnx
from tag2mask.exports.pieces import Pieces
from tag2mask.exports.voc_server import write_voc_server
from tag2mask.names import ExportFormat
from tag2mask.runs.folder import resume_run

_MASKS, _OF_PIECES = ("masks", "classes", "photos", "split"), ("min_area", "instances")
_OF_RUN = ("config.json", "data.json", "metrics.json")


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        write: what writes it.
        suffix: of the file that it is; empty for a folder.
        options: of `export` that it takes.
        needs: ``"classes"`` and ``"photos"``, where it names these.
    """

    write: Callable[..., None]
    suffix: str
    options: tuple[str, ...]
    needs: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    ExportFormat.COCO: Format(write_coco, ".json", (*_MASKS, "min_area", "instances"), ("classes", "photos")),
    ExportFormat.LABELME: Format(write_labelme, "", (*_MASKS, "min_area", "tolerance"), ("classes", "photos")),
    ExportFormat.YOLO: Format(write_yolo, "", (*_MASKS, "min_area", "tolerance", "instances"), ("classes",)),
    ExportFormat.LABEL_STUDIO: Format(
        write_label_studio, ".json", (*_MASKS, "min_area", "tolerance", "brush", "photo_url"), ("classes", "photos")
    ),
    ExportFormat.FIFTYONE: Format(write_fiftyone, "", _MASKS, ("classes", "photos")),
    ExportFormat.VOC_SERVER: Format(write_voc_server, ".tar", _MASKS),
    ExportFormat.ONNX: Format(write_onnx, ".onnx", ("rounds",)),
    ExportFormat.HUGGINGFACE: Format(write_huggingface, "", ("rounds",)),
}


def export(
    format: str,
    source: str | Path,
    out: str | Path,
    *,
    masks: str | None = None,
    classes: str | Path | None = None,
    photos: str | Path | None = None,
    split: str | Path | None = None,
    min_area: int | None = None,
    tolerance: float | None = None,
    photo_url: str | None = None,
    rounds: int | None = None,
    instances: bool = False,
    brush: bool = False,
) -> Path:
    """Write masks, or a run's segmenter, for another tool; return the file or folder that was written.

    Masks become one annotation for each component (pixels of a class that hang together by their edges);
    background and 255 (uncertain) become none.

    Args:
        format: one of `FORMATS`.
        source: a run folder; of masks also any folder of mask files.
        out: the file to write, replaced if it is there, or the folder, which must be empty or not there.
        masks: which ones of a run: ``predictions`` (if not given), ``proxy``, ``retrain`` or ``refined``.
        classes: file with the names of the foreground classes, one a line; else those of the run.
        photos: folder of the photos; else those of the run.
        split: file with the names of the masks to take, one a line; else all.
        min_area: leave out smaller components, in pixels; 1 for none. By default specks are left out, and a warning
            says how many: components smaller than 1/10,000 of the photo, than 100 pixels, and than a tenth of the
            largest component of their class in the photo.
        tolerance: by how many pixels a polygon may leave the pixels' border (0.5); 0 for not at all.
        photo_url: Label Studio's URL of a photo up to its file name; None for local storage of the photos' folder
            (``/data/local-files/?d=``).
        rounds: the segmenter after so many retrainings; else the last.
        instances: components are split where a neck joins two objects of a class.
        brush: Label Studio's brush regions, which are exact, instead of polygons.

    Raises:
        UserError: something that was given is wrong, or what the format needs is not installed; nothing was
            written.
    """
    given = {
        "masks": masks, "classes": classes, "photos": photos, "split": split, "min_area": min_area,
        "tolerance": tolerance, "photo_url": photo_url, "rounds": rounds, "instances": instances or None,
        "brush": brush or None,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    how, out = _format(format, options), Path(out)
    _check_place(out, how.suffix, format)
    _check_not_input(out, Path(source), classes, split)
    if brush and tolerance is not None:
        raise ExportError("--tolerance means nothing with --brush, whose regions are exact; leave one out")
    if "masks" not in how.options:
        how.write(source, out, **options)
        return out
    chosen: dict[str, Any] = {name: options.pop(name, None) for name in _MASKS}
    opened = open_masks(source, **chosen, need_photos="photos" in how.needs)
    if "classes" in how.needs and not opened.classes:
        raise DataError(f"{source}: {format} names the classes; give a file of their names with --classes")
    if "min_area" not in how.options:
        how.write(opened, out, **options)
        return out
    pieces = Pieces(min_area, instances)
    how.write(opened, out, pieces, **{name: value for name, value in options.items() if name not in _OF_PIECES})
    pieces.report()
    return out


def _format(name: str, options: Iterable[str]) -> Format:
    if name not in FORMATS:
        raise ExportError(f"no format '{name}'{nearest(name, FORMATS)} (formats: {', '.join(FORMATS)})")
    strange = next((option for option in options if option not in FORMATS[name].options), None)
    if strange:
        raise ExportError(f"--{strange.replace('_', '-')} means nothing to the format {name}; leave it out")
    return FORMATS[name]


def _check_place(out: Path, suffix: str, format: str) -> None:
    if suffix and (out.suffix != suffix or out.is_dir()):
        raise ExportError(f"--out {out}: {format} is one file; give its name, ending in {suffix}")
    if not suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"--out {out} is not empty; delete it or choose another folder")


def _check_not_input(out: Path, source: Path, *lists: str | Path | None) -> None:
    """Refuse to replace a file that the export or the run reads."""
    if not out.is_file():
        return
    inputs, place = [one for one in lists if one is not None], out.resolve()
    if (source / "config.yaml").is_file():
        data = resume_run(source).source
        inputs += [one for one in (data.path, data.labels, data.split, data.eval_split) if one is not None]
    inputs += [source / name for name in _OF_RUN]
    if place in [Path(one).resolve() for one in inputs]:
        raise ExportError(f"--out {out} would replace a file that {source} needs; choose another name")
