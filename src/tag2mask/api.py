"""The Python face: what the commands do, as functions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from tag2mask.config import Recipe, Settings, load_recipe, with_tile
from tag2mask.corrections.refine import Refined, refine
from tag2mask.corrections.tasks import next_photos
from tag2mask.data import ImageSet, Sample, check_photo_sizes, load, photos_in, read_photo
from tag2mask.data.class_names import class_list
from tag2mask.data.image_set import scaled_alike
from tag2mask.data.photos import base_of
from tag2mask.data.readers.voc import voc_root
from tag2mask.data.text import read_list
from tag2mask.distributed import is_main
from tag2mask.errors import DataError
from tag2mask.files import write_text
from tag2mask.inference import predict_masks
from tag2mask.logs import LOG, is_quiet, set_up_in_python, warn
from tag2mask.methods import method_settings
from tag2mask.notebook import html_table
from tag2mask.runs.folder import GIVEN, Source, check_unchanged, open_run, read_metrics, resume_run
from tag2mask.runs.idle import idle_in_prediction, idle_settings
from tag2mask.runs.lock import locked
from tag2mask.runs.plan import plan
from tag2mask.runs.stages import choose_first, run_stages
from tag2mask.runs.tasks import evaluate as evaluate_run
from tag2mask.runs.trained import load_segmenter
from tag2mask.scoring import MaskScores, RunScores, score_folders

__all__ = ["Refined", "Result", "evaluate", "next_photos", "predict_photos", "refine", "run", "show"]


@dataclass(frozen=True)
class Result:
    """Result of `run`.

    Attributes:
        out: the run folder.
        scores: contents of its metrics.json, such as ``scores.prediction.miou`` and ``scores.prediction.iou["dog"]``
            in percent, None without truth; ``scores.classifier.map``; ``scores.seconds["segment"]``.
    """

    out: Path
    scores: RunScores

    def _repr_html_(self) -> str:
        """Return a table for a notebook: IoU by class, in percent; seconds by stage where there is no truth."""
        columns = self.scores.masks
        if not columns:
            return html_table(f"run {self.out}", ("stage", "seconds"), self.scores.seconds.items())
        rows = [["mIoU", *(part.miou for part in columns.values())]]
        rows += [[name, *(part.iou.get(name) for part in columns.values())] for name in _classes(columns)]
        return html_table(f"run {self.out}: IoU in percent", ("class", *columns), rows)


def run(
    data: ImageSet | str | Path,
    out: str | Path,
    recipe: str | Path | Recipe = "auto",
    *,
    labels: str | Path | None = None,
    split: str | Path | None = None,
    eval_split: str | Path | None = None,
    eval_data: ImageSet | None = None,
    method: str | None = None,
    settings: Settings = (),
    keep: bool = False,
    strict: bool = False,
) -> Result:
    """Run all stages: masks from tags, a trained segmenter, predictions and scores.

    Call it again with the same arguments to continue a run that was stopped. It reports on standard error, unless
    logging is configured; ``logging.getLogger("tag2mask").setLevel("WARNING")`` limits this to warnings.

    Args:
        data: an image set, or a folder of photos, a VOCdevkit folder or a COCO JSON.
        out: the run folder.
        recipe: a recipe, its name or its YAML file.
        labels: tag table, where ``data`` is a path.
        split: list of training photos, where ``data`` is a path.
        eval_split: list of photos to predict and score, where ``data`` is a path or was loaded from one.
        eval_data: photos to predict and score, of the same classes, instead of ``eval_split``.
        method: a method to compare, one of `tag2mask.names.method_names`, with what it sets in the recipe.
        settings: further changes to the recipe, ``["segmenter.epochs=3"]`` or ``{"segmenter.epochs": 3}``.
        keep: keep the results of data that has changed since.
        strict: an unreadable photo is an error.

    Raises:
        UserError: an argument or a file is wrong; the message says which.
    """
    set_up_in_python()
    chosen = load_recipe(recipe, method_settings(method, settings))
    source = _source(data, labels, split, eval_split, eval_data)
    warn(idle_settings(chosen, settings))
    given = data if isinstance(data, ImageSet) else None
    opened = open_run(out, source, chosen, strict=strict, given=given, given_eval=eval_data, keep=keep)
    choose_first(opened)
    if is_main() and not is_quiet():
        for line in plan(opened).splitlines():
            LOG.info("%s", line)
    return Result(opened.out, RunScores.model_validate(run_stages(opened)))


def _source(
    data: ImageSet | str | Path,
    labels: str | Path | None,
    split: str | Path | None,
    eval_split: str | Path | None,
    eval_data: ImageSet | None,
) -> Source:
    """Return what a run's folder says of where its data is from."""
    if eval_data is not None and eval_split is not None:
        raise DataError("eval_data and eval_split both name the photos to score; leave one out")
    scored = eval_split if eval_data is None else GIVEN
    if not isinstance(data, ImageSet):
        return Source.of(data, labels, split, scored)
    if labels is not None or split is not None:
        which = "labels" if labels is not None else "split"
        raise DataError(f"{which} goes with data that is a path; an image set has its tags and its photos already")
    if eval_split is not None and data.origin is None:
        raise DataError("the image set was made in Python, so eval_split has no folder to look in; give eval_data")
    path, table, names = data.origin or (GIVEN, None, None)
    if eval_data is not None and eval_data.origin is not None and eval_data.origin[:2] == (path, table):
        scored = eval_data.origin[2] or GIVEN
    return Source.of(path, table, names, scored) if data.origin else Source(GIVEN, eval_split=GIVEN if scored else None)


def predict_photos(
    run: str | Path,
    photos: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    rounds: int | None = None,
    settings: Settings = (),
    resume: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
    strict: bool = False,
) -> tuple[int, int]:
    """Segment photos with the segmenter of a run; return the numbers of masks and of photos.

    Args:
        run: the run folder, or a segmenter exported from one.
        photos: a photo, a folder of photos, or with ``split`` data as `run` takes it.
        out: folder of the masks, one palette PNG per photo, with its name.
        split: list of photos.
        rounds: use the segmenter after this many retraining rounds; None for the last.
        settings: ``key=value`` changes, such as ``inference.crf=null``.
        resume: keep masks that are already in ``out``.
        tile: side of overlapping squares of the photos in pixels; 0 for whole photos, None for as it was trained.
        overlap: of the squares in pixels, with ``tile``.
        strict: an unreadable photo is an error.

    Raises:
        UserError: an argument or a file is wrong, or no photo can be read.
    """
    set_up_in_python()
    model = load_segmenter(run, rounds)
    _check_outside(Path(out), Path(photos))
    samples: Sequence[Sample] = load(photos, split=split).samples if split else photos_in(photos)
    recipe = with_tile(load_recipe(model.recipe, settings), tile, overlap)
    warn(idle_in_prediction(settings))
    if recipe.tiles:
        check_photo_sizes(samples, recipe.tiles)
    samples = scaled_alike(samples, model.levels)
    count = predict_masks(model.network, samples, Path(out), recipe, again=not resume, strict=strict)
    if not count:
        raise DataError(f"{photos}: no mask was written, since no photo can be read")
    return count, len(samples)


def _check_outside(out: Path, photos: Path) -> None:
    """Check that masks will not be taken for photos, or for true masks, when the photos are read the next time."""
    root = voc_root(photos)
    taken = (base_of(photos), photos / "masks") if root is None else (root / "JPEGImages",)
    if photos.is_dir() and any(out.resolve().is_relative_to(folder.resolve()) for folder in taken):
        raise DataError(f"{out}: masks there would be read with the photos later; choose a folder outside of {photos}")


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
    mask, classes = model.predict(photo), model.classes
    save_look(pixels, mask, classes, Path(out))
    shares = np.bincount(mask.ravel(), minlength=len(classes) + 1) / mask.size
    return {name: 100 * float(share) for name, share in zip(classes, shares[1:], strict=True) if share}


@overload
def evaluate(
    masks: str | Path, truth: None = None, *, json_file: str | Path | None = None, csv_file: str | Path | None = None
) -> RunScores: ...


@overload
def evaluate(
    masks: str | Path,
    truth: str | Path,
    *,
    split: str | Path | None = None,
    classes: str | Path | None = None,
    json_file: str | Path | None = None,
    csv_file: str | Path | None = None,
) -> MaskScores: ...


@overload
def evaluate(
    masks: str | Path,
    truth: str | Path | None = None,
    *,
    split: str | Path | None = None,
    classes: str | Path | None = None,
    json_file: str | Path | None = None,
    csv_file: str | Path | None = None,
) -> RunScores | MaskScores: ...


def evaluate(
    masks: str | Path,
    truth: str | Path | None = None,
    *,
    split: str | Path | None = None,
    classes: str | Path | None = None,
    json_file: str | Path | None = None,
    csv_file: str | Path | None = None,
) -> RunScores | MaskScores:
    """Score a folder of masks against a folder of true masks or, without ``truth``, a run folder.

    Args:
        masks: folder of masks, or a run folder.
        truth: folder of true masks.
        split: file with the names to score, one per line.
        classes: file with the names of the foreground classes, one per line.
        json_file: where to write the scores as JSON.
        csv_file: where to write them as CSV.

    Returns:
        The scores of the masks; for a run folder those of the run.

    Raises:
        UserError: an argument or a file is wrong; the message says which.
    """
    scores: RunScores | MaskScores
    if truth is None:
        if split is not None or classes is not None:
            raise DataError(
                "a run folder has its own photos and classes: give split and classes with a folder of truth"
            )
        opened = resume_run(masks)
        with locked(opened.out):
            check_unchanged(opened)
            evaluate_run(opened)
        values = read_metrics(opened.out)
        scores = RunScores.model_validate(values)
        columns = scores.masks
    else:
        names = None if classes is None else class_list(read_list(classes), classes)
        values = score_folders(masks, truth, None if split is None else read_list(split), names)
        scores = MaskScores.model_validate(values)
        columns = {"masks": scores}
    if json_file and is_main():
        write_text(Path(json_file), json.dumps(values, indent=2) + "\n")
    if csv_file and is_main():
        write_text(Path(csv_file), _as_csv(columns))
    return scores


def _classes(columns: Mapping[str, MaskScores]) -> list[str]:
    return list(next(iter(columns.values())).iou) if columns else []


def _as_csv(columns: Mapping[str, MaskScores]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["class", *columns])
    for name in _classes(columns):
        rows.writerow([name, *(part.iou.get(name) for part in columns.values())])
    rows.writerow(["mIoU", *(part.miou for part in columns.values())])
    return text.getvalue()
