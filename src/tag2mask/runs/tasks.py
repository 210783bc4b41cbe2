"""What each stage does; proxy masks have a file of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch

from tag2mask.data import Sample, read_mask
from tag2mask.data.loading import read_ahead
from tag2mask.distributed import barrier, is_main, of_main
from tag2mask.errors import RunError
from tag2mask.inference import predict_masks, with_mask
from tag2mask.methods import load_method
from tag2mask.names import ClassifierTraining, Teaching
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier, train_head
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.patterns import ClassPatterns
from tag2mask.patterns.orientation import SURE
from tag2mask.report import OverviewRow, PhotoSet, save_overview, save_page, save_patterns
from tag2mask.runs.confidence import confidences_of, with_corrected, write_confidences
from tag2mask.runs.estimate import prepare_crf
from tag2mask.runs.features import features_to_learn, features_to_predict, features_to_redraw, forget
from tag2mask.runs.folder import Run, check_classes, checkpoint_of, read_metrics
from tag2mask.runs.learnt import learn
from tag2mask.runs.refine import not_corrected, put_corrected, share_masks
from tag2mask.runs.scores import SCORES
from tag2mask.runs.views import views_of
from tag2mask.scoring import score_set
from tag2mask.segmenter import Segmenter
from tag2mask.training.classifier import mean_precision, train_classifier
from tag2mask.training.segmenter import train_segmenter

log = logging.getLogger("tag2mask")


def classify(run: Run) -> None:
    """Train the classifier of each view that has one of its own."""
    for view in views_of(run):
        if view.shares is None:
            _classify(view)


def _classify(run: Run) -> None:
    """Train a classifier and measure its mean average precision on held-out photos; one that is there is measured."""
    fitted, held_out = _hold_out(run)
    there = run.classifier_file.exists()
    classifier = Classifier.load(run.classifier_file).to(run.device) if there else _train_classifier(run, fitted)
    tiles = run.recipe.tiles if run.recipe.classifier.train == ClassifierTraining.HEAD else None
    precision = mean_precision(
        classifier, held_out, run.recipe.classifier.size, tiles=tiles, workers=run.recipe.workers, strict=run.strict
    )
    run.record("classifier", precision)  # before the file, which ends the stage
    if is_main() and not there:
        classifier.save(run.classifier_file)
        checkpoint_of(run.classifier_file).unlink(missing_ok=True)


def _train_classifier(run: Run, samples: Sequence[Sample]) -> Classifier:
    how, seed = run.recipe.classifier, run.recipe.seed
    torch.manual_seed(seed)
    name, weights = run.recipe.backbone.name, run.recipe.backbone.weights
    backbone = Backbone(name, output_stride=how.output_stride, weights=weights)
    log.info("backbone: %s, weights from %s", backbone.name, backbone.source)
    classifier = Classifier(backbone, run.train.classes).eval().to(run.device)
    if how.train == ClassifierTraining.HEAD:
        train_head(
            classifier, samples, size=how.size, steps=how.epochs, learning_rate=how.learning_rate,
            weight_decay=how.weight_decay, tiles=run.recipe.tiles, workers=run.recipe.workers, strict=run.strict,
        )  # fmt: skip
    else:
        train_classifier(
            classifier, samples, how, seed=seed, workers=run.recipe.workers,
            checkpoint=checkpoint_of(run.classifier_file), strict=run.strict,
        )  # fmt: skip
    return classifier


def find_patterns(run: Run) -> None:
    """Find what the recipe's proxy method finds in the training photos; record the evidence for the signs."""
    if load_method(run.recipe.proxy.method).learns:
        learn(run)
        run.record("patterns", {})  # it ends the stage; there are no signs
        return
    first, *others = [fitted.about() for view in views_of(run) for fitted in _patterns_of(view)]
    for about in others:
        for name, other in about.items():
            first[name]["confidence"] = min(first[name]["confidence"], other["confidence"])
    run.record("patterns", first)
    say_doubts(run)


def _patterns_of(run: Run) -> list[ClassPatterns]:
    """Return the class patterns of one view, which are found and saved if they are not there."""
    files, layers = run.patterns_files, load_method(run.recipe.proxy.method).layers(run.recipe)
    if of_main(all(file.exists() for file in files)):
        return [ClassPatterns.load(file) for file in files]
    patterns = fit_patterns(run, layers)
    if is_main():
        for fitted, file in zip(patterns, files, strict=True):
            fitted.save(file)
    return patterns


def say_doubts(run: Run) -> None:
    """Warn, in one line, of classes whose patterns may point to the background, the most doubtful first."""
    sure = {name: about.get("confidence", 1.0) for name, about in read_metrics(run.out).get("patterns", {}).items()}
    doubtful = [f"'{name}' ({sure[name]:.2f})" for name in sorted(sure, key=sure.__getitem__) if sure[name] < SURE]
    if is_main() and doubtful:
        log.warning(
            "the masks of %s may show the background instead (confidence of the sign): check them with tag2mask "
            "patterns %s, and correct a class with tag2mask flip %s CLASS", ", ".join(doubtful), run.out, run.out,
        )  # fmt: skip


def fit_patterns(run: Run, layers: Sequence[str]) -> list[ClassPatterns]:
    """Return the class patterns of several layers, found in one pass over the photos."""
    how = run.recipe.patterns
    classifier = Classifier.load(run.classifier_file, layers, how.output_stride).to(run.device)
    check_classes(run, classifier.classes, run.classifier_file)
    patterns = [
        ClassPatterns(
            run.recipe.backbone.name, layer, weights=run.recipe.backbone.weights, size=how.size,
            output_stride=how.output_stride, images_per_class=how.images_per_class, components=how.components,
            contrast=how.contrast, whitening=how.whitening, flip=how.flip, tiles=run.recipe.tiles,
            seed=run.recipe.seed, workers=run.recipe.workers,
        )
        for layer in layers
    ]  # fmt: skip
    load_method(run.recipe.proxy.method).fit(classifier, run.train, patterns, run.strict)
    for name in how.flip:
        log.info("the pattern of '%s' is flipped (patterns.flip)", name)
    return patterns


def segment(run: Run) -> None:
    """Train the segmenter on the proxy masks."""
    prepare_crf(run.recipe.segmenter.method in (Teaching.SEC, Teaching.DSRG))
    train_on(run, run.out / "proxy", 0)


def train_on(run: Run, masks: Path, rounds: int) -> None:
    """Train a segmenter from scratch on the photos that have a mask in ``masks``."""
    how, seed = run.recipe.segmenter, run.recipe.seed + rounds
    if rounds:
        how = how.model_copy(update={"method": Teaching.PLAIN})
    samples = with_mask(run.train.samples, masks)
    if not samples:
        raise RunError(f"{masks} contains no masks to train on; run the earlier stages")
    torch.manual_seed(seed)
    backbone = how.backbone or run.recipe.backbone
    segmenter = SegmentationNetwork(
        backbone.name, run.train.classes, head=how.head, output_stride=how.output_stride, weights=backbone.weights,
        tags=how.tag_weight > 0,
    )  # fmt: skip
    file = run.segmenter_after(rounds)
    checkpoint = checkpoint_of(file)
    train_segmenter(
        segmenter, samples, masks, how, tiles=run.recipe.tiles,
        seed=seed, workers=run.recipe.workers, checkpoint=checkpoint, label=file.stem, strict=run.strict,
        kept=features_to_learn(run, segmenter),
    )  # fmt: skip
    if is_main():
        segmenter.save(file)
        checkpoint.unlink(missing_ok=True)
    barrier()


def is_redrawn(run: Run) -> bool:
    """Return whether the training photos' masks are drawn again with a segmenter and the tags."""
    return bool(run.rounds) or run.recipe.segmenter.redraw


def redraw(run: Run, rounds: int = 1) -> None:
    """Predict the training photos under their tags, for a round of retraining if there is one."""
    masks = run.masks_of_round(rounds)
    segmenter = SegmentationNetwork.load(run.segmenter_after(rounds - 1)).to(run.device)
    readable = with_mask(run.train.samples, run.out / "proxy")
    put_corrected(run, readable, masks)
    prepare_crf(run.recipe.inference.crf is not None)
    predict_masks(
        segmenter, readable, masks, run.recipe, known_labels=True, strict=run.strict,
        kept=features_to_redraw(run, segmenter),
    )  # fmt: skip


def retrain(run: Run) -> None:
    """Train another segmenter from scratch on the masks that are drawn again, as often as the recipe says."""
    for rounds in run.rounds:
        if run.segmenter_after(rounds).exists():
            continue
        if rounds > 1:
            redraw(run, rounds)
        train_on(run, run.masks_of_round(rounds), rounds)


def predict(run: Run) -> None:
    """Predict the evaluation photos with the last segmenter, to ``predictions/``.

    Where these are the training photos and the run is refined, ``refined/`` has these masks already, under their tags.
    """
    if run.is_refined and run.evaluation is run.train:
        if is_main():
            share_masks(run.train.samples, run.refined_masks, run.out / "predictions")
        barrier()
        return
    segmenter = SegmentationNetwork.load(run.segmenter_file).to(run.device)
    check_classes(run, segmenter.classes, run.segmenter_file)
    prepare_crf(run.recipe.inference.crf is not None)
    predict_masks(
        segmenter, run.evaluation.samples, run.out / "predictions", run.recipe, strict=run.strict,
        kept=features_to_predict(run, segmenter),
    )  # fmt: skip
    if is_main():
        forget(run, but=(SCORES,))


def evaluate(run: Run) -> None:
    """Score proxy masks, those drawn again and predictions where truth exists; not those that a person corrected."""
    for name, data, folder in (
        ("proxy", run.train, run.out / "proxy"),
        ("retrain", run.train, run.retrain_masks),
        ("refined", run.train, run.refined_masks),
        ("prediction", run.evaluation, run.out / "predictions"),
    ):
        if folder.is_dir():
            run.record(name, score_set(not_corrected(run, data), folder))


def report(run: Run) -> None:
    """Write ``confidence.csv``, the report page ``report/index.html`` and the picture ``report/overview.png``."""
    if not is_main():
        return
    model = Segmenter(SegmentationNetwork.load(run.segmenter_file).to(run.device), run.recipe)
    sets = [run.train] if run.evaluation is run.train else [run.train, run.evaluation]
    rows = []
    for data in sets:
        count = 8 // len(sets)
        for sample, photo in read_ahead(data.samples[:: max(1, len(data) // count)][:count], 0, run.strict):
            file = run.out / "proxy" / f"{sample.name}.png"
            proxy = read_mask(file) if data is run.train and file.exists() else None
            rows.append(OverviewRow(sample.name, photo, data.truth(sample), proxy, model.predict(photo)))
    picture = run.out / "report" / "overview.png"
    save_overview(rows, run.train.classes, picture)
    shown = photo_sets(run)
    confidences = confidences_of(run, shown)
    confidences[0] = with_corrected(run, confidences[0])
    write_confidences(run, shown, confidences)
    metrics, corrected = read_metrics(run.out), run.corrections.masks
    save_page(run.out, shown, run.recipe, metrics, confidences, run.strict, corrected)
    forget(run)


def photo_sets(run: Run) -> list[PhotoSet]:
    """Return the photos of the page: those of training, and those of evaluation if they are others."""
    proxy, predictions = run.out / "proxy", run.out / "predictions"
    if run.evaluation is run.train:
        return [PhotoSet("training", run.train, {"proxy": proxy, "prediction": predictions})]
    of_training = run.refined_masks if run.is_refined else run.retrain_masks
    folders = {"proxy": proxy} | ({"prediction": of_training} if is_redrawn(run) or run.is_refined else {})
    return [
        PhotoSet("training", run.train, folders),
        PhotoSet("evaluation", run.evaluation, {"prediction": predictions}),
    ]


def draw_patterns(run: Run, folder: Path) -> list[Path]:
    """Draw each class pattern's scores over its most typical photos, and its spectrum; return the pictures."""
    for line in run.changes.said:
        log.warning("%s since %s was made: these patterns are those of the earlier data", line, run.out)
    patterns = ClassPatterns.load(run.patterns_files[0])
    check_classes(run, patterns.classes_, run.patterns_files[0])
    patterns.classifier_.to(run.device)
    return save_patterns(patterns, run.train, folder, run.recipe.proxy.threshold, run.strict)


def _hold_out(run: Run) -> tuple[list[Sample], list[Sample]]:
    """Return the photos to train the classifier on and those to measure it on."""
    samples = list(run.train.samples)
    if run.evaluation is not run.train:
        return samples, [sample for sample in run.evaluation.samples if sample.labels]
    share = Fraction(str(run.recipe.classifier.holdout))
    held = [sample for place, sample in enumerate(samples) if place * share // 1 > (place - 1) * share // 1]
    return [sample for sample in samples if sample not in held], held
