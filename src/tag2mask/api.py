"""The Python face: what the commands do, as functions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tag2mask.config import Recipe, Settings, apply_settings, load_recipe, parse_recipe
from tag2mask.data import ImageSet, Sample, load, photos_in, read_photo
from tag2mask.data.image_set import scaled_alike
from tag2mask.data.tables import read_list
from tag2mask.distributed import is_main
from tag2mask.errors import DataError
from tag2mask.files import write_text
from tag2mask.inference import predict_masks
from tag2mask.logs import warn
from tag2mask.methods import method_settings
from tag2mask.notebook import html_table
from tag2mask.runs.folder import Source, check_unchanged, load_segmenter, open_run, read_metrics, resume_run
from tag2mask.runs.idle import idle_in_prediction, idle_settings
from tag2mask.runs.lock import locked
from tag2mask.runs.stages import run_stages
from tag2mask.runs.tasks import evaluate as evaluate_run
from tag2mask.scoring import Scores, score_folders


@dataclass(frozen=True)
class Result:
    """What a run gives back.

    Attributes:
        out: the run folder.
        scores: what metrics.json holds: ``proxy``, ``retrain`` and ``prediction`` with ``miou`` and ``iou``
            in percent (None without truth), ``classifier`` with ``map``, ``seconds`` by stage.
    """

    out: Path
    scores: Scores

    def _repr_html_(self) -> str:
        """Return a table for a notebook: IoU by class, in percent; seconds by stage where there is no truth."""
        columns = {name: part for name, part in self.scores.items() if isinstance(part, dict) and part.get("iou")}
        if not columns:
            return html_table(f"run {self.out}", ("stage", "seconds"), self.scores.get("seconds", {}).items())
        classes = next(iter(columns.values()))["iou"]
        rows = [["mIoU", *(part["miou"] for part in columns.values())]]
        rows += [[name, *(part["iou"].get(name) for part in columns.values())] for name in classes]
        return html_table(f"run {self.out}: IoU in percent", ("class", *columns), rows)


def run(
    data: ImageSet | str | Path,
    out: str | Path,
    recipe: str | Path | Recipe = "fast",
    *,
    labels: str | None = None,
    split: str | None = None,
    eval_split: str | None = None,
    method: str | None = None,
    settings: Settings = (),
    strict: bool = False,
) -> Result:
    """Do all stages: tags to masks, a trained segmenter, predictions and scores.

    Called again with the same arguments it goes on where it stopped.

    Args:
        data: an image set, or a folder of photos, a VOCdevkit folder or a COCO JSON.
        out: the run folder.
        recipe: a recipe, its name or its YAML file.
        labels: tag table, where ``data`` is a path.
        split: list of training photos, where ``data`` is a path.
        eval_split: list of photos to predict and score, where ``data`` is a path or was loaded from one.
        method: a method to compare, one of `tag2mask.names.method_names`, for a recipe given by name or file.
        settings: ``key=value`` changes, likewise.
        strict: an unreadable photo is an error.

    Raises:
        UserError: something that was given is wrong; the message says what.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, method_settings(method, settings))
        warn(idle_settings(recipe, settings))
    given = data if isinstance(data, ImageSet) else None
    if given is None:
        source = Source.of(str(data), labels, split, eval_split)
    else:
        source = Source(*(given.origin or ("given in Python", None, None)), eval_split)
    opened = open_run(out, source, recipe, strict=strict, given=given)
    return Result(opened.out, run_stages(opened))


def predict_photos(
    run: str | Path,
    photos: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    rounds: int | None = None,
    settings: Settings = (),
    resume: bool = False,
    strict: bool = False,
) -> tuple[int, int]:
    """Segment photos with the segmenter of a run; return how many masks there are and of how many photos.

    Args:
        run: the run folder, or a segmenter exported from one.
        photos: a photo, a folder of photos, or with ``split`` data as `run` takes it.
        out: folder of the masks, one palette PNG a photo, named as the photo.
        split: list of photos.
        rounds: use the segmenter after so many retrainings; None for the last.
        settings: ``key=value`` changes, such as ``inference.crf=null``.
        resume: keep the masks that are in ``out`` already.
        strict: an unreadable photo is an error.
    """
    model = load_segmenter(run, rounds)
    samples: Sequence[Sample] = load(photos, split=split).samples if split else photos_in(photos)
    recipe = _changed(model.recipe, settings)
    warn(idle_in_prediction(settings))
    samples = scaled_alike(samples, model.levels)
    return predict_masks(model.segmenter, samples, Path(out), recipe, again=not resume, strict=strict), len(samples)


def show(run: str | Path, photo: str | Path, out: str | Path) -> dict[str, float]:
    """Predict a photo and draw the mask over it; return the classes found and their share of the pixels in percent.

    Args:
        run: the run folder.
        photo: its file.
        out: the PNG to write.

    Raises:
        UserError: the photo, the run or the picture cannot be read or written.
    """
    from tag2mask.report import save_look

    if Path(out).resolve() == Path(photo).resolve():
        raise DataError(f"{photo} would be overwritten; choose another file with --out")
    model = load_segmenter(run)
    pixels = read_photo(photo, levels=model.levels)
    mask, classes = model.predict(pixels), model.segmenter.classes
    save_look(pixels, mask, classes, Path(out))
    shares = np.bincount(mask.ravel(), minlength=len(classes) + 1) / mask.size
    return {name: 100 * float(share) for name, share in zip(classes, shares[1:], strict=True) if share}


def evaluate(
    masks: str | Path,
    truth: str | Path | None = None,
    *,
    split: str | Path | None = None,
    classes: str | Path | None = None,
    json_file: str | Path | None = None,
    csv_file: str | Path | None = None,
) -> Scores:
    """Score a folder of masks against a folder of truth, or, without ``truth``, a run folder again.

    Args:
        masks: folder of masks, or a run folder.
        truth: folder of true masks.
        split: file with the names to score, one a line.
        classes: file with the names of the foreground classes, one a line.
        json_file: where to write the scores as JSON.
        csv_file: where to write them as CSV.

    Returns:
        ``miou``, ``iou`` per class and ``images``; for a run folder what its metrics.json holds.
    """
    if truth is None:
        opened = resume_run(masks)
        with locked(opened.out):
            check_unchanged(opened)
            evaluate_run(opened)
        scores = read_metrics(opened.out)
    else:
        scores = score_folders(masks, truth, _lines(split), _lines(classes))
    if json_file and is_main():
        write_text(Path(json_file), json.dumps(scores, indent=2) + "\n")
    if csv_file and is_main():
        write_text(Path(csv_file), _as_csv({"masks": scores} if "miou" in scores else scores))
    return scores


def _changed(recipe: Recipe, settings: Settings) -> Recipe:
    values = recipe.model_dump(mode="json")
    apply_settings(values, settings)
    return parse_recipe(values, "--set")


def _lines(file: str | Path | None) -> list[str] | None:
    return None if file is None else read_list(file)


def _as_csv(columns: Scores) -> str:
    scored = {name: part for name, part in columns.items() if isinstance(part, dict) and part.get("iou")}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["class", *scored])
    for name in next(iter(scored.values()))["iou"] if scored else ():
        rows.writerow([name, *(part["iou"].get(name) for part in scored.values())])
    rows.writerow(["mIoU", *(part["miou"] for part in scored.values())])
    return text.getvalue()
