"""The paper's tables and figures from one's own data, its figures beside ours.

    paper/  shared/         classifier.safetensors, patterns.safetensors (of C41), patterns-C42.safetensors, ...
            C41/ C42/ C43/  run folders with the shared classifier and patterns
            table1.md, table1.csv, figure3.pdf, figure3.png, ...

One classifier and one pass for the patterns serve all layers; what is there already is not done again.
"""

from __future__ import annotations

import copy
import filecmp
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tag2mask.config import InferenceConfig, Recipe, SegmenterConfig, load_recipe
from tag2mask.data import Sample, read_mask, read_photo, summary
from tag2mask.data.loading import as_tensor, read_ahead, square
from tag2mask.data.voc import VOC_CLASSES
from tag2mask.distributed import barrier, is_main, of_main
from tag2mask.errors import DataError, RecipeError, RunError, nearest
from tag2mask.files import share_file, write_text
from tag2mask.inference import predict_masks
from tag2mask.methods.cam import normalised_cam
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import Segmenter
from tag2mask.patterns import ClassPatterns
from tag2mask.progress import duration
from tag2mask.proxy import resize_scores
from tag2mask.reproduce import figures, tables
from tag2mask.reproduce import published as paper
from tag2mask.reproduce.components import class_dots
from tag2mask.runs.estimate import estimate_mask
from tag2mask.runs.folder import Run, Source, begin, locked, patterns_file, read_metrics, resume_run
from tag2mask.runs.plan import estimate_seconds
from tag2mask.runs.stages import STAGES, from_stage, run_stages, take_up
from tag2mask.runs.tasks import fit_patterns
from tag2mask.scoring import score_set

log = logging.getLogger("tag2mask")

LAYERS = ("C41", "C42", "C43")
ROWS = 6
"""Photos in Figures 4 and 5."""


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
        label: index of the class to draw, 1..C; 0 for all.
        photos: those to draw.
    """

    item: str
    out: Path
    shared: Run
    runs: dict[str, Run]
    label: int
    photos: Sequence[Sample]


def reproduce(
    item: str,
    data: str | Path,
    out: str | Path,
    *,
    labels: str | None = None,
    split: str | None = None,
    eval_split: str | None = None,
    recipe: str | Path | None = None,
    settings: Sequence[str] = (),
    class_name: str | None = None,
    photos: Sequence[str] = (),
    strict: bool = False,
) -> Reproduced:
    """Make a table or figure of the paper; do what it needs and what is not there yet.

    Args:
        item: one of `ITEMS`.
        data: a VOCdevkit folder, a COCO folder or JSON, or any other data.
        out: folder of the runs, tables and figures.
        labels: tag table, if the tags are not to be had from the data.
        split: list of training photos; None for ``train``, with Table 3 ``train2017``.
        eval_split: list of photos to score; None for ``val``, with Table 3 ``val2017``.
        recipe: name or file; None for the paper's with ResNet-101.
        settings: ``key=value`` changes to the recipe.
        class_name: of the class to draw; None for ``dog``, else the first, in Figures 1 and 3, for all in 4 and 5.
        photos: names of the photos to draw; none for some that are spread over the split.
        strict: an unreadable photo is an error.

    Raises:
        UserError: something that was given is wrong; the message says what.
    """
    if item not in ITEMS:
        raise RunError(f"no item '{item}'{nearest(item, ITEMS)} (items: {', '.join(ITEMS)})")
    make, layers, trains = ITEMS[item]
    year = "2017" if item == "table3" else ""
    source = Source.of(data, labels, split or f"train{year}", eval_split or f"val{year}")
    wanted = _recipe(item, recipe, settings)
    Backbone(wanted.backbone.name, layers, weights="random")  # has it these layers?
    shared = Run(Path(out) / "shared", source, _shared_recipe(wanted), strict)
    label = _label(item, shared.train.classes, class_name)
    study = Study(item, Path(out), shared, {}, label, _photos(item, shared, label, photos))
    with locked(study.out):
        return _make(study, make, layers if trains else (), layers, wanted)


def _make(
    study: Study, make: Callable[[Study], Reproduced], trained: Sequence[str], layers: Sequence[str], wanted: Recipe
) -> Reproduced:
    """Do what an item needs and what is not there yet, or is of other data, then make it."""
    shared = study.shared
    begin(shared)
    _check_truth(study)
    _take_up(shared)
    for layer in trained:
        study.runs[layer] = copy.copy(shared)  # with the data that it has read
        study.runs[layer].recipe = _layer_recipe(wanted, layer)
        study.runs[layer].out = study.out / _folder(layer, wanted)
        begin(study.runs[layer])
        _take_up(study.runs[layer])
    _find_patterns(shared, layers)
    for layer, run in study.runs.items():
        if is_main():
            _share(shared, layer, run)
        barrier()
        _finish(run)
    if study.item == "table1":
        _score_before_retraining(study.runs["C41"])
    return make(study) if is_main() else Reproduced("", [])


def _table1(study: Study) -> Reproduced:
    metrics = {layer: read_metrics(run.out) for layer, run in study.runs.items()}
    scores = {layer: found["prediction"] for layer, found in metrics.items()}
    scores |= {"C41": metrics["C41"]["before_retraining"], "C41 + retrain": scores["C41"]}
    table = tables.table1(scores, _notes(study.runs["C41"], paper.VOC_SET))
    return _save(study, table, tables.as_printed(table), tables.for_terminal(table))


def _table2(study: Study) -> Reproduced:
    ours = []
    for folder in sorted(study.out.glob("C41*")):
        if scores := read_metrics(folder).get("prediction"):
            ours.append((folder.name, _network(resume_run(folder).recipe), scores["miou"]))
    run = study.runs["C41"]
    test = "The test set is scored by VOC's server alone; tag2mask export voc-server writes what it takes."
    notes = [*_notes(run, paper.VOC_SET), test]
    return _save(study, tables.table2(ours, run.train.classes == VOC_CLASSES, notes))


def _table3(study: Study) -> Reproduced:
    run = study.runs["C41"]
    notes = [*_notes(run, paper.COCO_SET), "Of the paper's table only the means are cited here, not its classes."]
    return _save(study, tables.table3(read_metrics(run.out)["prediction"], notes))


def _figure1(study: Study) -> Reproduced:
    run, (sample,) = study.shared, study.photos
    classifier, patterns = _load(run, LAYERS)
    photo = read_photo(sample.image)
    scores, activation = _look(run, classifier, patterns, photo)
    mask = estimate_mask(photo, scores["C41"], sample.labels, run.recipe)
    cam = resize_scores(activation[study.label - 1 :][:1], *photo.shape[:2])[0]
    dots = class_dots(classifier, run.train, patterns, study.label)
    name = run.train.classes[study.label - 1]
    files = figures.save_features(dots, name, photo, cam, mask, study.out / study.item)
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
        rows.append(figures.Row(photo, [run.train.truth(sample), *masks]))
    return _save_masks(study, rows, ("photo", "truth", *LAYERS), figures.PAGE)


def _figure5(study: Study) -> Reproduced:
    run = study.runs["C41"]
    rows = [
        figures.Row(photo, [run.evaluation.truth(sample), read_mask(run.out / "predictions" / f"{sample.name}.png")])
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


def _recipe(item: str, name: str | Path | None, settings: Sequence[str]) -> Recipe:
    """Return the recipe of the row C41; the others follow from it."""
    data = "coco" if item == "table3" else "voc"
    recipe = load_recipe(name or f"luo2020-{data}-resnet101", list(settings))
    if recipe.proxy.method != "patterns":
        raise RecipeError(f"{item} is of class patterns; leave proxy.method at patterns")
    if recipe.patterns.layers != ["C41"]:
        raise RecipeError(f"{item} is of the layers {', '.join(LAYERS)}; leave patterns.layers at [C41]")
    if item == "table1" and recipe.segmenter.retrain == 0:
        raise RecipeError("table1 has a row after retraining; leave segmenter.retrain at 1 or more")
    return recipe


def _shared_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe up to the proxy masks, the same for all segmenters."""
    own = {"name": "shared", "segmenter": SegmenterConfig(), "inference": InferenceConfig()}
    return recipe.model_copy(update=own)


def _layer_recipe(recipe: Recipe, layer: str) -> Recipe:
    """Return the recipe of a row of Table 1; only C41 is retrained."""
    rounds = recipe.segmenter.retrain if layer == "C41" else 0
    return recipe.model_copy(
        update={
            "patterns": recipe.patterns.model_copy(update={"layers": [layer]}),
            "segmenter": recipe.segmenter.model_copy(update={"retrain": rounds}),
        }
    )


def _folder(layer: str, recipe: Recipe) -> str:
    return layer if recipe.segmenter.backbone is None else f"{layer}-{_network(recipe)}"


def _network(recipe: Recipe) -> str:
    """Return the segmenter's network without the name of its weights."""
    return (recipe.segmenter.backbone or recipe.backbone).name.partition(".")[0]


def _label(item: str, classes: Sequence[str], name: str | None) -> int:
    if name is not None and item.startswith("table"):
        raise RunError(f"{item} is of all classes; leave --class out")
    if name is None and item in ("figure1", "figure3"):
        name = "dog" if "dog" in classes else classes[0]
    if name is not None and name not in classes:
        raise DataError(f"no class '{name}'{nearest(name, classes)} (classes: {', '.join(classes)})")
    return 0 if name is None else 1 + list(classes).index(name)


def _photos(item: str, run: Run, label: int, names: Sequence[str]) -> Sequence[Sample]:
    """Return the photos to draw: those of the names, else some of the class, spread over the split."""
    if item not in ("figure1", "figure4", "figure5"):
        if names:
            raise RunError(f"{item} shows no photos; leave --photo out")
        return ()
    data = run.evaluation if item == "figure5" else run.train
    known = {sample.name: sample for sample in data.samples if not label or label in sample.labels}
    if not known:
        raise DataError(f"no photo to draw is tagged '{data.classes[label - 1]}'; name another --class")
    for name in names:
        if name not in known:
            raise DataError(f"no photo '{name}' to draw{nearest(name, known)}; name one of the split and class")
    if item == "figure1" and len(names) > 1:
        raise RunError("figure1 shows one photo; give --photo once")
    if names:
        return [known[name] for name in names]
    if item == "figure1":
        return sorted(known.values(), key=lambda sample: len(sample.labels))[:1]
    return _spread(list(known.values()), ROWS)


def _spread(samples: Sequence[Sample], count: int) -> Sequence[Sample]:
    """Return some of the photos, of as many classes as can be."""
    seen: Counter[tuple[int, ...]] = Counter()
    turns = []
    for sample in samples:
        turns.append((seen[sample.labels[:1]], sample))
        seen[sample.labels[:1]] += 1
    pool = [sample for _, sample in sorted(turns, key=lambda turn: turn[0])][: max(count, len(seen))]
    return [pool[len(pool) * place // count] for place in range(count)] if len(pool) > count else pool


def _check_truth(study: Study) -> None:
    if study.item not in ("table1", "table2", "table3", "figure1"):
        return
    run, label = study.shared, study.label
    data, split = (run.train, run.source.split) if label else (run.evaluation, run.source.eval_split)
    if all(data.truth(sample) is None for sample in data.samples if not label or label in sample.labels):
        raise DataError(f"{split} of {run.source.path} has no true masks; there is no {study.item} without")


def _find_patterns(shared: Run, layers: Sequence[str]) -> None:
    """Train the classifier, then find the patterns of the layers that have none yet, in one pass."""
    if not of_main(STAGES["classify"].is_done(shared)):
        log.info("%s", summary(shared.train))
        run_stages(shared, until="classify")
    missing = of_main([layer for layer in layers if not (shared.out / patterns_file(layer, LAYERS)).exists()])
    if not missing:
        return
    log.info("discover: class patterns of %s", ", ".join(missing))
    for layer, patterns in zip(missing, fit_patterns(shared, missing), strict=True):
        file = shared.out / patterns_file(layer, LAYERS)
        shared.record(file.stem, patterns.about())
        if is_main():
            patterns.save(file)


def _take_up(run: Run) -> None:
    """Remove what is of other data than there is now, the scores too, whatever has changed."""
    if run.changes.said and is_main():
        run.forget("before_retraining", "prediction")
        shutil.rmtree(run.out / "before-retraining", ignore_errors=True)
    take_up(run)


def _share(shared: Run, layer: str, run: Run) -> None:
    """Give a run the shared classifier and the shared patterns of its layer; what was made from others goes."""
    files = {"classifier": "classifier.safetensors", "patterns": patterns_file(layer, LAYERS)}
    targets = {name: run.out / f"{name}.safetensors" for name in files}
    if any(
        target.exists() and not filecmp.cmp(shared.out / files[name], target, shallow=False)
        for name, target in targets.items()
    ):
        log.warning("%s is of another classifier or other patterns: it is made again", run.out)
        run.forget("before_retraining")
        for stage in from_stage("classify"):
            stage.remove(run)
    for name, target in targets.items():
        if not target.exists():
            run.record(name, read_metrics(shared.out).get(Path(files[name]).stem))
            share_file(shared.out / files[name], target)


def _finish(run: Run) -> None:
    """Do all stages, unless the last segmenter has been scored already."""
    if not of_main(_is_scored(run, "prediction", run.segmenter_file)):
        log.info("%s: roughly %s on this machine", run.out, duration(estimate_seconds(run)))
        run_stages(run)


def _is_scored(run: Run, name: str, segmenter: Path) -> bool:
    """Return whether the run's metrics have these scores and are not older than the segmenter."""
    if name not in read_metrics(run.out) or not segmenter.exists():
        return False
    return (run.out / "metrics.json").stat().st_mtime >= segmenter.stat().st_mtime


def _score_before_retraining(run: Run) -> None:
    """Predict and score the evaluation photos with the first segmenter, unless that has been done."""
    first, folder = run.segmenter_after(0), run.out / "before-retraining"
    if not of_main(_is_scored(run, "before_retraining", first)):
        segmenter = Segmenter.load(first).to(run.device)
        predict_masks(segmenter, run.evaluation.samples, folder, run.recipe, strict=run.strict)
        run.record("before_retraining", score_set(run.evaluation, folder))


def _notes(run: Run, published: str) -> list[str]:
    photos = f"{len(run.train)} photos of {run.source.split}, {len(run.evaluation)} of {run.source.eval_split}"
    ours = f"Ours: recipe {run.recipe.name}, {run.recipe.backbone.name}, {photos}."
    remarks = [f"{remark}." for remark in (*run.train.remarks, *run.evaluation.remarks)]
    return [ours, *remarks, f"Paper: {paper.SOURCE}; {published}."]


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
