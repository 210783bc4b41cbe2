"""Lists of photos to correct, as annotation tools open them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tag2mask.data import voc_palette
from tag2mask.errors import DataError, ExportError, RunError, nearest
from tag2mask.exports.annotations import write_label_studio, write_labelme
from tag2mask.exports.masks import Masks
from tag2mask.exports.pieces import Pieces
from tag2mask.exports.polygons import components, polygon
from tag2mask.files import whole
from tag2mask.names import TaskFormat
from tag2mask.report.asking import Asked, choose_next
from tag2mask.report.survey import survey
from tag2mask.runs.confidence import read_confidences
from tag2mask.runs.folder import Run, check_unchanged, resume_run
from tag2mask.runs.tasks import photo_sets


def next_photos(
    run: str | Path,
    count: int = 20,
    *,
    format: str | None = None,
    out: str | Path | None = None,
    photo_url: str | None = None,
) -> list[Asked]:
    """Name the photos of a run whose correction is likely to help most, and write them for an annotation tool.

    Args:
        run: the folder of a finished run.
        count: how many.
        format: one of `TaskFormat`; None writes nothing.
        out: the folder to write, or for ``label-studio`` the JSON file.
        photo_url: Label Studio's URL of a photo up to its name; None for `export`'s.

    Raises:
        UserError: something that was given is wrong; nothing was written.
    """
    if count < 1:
        raise DataError(f"--count {count}: ask for one photo or more")
    if format is not None and format not in list(TaskFormat):
        raise ExportError(f"--format {format}: choose {', '.join(TaskFormat)}{nearest(format, TaskFormat)}")
    if (format is None) != (out is None):
        raise ExportError("--format and --out go together: what to write, and where")
    if photo_url is not None and format != TaskFormat.LABEL_STUDIO:
        raise ExportError("--photo-url means nothing but to label-studio; leave it out")
    place = None if out is None or format is None else _place(Path(out), format)
    opened = resume_run(run)
    check_unchanged(opened)
    photos = photo_sets(opened)[0]
    ranked = survey(photos, read_confidences(opened, photos))[1]
    asked = choose_next(ranked, opened.corrections.masks, count)
    if not asked:
        raise RunError(f"{opened.out}: no photo is left to correct, or no mask is there yet")
    if place is not None:
        masks = _masks(opened, asked)
        if format == TaskFormat.LABELME:
            write_labelme(masks, place, Pieces(), with_photos=True)
        elif format == TaskFormat.LABEL_STUDIO:
            write_label_studio(masks, place, Pieces(), photo_url=photo_url)
        else:
            write_cvat(masks, place)
    return asked


def _place(out: Path, format: str) -> Path:
    if format == TaskFormat.LABEL_STUDIO:
        if out.suffix != ".json" or out.is_dir():
            raise ExportError(f"--out {out}: {format} is one file; give its name, ending in .json")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"--out {out} is there and not empty; choose another folder")
    return out


def _masks(run: Run, asked: Sequence[Asked]) -> Masks:
    """Return the best masks that a run has of some of its training photos."""
    predictions = run.out / "predictions"
    folders = [run.refined_masks, *([predictions] if run.evaluation is run.train else [run.retrain_masks])]
    files = {}
    for one in asked:
        name = one.sample.name
        made = (folder / f"{name}.png" for folder in (*folders, run.out / "proxy"))
        files[name] = next(file for file in made if file.exists())
    return Masks(files, run.train.classes, {one.sample.name: one.sample.image for one in asked})


def write_cvat(masks: Masks, out: Path) -> None:
    """Write what a CVAT task is made of: ``images/``, ``labels.json``, and ``annotations.xml`` (CVAT for images 1.1).

    Args:
        masks: what to write.
        out: the folder.
    """
    colours = [f"#{bytes(colour).hex()}" for colour in voc_palette()[1:]]
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    with whole(out) as folder:
        for number, (name, mask) in enumerate(masks.read("CVAT")):
            photo = masks.put_photo(name, folder / "images")
            about = {"id": number, "name": photo, "width": mask.shape[1], "height": mask.shape[0]}
            image = ElementTree.SubElement(root, "image", {key: str(value) for key, value in about.items()})
            for component in components(mask):
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in polygon(component))
                label = masks.classes[component.label - 1]
                ElementTree.SubElement(image, "polygon", label=label, occluded="0", points=points, z_order="0")
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)
        labels = [
            {"name": name, "color": colour, "attributes": []}
            for name, colour in zip(masks.classes, colours, strict=False)
        ]
        (folder / "labels.json").write_text(json.dumps(labels, indent=2) + "\n", "utf-8")
