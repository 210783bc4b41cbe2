"""How each table and figure is made from the runs that were done for it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tag2mask.config import Recipe
from tag2mask.data import Sample, read_mask
from tag2mask.data.loading import as_tensor, read_ahead, square
from tag2mask.data.readers.voc import VOC_CLASSES
from tag2mask.files import write_text
from tag2mask.methods.cam import SEED_SHARES, normalised_cam
from tag2mask.names import Conflict
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier
from tag2mask.patterns import ClassPatterns
from tag2mask.proxy import assign, resize_scores
from tag2mask.reproduce import figures, tables
from tag2mask.reproduce import published as paper
from tag2mask.reproduce.components import class_dots
from tag2mask.reproduce.methods import PUBLISHED, methods_table
from tag2mask.runs.estimate import estimate_mask
from tag2mask.runs.folder import Run, patterns_file, read_metrics, resume_run

log = logging.getLogger(__name__)

LAYERS = ("C41", "C42", "C43")
SHOWN = 4
"""Photos of the picture of the methods' masks."""


@dataclass(frozen=True)
class Reproduced:
    """What a table or figure comes as: text to print, and the files that were written."""

    text: str
    files: list[Path]


@dataclass
class Study:
    """What a table or figure is made from.

    Attributes:
        item: its name.
        out: the folder.
        shared: the run folder of the classifier and the patterns.
        runs: by layer, the runs that train a segmenter.
        methods: by name, the runs of other methods.
        label: index of the class to draw, 1..C; 0 for all.
        photos: those to draw.
    """

    item: str
    out: Path
    shared: Run
    runs: dict[str, Run]
    label: int
    photos: Sequence[Sample]
    methods: dict[str, Run] = field(default_factory=dict)


def _table1(study: Study) -> Reproduced:
    metrics = {layer: read_metrics(run.out) for layer, run in study.runs.items()}
    scores = {layer: found["prediction"] for layer, found in metrics.items()}
    scores |= {"C41": metrics["C41"]["before_retraining"], "C41 + retrain": scores["C41"]}
    run = study.runs["C41"]
    reason = _not_comparable(run, VOC_CLASSES, paper.VOC_PHOTOS, ("resnet101",))
    notes = _notes(run, paper.VOC_SET, reason)
    table = tables.table1(scores, notes, comparable=not reason)
    return _save(study, table, tables.as_printed(table), tables.for_terminal(table))


def _table2(study: Study) -> Reproduced:
    ours, reasons = [], []
    row = [*study.methods.values(), *study.runs.values()][0]
    for run in _rows_of_this_data(study, sorted(study.out.glob("C41*"))):
        run.recipe = resume_run(run.out).recipe
        reason = _not_comparable(run, VOC_CLASSES, paper.VOC_PHOTOS, tuple(paper.TABLE2_OWN))
        reasons.append(reason)
        score = read_metrics(run.out)["prediction"]["miou"]
        ours.append(tables.OwnRow(run.out.name, network_of(run.recipe), len(run.train), score, not reason))
    test = "The test set is scored by VOC's server alone; tag2mask export voc-server writes what it takes."
    notes = _notes(row, paper.VOC_SET, next(filter(None, reasons), ""))
    made = _save(study, tables.table2(ours, [*notes, paper.TABLE2_SALIENCY, test]))
    rows = _rows_of_this_data(study, [study.out / name for name in PUBLISHED])
    metrics = {run.out.name: read_metrics(run.out) for run in rows}
    if not metrics:
        return made
    table = methods_table(metrics, [*_notes(row, paper.VOC_SET, ""), paper.TABLE2_SALIENCY])
    files = [study.out / f"table2-methods.{suffix}" for suffix in ("md", "csv")]
    write_text(files[0], table.markdown() + "\n")
    write_text(files[1], table.csv())
    bars = [(str(row[0]), row[3], row[4]) for row in table.rows]
    files += figures.save_bars(bars, study.out / "table2-methods")
    files += _method_masks(study, [name for name in metrics if name != "emadapt"])  # it has no masks of its own
    return Reproduced(table.markdown(), [*made.files, *files])


def _rows_of_this_data(study: Study, folders: Sequence[Path]) -> Iterator[Run]:
    """Yield the runs that have been scored, with the study's data; one of other data is said and left out."""
    for folder in folders:
        if "prediction" not in read_metrics(folder):
            continue
        run = copy.copy(study.shared)
        run.out = folder
        if run.changes.said:
            log.warning("%s is left out, it was made before: %s", folder, "; ".join(run.changes.said))
        else:
            yield run


def _method_masks(study: Study, names: Sequence[str]) -> list[Path]:
    """Draw the proxy masks of some photos by every method."""
    data = study.shared.train
    masks = {s.name: [study.out / name / "proxy" / f"{s.name}.png" for name in names] for s in data.samples}
    there = [sample for sample in data.samples if all(file.exists() for file in masks[sample.name])]
    shown = (
        [there[len(there) * (2 * place + 1) // (2 * SHOWN)] for place in range(SHOWN)] if len(there) >= SHOWN else there
    )
    rows = [
        figures.Row(photo, data.truth(sample), [read_mask(file) for file in masks[sample.name]])
        for sample, photo in read_ahead(shown, 0, study.shared.strict)
    ]
    titles = ("photo", "truth", *names)
    return figures.save_masks(rows, titles, data.classes, figures.PAGE, study.out / "table2-masks") if rows else []


def _table3(study: Study) -> Reproduced:
    run = study.runs["C41"]
    metrics = read_metrics(run.out)
    accuracy = metrics.get("classifier", {}).get("accuracy")
    reason = _not_comparable(run, tuple(paper.TABLE3)[1:], paper.COCO_PHOTOS, ("resnet101",))
    illegible = [name for name, values in paper.TABLE3.items() if None in values]
    notes = [
        *_notes(run, paper.COCO_SET, reason),
        f"The paper's values of {' and '.join(illegible)} are illegible in our copy.",
        "The paper does not define its classification accuracy. Ours: a photo with k tags is given the k classes of "
        "the largest scores; the share of all tags that are among them, on held-out photos.",
    ]
    table = tables.table3(metrics["prediction"], notes, comparable=not reason, accuracy=accuracy)
    return _save(study, table)


def _figure1(study: Study) -> Reproduced:
    run, (sample,) = study.shared, study.photos
    classifier, patterns = _load(run, LAYERS)
    photo = sample.read()
    scores, activation = _look(run, classifier, patterns, photo)
    mask = estimate_mask(photo, scores["C41"], sample.labels, run.recipe)
    activations = resize_scores(activation[[label - 1 for label in sample.labels]], *photo.shape[:2])
    background, threshold = SEED_SHARES
    seeds = assign(activations, sample.labels, threshold=threshold, conflict=Conflict.STRONGEST, background=background)
    looks = figures.Looks(photo, activations[sample.labels.index(study.label)], seeds, mask)
    dots = class_dots(classifier, run.train, patterns, study.label)
    name = run.train.classes[study.label - 1]
    files = figures.save_features(dots, name, study.label, looks, study.out / study.item)
    shares = "; ".join(f"{d.layer} {100 * d.explained[0]:.1f}% and {100 * d.explained[1]:.1f}%" for d in dots)
    return Reproduced(f"'{name}', variance explained by the two components: {shares}", files)


def _figure3(study: Study) -> Reproduced:
    patterns = ClassPatterns.load(study.shared.out / patterns_file("C41", LAYERS))
    row = study.label - 1
    explained = (100 * patterns.spectra_[row] / patterns.variances_[row]).numpy()
    name = patterns.classes_[row]
    files = figures.save_spectrum(explained, name, study.out / study.item)
    first, second = (f"{value:.1f}%" for value in explained[:2])
    text = f"'{name}', C41, variance explained: first component {first}, second {second} (the paper, {paper.FIGURE3})"
    return Reproduced(text, files)


def _figure4(study: Study) -> Reproduced:
    run = study.shared
    classifier, patterns = _load(run, LAYERS)
    rows = []
    for sample, photo in read_ahead(study.photos, 0, run.strict):
        scores, _ = _look(run, classifier, patterns, photo)
        masks = [estimate_mask(photo, scores[layer], sample.labels, run.recipe) for layer in LAYERS]
        rows.append(figures.Row(photo, run.train.truth(sample), masks))
    return _save_masks(study, rows, ("photo", "truth", *LAYERS), figures.PAGE)


def _figure5(study: Study) -> Reproduced:
    run = study.runs["C41"]
    rows = [
        figures.Row(photo, run.evaluation.truth(sample), [read_mask(run.out / "predictions" / f"{sample.name}.png")])
        for sample, photo in read_ahead(study.photos, 0, run.strict)
    ]
    return _save_masks(study, rows, ("photo", "truth", "prediction"), figures.COLUMN)


ITEMS: dict[str, tuple[Callable[[Study], Reproduced], tuple[str, ...], bool]] = {
    "table1": (_table1, LAYERS, True),
    "table2": (_table2, LAYERS[:1], True),
    "table3": (_table3, LAYERS[:1], True),
    "figure1": (_figure1, LAYERS, False),
    "figure3": (_figure3, LAYERS[:1], False),
    "figure4": (_figure4, LAYERS, False),
    "figure5": (_figure5, LAYERS[:1], True),
}
"""How each is made, the layers whose patterns it needs, and whether segmenters are trained for it."""


def network_of(recipe: Recipe) -> str:
    """Return the segmenter's network without the name of its weights."""
    return (recipe.segmenter.backbone or recipe.backbone).name.partition(".")[0]


def _not_comparable(
    run: Run, classes: Sequence[str], photos: tuple[tuple[int, int], tuple[int, int]], networks: Sequence[str]
) -> str:
    """Return why scores cannot be compared with the paper's; empty where backbone and data are the paper's.

    Args:
        run: the run.
        classes: of the paper's data, without background.
        photos: least and most to train on, and to score on.
        networks: those of the paper's segmenters; its patterns are ResNet-101's.
    """
    backbone, segmenter = run.recipe.backbone.name.partition(".")[0], network_of(run.recipe)
    if backbone != "resnet101" or segmenter not in networks:
        return f"the network is {backbone if backbone == segmenter else f'{backbone}, {segmenter}'}"
    if tuple(run.train.classes) != tuple(classes):
        return f"the {len(run.train.classes)} classes are not the paper's {len(classes)}"
    counts = (len(run.train), len(run.evaluation))
    if not all(least <= count <= most for count, (least, most) in zip(counts, photos, strict=True)):
        return f"there are {counts[0]} photos to train on and {counts[1]} to score on"
    return ""


def _notes(run: Run, published: str, reason: str) -> list[str]:
    photos = f"{len(run.train)} photos of {run.source.split}, {len(run.evaluation)} of {run.source.eval_split}"
    ours = f"Ours: recipe {run.recipe.name}, {run.recipe.backbone.name}, {photos}."
    remarks = [f"{remark}." for remark in (*run.train.remarks, *run.evaluation.remarks)]
    why = [f"No differences: {reason}."] if reason else []
    return [ours, *remarks, f"Paper: {paper.SOURCE}; {published}.", *why]


def _save(
    study: Study, table: tables.Table, printed: tables.Table | None = None, shown: tables.Table | None = None
) -> Reproduced:
    """Write a table as Markdown and CSV; ``printed`` and ``shown`` are how it looks there and on a terminal."""
    files = [study.out / f"{study.item}.{suffix}" for suffix in ("md", "csv")]
    write_text(files[0], (printed or table).markdown() + "\n")
    write_text(files[1], table.csv())
    return Reproduced((shown or table).markdown(), files)


def _save_masks(study: Study, rows: Sequence[figures.Row], titles: Sequence[str], width: float) -> Reproduced:
    files = figures.save_masks(rows, titles, study.shared.train.classes, width, study.out / study.item)
    return Reproduced("photos: " + ", ".join(sample.name for sample in study.photos), files)


def _load(run: Run, layers: Sequence[str]) -> tuple[Classifier, dict[str, ClassPatterns]]:
    stride = run.recipe.patterns.output_stride
    classifier = Classifier.load(run.out / "classifier.safetensors", layers, stride).to(run.device)
    return classifier, {layer: ClassPatterns.load(run.out / patterns_file(layer, LAYERS)) for layer in layers}


def _look(
    run: Run, classifier: Classifier, patterns: dict[str, ClassPatterns], photo: NDArray[np.uint8]
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Return a photo's scores by layer and its class activation maps, each C x h x w."""
    with torch.inference_mode():
        features = classifier(as_tensor(square(photo, run.recipe.patterns.size))[None].to(run.device)).features
        scores = {layer: p.score_features(features)[0].cpu().numpy() for layer, p in patterns.items()}
        return scores, normalised_cam(classifier.activation(features[LAST]))[0].cpu().numpy()
