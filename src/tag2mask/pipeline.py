"""The stages in order, and the run folder that they read and write.

photos + tags -> classify -> discover -> estimate -> segment -> retrain -> predict -> evaluate -> report
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tag2mask.baselines import ddt_scores, discover_ddt, grad_cam_scores, largest_component, normalised_cam
from tag2mask.config import Recipe, parse_recipe, read_yaml
from tag2mask.crf import dense_crf, prepare
from tag2mask.data import (
    ImageSet,
    Sample,
    check_mask_sizes,
    check_trainable,
    keep_truth,
    load,
    read_mask,
    read_photo,
    summary,
    write_mask,
)
from tag2mask.data.files import remove_unfinished, write_text
from tag2mask.data.loading import photo_batches
from tag2mask.data.tables import read_json
from tag2mask.distributed import barrier, device, gather, is_main, of_main, share, world
from tag2mask.errors import DataError, RunError, WeightsError, nearest
from tag2mask.inference import mask_of, predict_masks, predict_probabilities, read_ahead, without_mask
from tag2mask.logs import enter
from tag2mask.metrics import average_precision
from tag2mask.networks.backbones import LAST, Backbone, half_precision
from tag2mask.networks.classifier import Classifier, targets_of, train_head
from tag2mask.networks.deeplab import Segmenter
from tag2mask.networks.speed import folded_backbone
from tag2mask.notebook import html_table
from tag2mask.patterns import ClassPatterns, discover
from tag2mask.progress import duration, track
from tag2mask.proxy import IGNORE, assign, beyond_peak_share, resize_scores, score_probabilities, settle
from tag2mask.scoring import Metrics, Scores, rounded, score_set
from tag2mask.threads import map_ahead
from tag2mask.training import stays_the_same, train_classifier, train_segmenter

if TYPE_CHECKING:
    from tag2mask.report import PhotoSet

log = logging.getLogger("tag2mask")


@dataclass(frozen=True)
class Source:
    """Where a run's photos, tags and splits come from, as given on the command line."""

    path: str
    labels: str | None = None
    split: str | None = None
    eval_split: str | None = None


@dataclass
class Run:
    """A run folder with its recipe and its data.

    Attributes:
        out: the run folder.
        source: where the data comes from.
        recipe: every parameter.
        strict: an unreadable photo ends the run instead of being skipped.
    """

    out: Path
    source: Source
    recipe: Recipe
    strict: bool = False
    given: ImageSet | None = field(default=None, repr=False)

    @cached_property
    def train(self) -> ImageSet:
        """The training photos with their image-level labels."""
        data = self.given or load(self.source.path, self.source.labels, self.source.split, self.strict)
        check_trainable(data)
        return keep_truth(data, self.out / "truth" / "train")

    @cached_property
    def evaluation(self) -> ImageSet:
        """The photos that are predicted and scored: the evaluation split, else the training photos."""
        if self.source.eval_split is None:
            return self.train
        data = load(self.source.path, self.source.labels, self.source.eval_split, self.strict)
        if data.classes != self.train.classes:
            raise DataError(
                f"the evaluation split has the classes {', '.join(data.classes)}, the training photos "
                f"{', '.join(self.train.classes)}; put a classes.txt beside the photos"
            )
        return keep_truth(data, self.out / "truth" / "evaluation")

    @property
    def device(self) -> torch.device:
        """A GPU where there is one; with several processes, each its own."""
        return device()

    @cached_property
    def segmenter_file(self) -> Path:
        """The last segmenter of the run, retrained as often as the recipe says."""
        return self.segmenter_after(self.recipe.segmenter.retrain)

    def segmenter_after(self, rounds: int) -> Path:
        """The segmenter after so many rounds of retraining."""
        suffix = ("", "-retrained")[rounds] if rounds < 2 else f"-retrained-{rounds}"
        return self.out / f"segmenter{suffix}.safetensors"

    def masks_of_round(self, rounds: int) -> Path:
        """The folder of the training photos' masks that so many-eth retraining learns from."""
        return self.out / ("retrain" if rounds == 1 else f"retrain-{rounds}")

    def record(self, name: str, value: Any) -> None:
        """Put a value into metrics.json; of several processes, only the main one writes."""
        if not is_main():
            return
        metrics = read_metrics(self.out)
        metrics[name] = value
        write_text(self.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def classify(run: Run) -> None:
    """Train the classifier (METHOD 2) and measure its mean average precision on held-out photos."""
    how, seed = run.recipe.classifier, run.recipe.seed
    torch.manual_seed(seed)
    name, weights = run.recipe.backbone.name, run.recipe.backbone.weights
    backbone = Backbone(name, output_stride=how.output_stride, weights=weights)
    log.info("backbone: %s, weights from %s", backbone.name, backbone.source)
    classifier = Classifier(backbone, run.train.classes).eval().to(run.device)
    fitted, held_out = _hold_out(run)
    if how.train == "head":
        train_head(
            classifier, fitted, size=how.size, steps=how.epochs, learning_rate=how.learning_rate,
            weight_decay=how.weight_decay, workers=run.recipe.workers, strict=run.strict,
        )  # fmt: skip
    else:
        train_classifier(
            classifier,
            fitted,
            how,
            seed=seed,
            workers=run.recipe.workers,
            checkpoint=run.out / ".classifier.pt",
            strict=run.strict,
        )
    run.record("classifier", _precision(run, classifier, held_out))  # before the file, which ends the stage
    if is_main():
        classifier.save(run.out / "classifier.safetensors")
        (run.out / ".classifier.pt").unlink(missing_ok=True)


def find_patterns(run: Run) -> None:
    """Find the class patterns of the recipe's layers (METHOD 4) and report the evidence for their signs."""
    layers = run.recipe.patterns.layers
    patterns = fit_patterns(run, layers)
    if not is_main():
        return
    run.record("patterns", patterns[0].about())
    for fitted, file in reversed([*zip(patterns, _patterns_files(run), strict=True)]):
        fitted.save(file)


def _patterns_files(run: Run) -> list[Path]:
    """Return the files of the patterns of the recipe's layers; the first is written last and ends the stage."""
    layers = run.recipe.patterns.layers
    return [run.out / patterns_file(layer, layers) for layer in layers]


def patterns_file(layer: str, layers: Sequence[str]) -> str:
    """Return what a run folder calls the patterns of one of several layers."""
    return "patterns.safetensors" if layer == layers[0] else f"patterns-{layer}.safetensors"


def fit_patterns(run: Run, layers: Sequence[str]) -> list[ClassPatterns]:
    """Return the class patterns of several layers, found in one pass over the photos."""
    how = run.recipe.patterns
    classifier = Classifier.load(run.out / "classifier.safetensors", layers, how.output_stride).to(run.device)
    _check_classes(run, classifier.classes, "classifier.safetensors")
    patterns = [
        ClassPatterns(
            run.recipe.backbone.name, layer, weights=run.recipe.backbone.weights, size=how.size,
            output_stride=how.output_stride, images_per_class=how.images_per_class, components=how.components,
            contrast=how.contrast, seed=run.recipe.seed, workers=run.recipe.workers,
        )
        for layer in layers
    ]  # fmt: skip
    find = discover_ddt if run.recipe.proxy.method == "ddt" else discover
    find(classifier, run.train, patterns, run.strict)
    for fitted in patterns if is_main() else []:
        for line in fitted.doubts():
            log.warning("%s: %s", fitted.layer, line)
    return patterns


def estimate(run: Run) -> None:
    """Write the training photos' proxy masks (METHOD 5, Algorithm 1) to ``proxy/``."""
    score, how = scorer(run), run.recipe.proxy
    _prepare_crf(how.crf != "none")

    def write(job: tuple[Sample, NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]) -> None:
        sample, photo, scores, activation = job
        mask = estimate_mask(photo, scores, sample.labels, run.recipe, activation)
        write_mask(run.out / "proxy" / f"{sample.name}.png", largest_component(mask) if how.method == "ddt" else mask)

    def jobs() -> Iterator[tuple[Sample, NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]]:
        for chunk in _chunks(read_ahead(todo, run.recipe.workers, run.strict), 8):
            labels = [sample.labels for sample, _ in chunk]
            squares = torch.stack([square(photo, run.recipe.patterns.size) for _, photo in chunk]).to(run.device)
            found = score(squares, labels)
            for (sample, photo), *maps in zip(chunk, *(one.cpu().numpy() for one in found), strict=True):
                yield sample, photo, *maps

    todo = without_mask(share(run.train.samples), run.out / "proxy")
    for _ in track(map_ahead(write, jobs()), len(todo), "proxy masks"):
        pass


def scorer(run: Run) -> Callable[[Tensor, Sequence[Sequence[int]]], Sequence[Tensor]]:
    """Return what scores the classes of photos as the recipe's proxy method does.

    It takes images, N x 3 x H x W, and each one's labels, and returns scores and class activations, float
    N x C x h x w each.
    """
    how, method, weight = run.recipe.patterns, run.recipe.proxy.method, run.recipe.proxy.cam_weight
    shares = np.asarray(how.layer_weights or [1.0] * len(how.layers))
    shares = shares / shares.sum()
    if method in ("patterns", "ddt"):
        patterns = [ClassPatterns.load(file) for file in _patterns_files(run)]
        classifier, file = patterns[0].classifier_, "patterns.safetensors"
    else:
        file = "classifier.safetensors"
        classifier = Classifier.load(run.out / file, how.layers[:1], how.output_stride)
    _check_classes(run, classifier.classes, file)
    classifier.to(run.device).requires_grad_(False)
    backbone = folded_backbone(classifier.backbone)

    def score(images: Tensor, labels: Sequence[Sequence[int]]) -> Sequence[Tensor]:
        if method == "gradcam":
            return (grad_cam_scores(classifier, images, labels),) * 2
        with torch.inference_mode():
            features = backbone(images)
            activation = classifier.activation(features[LAST])
            if method == "cam":
                scores = normalised_cam(activation)
            elif method == "ddt":
                scores = ddt_scores(patterns[0], features)
            else:
                maps = [float(s) * fitted.score_features(features) for s, fitted in zip(shares, patterns, strict=True)]
                scores = _sum([*maps, weight * normalised_cam(activation)] if weight else maps)
            return scores, _like(activation, scores)

    return score


def estimate_mask(
    photo: NDArray[np.uint8],
    scores: NDArray[np.float32],
    labels: Sequence[int],
    recipe: Recipe,
    activation: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Return a photo's proxy mask as the recipe says: Algorithm 1, then the CRF on the images it is for.

    Args:
        photo: uint8 H x W x 3, RGB.
        scores: float32 C x h x w, in standard deviations or shares of the maximum (`ProxyConfig`).
        labels: the image-level labels.
        recipe: its ``proxy`` and ``crf`` are used.
        activation: float32 C x h x w, class activations in logits, for ``proxy.activation_weight``.

    Returns:
        uint8 H x W.
    """
    how, crf = recipe.proxy, recipe.crf
    if not labels:
        return np.zeros(photo.shape[:2], np.uint8)
    is_cam = how.method in ("cam", "gradcam")
    rows = [label - 1 for label in labels]
    tagged = scores[rows] if is_cam else beyond_peak_share(scores[rows], how.peak_share)
    if how.activation_weight and activation is not None:
        tagged = settle(tagged - how.threshold, activation[rows], how.activation_weight) + np.float32(how.threshold)
    present = resize_scores(tagged, *photo.shape[:2])
    background, threshold = how.cam_thresholds if is_cam else (how.threshold, how.threshold)
    mask = assign(present, labels, threshold=threshold, conflict=how.conflict, background=background)
    if how.crf == "none" or (how.crf == "single" and len(labels) > 1):
        return mask
    start = score_probabilities(present, threshold=threshold, sharpness=how.sharpness)
    refined = dense_crf(photo, start, gaussian=crf.gaussian, bilateral=crf.bilateral, steps=crf.steps)
    return np.where(mask == IGNORE, mask, np.asarray([0, *labels], np.uint8)[refined.argmax(0)])


def segment(run: Run) -> None:
    """Train the segmenter on the proxy masks (METHOD 6)."""
    _prepare_crf(run.recipe.segmenter.method != "plain")
    train_on(run, run.out / "proxy", 0)


def retrain(run: Run) -> None:
    """Predict the training photos with the segmenter and train another from scratch on that (METHOD 6)."""
    for rounds in range(1, run.recipe.segmenter.retrain + 1):
        if run.segmenter_after(rounds).exists():
            continue
        masks = run.masks_of_round(rounds)
        segmenter = Segmenter.load(run.segmenter_after(rounds - 1)).to(run.device)
        readable = [s for s in run.train.samples if (run.out / "proxy" / f"{s.name}.png").exists()]
        predict_masks(segmenter, readable, masks, run.recipe, known_labels=True, strict=run.strict)
        train_on(run, masks, rounds)


def predict(run: Run) -> None:
    """Predict the evaluation photos with the last segmenter (METHOD 7), to ``predictions/``."""
    segmenter = Segmenter.load(run.segmenter_file).to(run.device)
    _check_classes(run, segmenter.classes, run.segmenter_file.name)
    _prepare_crf(run.recipe.inference.crf is not None)
    predict_masks(segmenter, run.evaluation.samples, run.out / "predictions", run.recipe, strict=run.strict)


def evaluate(run: Run) -> None:
    """Score proxy masks, retraining masks and predictions where truth exists (METHOD 8)."""
    for name, data, folder in (
        ("proxy", run.train, "proxy"),
        ("retrain", run.train, "retrain"),
        ("prediction", run.evaluation, "predictions"),
    ):
        if (run.out / folder).is_dir():
            run.record(name, score_set(data, run.out / folder))


def report(run: Run) -> None:
    """Write the report page ``report/index.html`` and the picture ``report/overview.png``."""
    if not is_main():
        return
    from tag2mask.report import OverviewRow, save_overview, save_page

    model = TrainedSegmenter(Segmenter.load(run.segmenter_file).to(run.device), run.recipe)
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
    save_page(run.out, _photo_sets(run), run.recipe, read_metrics(run.out), run.strict)


def _photo_sets(run: Run) -> list[PhotoSet]:
    """Return the photos of the page: those of training, and those of evaluation if they are others."""
    from tag2mask.report import PhotoSet

    proxy, predictions, rounds = run.out / "proxy", run.out / "predictions", run.recipe.segmenter.retrain
    if run.evaluation is run.train:
        return [PhotoSet("training", run.train, {"proxy": proxy, "prediction": predictions})]
    folders = {"proxy": proxy} | ({"prediction": run.masks_of_round(rounds)} if rounds else {})
    return [
        PhotoSet("training", run.train, folders),
        PhotoSet("evaluation", run.evaluation, {"prediction": predictions}),
    ]


def draw_patterns(run: Run, folder: Path) -> list[Path]:
    """Draw each class pattern's scores over its most typical photos, and its spectrum; return the pictures."""
    from tag2mask.report import save_patterns

    patterns = ClassPatterns.load(run.out / "patterns.safetensors")
    _check_classes(run, patterns.classes_, "patterns.safetensors")
    patterns.classifier_.to(run.device)
    return save_patterns(patterns, run.train, folder, run.recipe.proxy.threshold, run.strict)


STAGES: dict[str, Callable[[Run], None]] = {
    "classify": classify,
    "discover": find_patterns,
    "estimate": estimate,
    "segment": segment,
    "retrain": retrain,
    "predict": predict,
    "evaluate": evaluate,
    "report": report,
}


def is_done(run: Run, stage: str) -> bool:
    """Return whether what ``stage`` writes is there or not needed. Mask stages look at each photo themselves."""
    if stage == "discover" and run.recipe.proxy.method in ("cam", "gradcam"):
        return True
    written = {
        "classify": run.out / "classifier.safetensors",
        "discover": run.out / "patterns.safetensors",
        "segment": run.segmenter_after(0),
        "retrain": run.segmenter_file,
    }
    return stage in written and written[stage].exists()


def open_run(
    out: str | Path,
    source: Source,
    recipe: Recipe,
    *,
    strict: bool = False,
    given: ImageSet | None = None,
) -> Run:
    """Start a run in ``out``, or go on with the one that is there if it is the same.

    Raises:
        RunError: the folder holds another run or something else.
        DataError: the data cannot be loaded.
        WeightsError: the backbone, a layer or the weights cannot be had.

    Whatever is raised, nothing has then been written.
    """
    run = Run(Path(out), source, recipe, strict, given)
    begin(run)
    return run


def begin(run: Run) -> None:
    """Check a run's folder, data and networks, then write its configuration; raises as `open_run` does."""
    if is_main():
        _begin(run)
    barrier()


def _begin(run: Run) -> None:
    config = run.out / "config.yaml"
    if config.exists():
        other = resume_run(run.out)
        for key, mine, theirs in _differences(_settings(run), _settings(other)):
            raise RunError(
                f"{run.out} holds another run ({key} is {theirs} there and {mine} here); choose another folder"
            )
    elif run.out.exists() and not _is_free(run.out, Path(run.source.path)):
        raise RunError(f"{run.out} is not empty and holds no run; choose another folder")
    remove_unfinished(run.out)
    for checkpoint in run.out.glob(".*.pt"):  # of a process that was killed before it removed it
        if (run.out / f"{checkpoint.stem[1:]}.safetensors").exists():
            checkpoint.unlink()
    for data in (run.train, run.evaluation):
        check_mask_sizes(data)
    _warn_of_seen(run)
    _check_networks(run.recipe)
    write_text(config, yaml.safe_dump(_settings(run), sort_keys=False))


def _is_free(folder: Path, data: Path) -> bool:
    """Return whether there is nothing in a folder but, perhaps, the data."""
    return folder.is_dir() and all(entry.resolve() == data.resolve() for entry in folder.iterdir())


def resume_run(out: str | Path, *, strict: bool = False) -> Run:
    """Open the run that is in ``out``.

    Raises:
        RunError: there is none.
    """
    config = Path(out) / "config.yaml"
    if not config.is_file():
        raise RunError(f"{out} holds no run: it has no config.yaml; start one with tag2mask run")
    try:
        values = read_yaml(config.read_bytes())
        source = Source(**values["data"])
        recipe = values["recipe"]
        if not all(
            isinstance(value, str) or value is None
            for value in (source.path or 0, source.labels, source.split, source.eval_split)
        ):
            raise TypeError("a path that is none")
    except (ValueError, TypeError, KeyError, OSError):
        raise RunError(f"{config} is not the configuration of a run; start another run") from None
    return Run(Path(out), source, parse_recipe(recipe, str(config)), strict)


def check_stage(stage: str) -> None:
    """Check the name of a stage.

    Raises:
        RunError: there is none of this name.
    """
    if stage not in STAGES:
        raise RunError(f"no stage '{stage}'{nearest(stage, STAGES)} (stages: {', '.join(STAGES)})")


def run_stages(run: Run, until: str = "report") -> Scores:
    """Do every stage up to ``until`` that is not done yet and return the scores.

    Where torchrun or accelerate launch started several processes, all call this: they share the work, the
    main one writes what is common to all, and none begins a stage before all have ended the one before.
    """
    check_stage(until)
    for stage, function in STAGES.items():
        if not of_main(is_done(run, stage)):
            started = time.monotonic()
            enter(stage)
            log.info("%s: %s", stage, (function.__doc__ or "").splitlines()[0])
            function(run)
            seconds = time.monotonic() - started
            spent = read_metrics(run.out).get("seconds", {})
            run.record("seconds", {**spent, stage: round(spent.get(stage, 0) + seconds, 1)})
            barrier()
            log.info("%s: done in %s", stage, duration(seconds))
        if stage == until:
            break
    return read_metrics(run.out)


def redo_stage(run: Run, stage: str) -> None:
    """Do one stage again: what it wrote before is removed first."""
    written = {
        "classify": [run.out / "classifier.safetensors"],
        "discover": [run.out / "patterns.safetensors"],
        "estimate": [*(run.out / "proxy").rglob("*.png")],
        "segment": [run.segmenter_after(0)],
        "retrain": [
            *(run.segmenter_after(rounds) for rounds in range(1, run.recipe.segmenter.retrain + 1)),
            *run.out.glob("retrain*/**/*.png"),
        ],
        "predict": [*(run.out / "predictions").rglob("*.png")],
    }
    for file in written.get(stage, []) if is_main() else []:
        file.unlink(missing_ok=True)
    barrier()
    enter(stage)
    STAGES[stage](run)
    barrier()


def plan(run: Run) -> str:
    """Return what a run will do: its data, its stages, and roughly how long they take here."""
    todo = [stage for stage in STAGES if not is_done(run, stage)]
    lines = [summary(run.train)]
    if run.evaluation is not run.train:
        lines.append(f"evaluation: {len(run.evaluation)} photos of {run.source.eval_split}")
        lines += run.evaluation.remarks
    lines.append(f"recipe {run.recipe.name}, backbone {run.recipe.backbone.name}, on {run.device}")
    lines.append(f"stages: {', '.join(todo)}; roughly {duration(estimate_seconds(run))} on this machine")
    return "\n".join(lines)


def estimate_seconds(run: Run) -> float:
    """Return roughly how long the stages that are not done take, from the fastest of three forward passes."""
    recipe, train, test = run.recipe, len(run.train), len(run.evaluation)
    side = recipe.patterns.size
    backbone = Backbone(recipe.backbone.name, output_stride=recipe.patterns.output_stride, weights="random")
    images = torch.zeros(4, 3, side, side, device=run.device)
    backbone = folded_backbone(backbone.to(run.device))
    moments = []
    with torch.inference_mode():
        for _ in range(4):
            moments.append(time.monotonic())
            backbone(images)
    forward = min(later - earlier for earlier, later in pairwise(moments)) / 4 / side**2
    read, crf = 0.01, 0.15 / (os.cpu_count() or 1)
    classifying = 2 if recipe.classifier.train == "head" else 3 * recipe.classifier.epochs
    epochs = recipe.segmenter.epochs
    passes = 2 + epochs if stays_the_same(recipe.segmenter) else 3 * epochs
    training = train * (passes * forward * recipe.segmenter.size**2 + epochs * read)
    seen = forward * sum(scale**2 for scale in recipe.inference.scales) + read + crf * bool(recipe.inference.crf)
    costs = {
        "classify": classifying * train * (forward * recipe.classifier.size**2 + read),
        "discover": train * (forward * side**2 + read),
        "estimate": train * (forward * side**2 + read + crf * (recipe.proxy.crf != "none")),
        "segment": training,
        "retrain": recipe.segmenter.retrain * (training + train * seen),
        "predict": test * seen,
        "evaluate": 0.02 * (2 * train + test),
    }
    return sum(cost for stage, cost in costs.items() if not is_done(run, stage)) / world()


@dataclass
class TrainedSegmenter:
    """A segmenter with the recipe that it was trained by."""

    segmenter: Segmenter
    recipe: Recipe

    def predict(self, photo: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the mask of a photo, uint8 H x W at the photo's own size, 0 for background.

        Args:
            photo: a file, or uint8 H x W x 3, RGB.

        Raises:
            DataError: the photo cannot be read.
        """
        pixels = photo if isinstance(photo, np.ndarray) else read_photo(photo)
        how = self.recipe.inference
        likely = predict_probabilities(self._folded, pixels, how.scales, background_weight=how.background_weight)
        return mask_of(pixels, likely, how.crf)

    def _repr_html_(self) -> str:
        """Return a table for a notebook: what the segmenter is and what each value of a mask means."""
        names = ", ".join(map(str, self.recipe.inference.scales))
        rows = [(name, value) for value, name in enumerate(("background", *self.segmenter.classes))]
        caption = f"segmenter of recipe {self.recipe.name} on {self.segmenter.backbone.name}, scales {names} pixels"
        return html_table(caption, ("class", "value"), rows)

    @cached_property
    def _folded(self) -> Segmenter:
        how = self.recipe.inference
        return self.segmenter.folded(how.scales if how.compile else None)


def load_segmenter(run: str | Path, rounds: int | None = None) -> TrainedSegmenter:
    """Load a segmenter, on the GPU where there is one.

    Args:
        run: a run folder, or a folder that ``tag2mask export huggingface`` wrote.
        rounds: of a run, the segmenter after so many retrainings; None for the last.

    Raises:
        RunError: there is no run or it has no such segmenter yet.
        WeightsError: the segmenter's file is corrupt.
    """
    file, recipe = find_segmenter(run, rounds)
    return TrainedSegmenter(Segmenter.load(file).to(device()), recipe)


def find_segmenter(run: str | Path, rounds: int | None = None) -> tuple[Path, Recipe]:
    """Return the file of the segmenter that `load_segmenter` loads, and its recipe."""
    exported = Path(run) / "config.json"
    if exported.is_file() and rounds is None:
        values = read_json(exported)
        if not isinstance(values, dict) or not isinstance(values.get("recipe"), dict):
            raise RunError(f"{exported} is not of a segmenter of tag2mask: it has no recipe; export the run again")
        return Path(run) / "model.safetensors", parse_recipe(values["recipe"], str(exported))
    opened = resume_run(run)
    file = opened.segmenter_file if rounds is None else opened.segmenter_after(rounds)
    if not file.exists():
        raise RunError(f"{file} is not there; finish the run with tag2mask run, or name another --rounds")
    return file, opened.recipe


def read_metrics(out: Path) -> Scores:
    """Return what metrics.json of a run folder holds; empty where there is none yet."""
    file = out / "metrics.json"
    if not file.exists():
        return {}
    try:
        values = json.loads(file.read_text("utf-8"))
        Metrics.model_validate(values)
        return cast(Scores, values)
    except (ValueError, OSError, RecursionError):
        raise RunError(f"{file} is damaged; delete it and call tag2mask evaluate {out}") from None


def train_on(run: Run, masks: Path, rounds: int) -> None:
    """Train a segmenter from scratch on the photos that have a mask in ``masks``."""
    how, seed = run.recipe.segmenter, run.recipe.seed + rounds
    if rounds:
        how = how.model_copy(update={"method": "plain"})
    samples = [sample for sample in run.train.samples if (masks / f"{sample.name}.png").exists()]
    if not samples:
        raise RunError(f"{masks} holds no masks to train on; run the stages before")
    torch.manual_seed(seed)
    backbone = how.backbone or run.recipe.backbone
    segmenter = Segmenter(
        backbone.name, run.train.classes, head=how.head, output_stride=how.output_stride, weights=backbone.weights,
        tags=how.tag_weight > 0,
    )  # fmt: skip
    file = run.segmenter_after(rounds)
    checkpoint = run.out / f".{file.stem}.pt"
    train_segmenter(
        segmenter, samples, masks, how,
        seed=seed, workers=run.recipe.workers, checkpoint=checkpoint, label=file.stem, strict=run.strict,
    )  # fmt: skip
    if is_main():
        segmenter.save(file)
        checkpoint.unlink(missing_ok=True)
    barrier()


def _check_networks(recipe: Recipe) -> None:
    """Build what a recipe names, so that a wrong name or missing weights show before anything is written."""
    how = recipe.patterns
    for part, layers, stride, train_from in (
        (recipe.backbone, how.layers, how.output_stride, recipe.classifier.train_from),
        (recipe.segmenter.backbone or recipe.backbone, (), recipe.segmenter.output_stride, recipe.segmenter.train_from),
    ):
        backbone = Backbone(part.name, layers, output_stride=stride, weights=part.weights)
        backbone.freeze_before(train_from)
        if recipe.proxy.method == "gradcam" and backbone.is_transformer and layers and backbone.layers[0] != LAST:
            raise WeightsError(f"Grad-CAM of {part.name} is there for its last layer only; set patterns.layers=[last]")


def _warn_of_seen(run: Run) -> None:
    seen = {sample.name for sample in run.train.samples} & {sample.name for sample in run.evaluation.samples}
    if seen and run.evaluation is not run.train:
        log.warning(
            "%d of %d photos of the evaluation split are in the training split too, for example %s: "
            "the scores are not those of new photos", len(seen), len(run.evaluation), min(seen),
        )  # fmt: skip


def _check_classes(run: Run, classes: Sequence[str], file: str) -> None:
    if tuple(classes) != run.train.classes:
        raise RunError(
            f"{run.out / file} is of the classes {', '.join(classes)}, the photos of {', '.join(run.train.classes)}; "
            "start a run in another folder"
        )


def _prepare_crf(needed: bool) -> None:
    if needed and is_main():
        log.info("dense CRF ready in %s (compiled once on a machine, then loaded)", duration(prepare()))
    barrier()


def _hold_out(run: Run) -> tuple[list[Sample], list[Sample]]:
    """Return the photos to train the classifier on and those to measure it on."""
    samples = list(run.train.samples)
    if run.evaluation is not run.train:
        return samples, [sample for sample in run.evaluation.samples if sample.labels]
    every = round(1 / run.recipe.classifier.holdout)
    return [s for i, s in enumerate(samples) if i % every], samples[::every]


def _precision(run: Run, classifier: Classifier, samples: Sequence[Sample]) -> Scores | None:
    """Return the mean average precision and each class's, in percent; None without labelled photos."""
    if not samples:
        return None
    mine, size, backbone = [], run.recipe.classifier.size, folded_backbone(classifier.backbone)
    for batch, images in photo_batches(
        share(samples), size, workers=run.recipe.workers, strict=run.strict, label="mAP"
    ):
        with torch.inference_mode(), half_precision(run.device):
            logits = classifier.classify(backbone(images.to(run.device))).logits
            mine.append(([sample.labels for sample in batch], logits.float().cpu()))
    parts = [part for theirs in gather(mine) for part in theirs]
    if not parts:
        return None
    labels = [present for rows, _ in parts for present in rows]
    truth, scores = targets_of(labels, len(classifier.classes)).bool().numpy(), torch.cat([s for _, s in parts]).numpy()
    precision = [100 * average_precision(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]
    mean = float(np.nanmean(precision)) if np.isfinite(precision).any() else float("nan")
    per_class = dict(zip(classifier.classes, map(rounded, precision), strict=True))
    return {"map": rounded(mean), "ap": per_class, "images": len(labels)}


def _settings(run: Run) -> dict[str, Any]:
    paths = {**vars(run.source)}
    return {"tag2mask": version("tag2mask"), "data": paths, "recipe": run.recipe.model_dump(mode="json")}


def _differences(mine: Any, theirs: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings in which two runs differ; how many processes read photos is not one."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for name in sorted({*mine, *theirs} - {"workers"}):
            yield from _differences(mine.get(name), theirs.get(name), f"{key}.{name}".strip("."))
    elif mine != theirs:
        yield key, mine, theirs


def _sum(maps: Sequence[Tensor]) -> Tensor:
    """Return the sum of maps, N x C x h x w each; those of another size are brought to the first's."""
    return sum((_like(one, maps[0]) for one in maps[1:]), start=maps[0])


def _like(maps: Tensor, other: Tensor) -> Tensor:
    return functional.interpolate(maps, other.shape[2:], mode="bilinear", align_corners=False)


def square(photo: NDArray[np.uint8], size: int) -> Tensor:
    """Return a photo as the network takes it, uint8 3 x size x size."""
    resized = Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
