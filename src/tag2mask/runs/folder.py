"""The run folder: where its data comes from, its recipe, its files, its metrics; opened, taken up again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from filelock import FileLock, Timeout

from tag2mask.config import Recipe, parse_recipe, read_yaml
from tag2mask.data import ImageSet, check_mask_sizes, check_trainable, keep_truth, load
from tag2mask.data.loading import end_if_started_again
from tag2mask.data.tables import read_json
from tag2mask.distributed import barrier, device, is_main
from tag2mask.errors import DataError, RunError, WeightsError
from tag2mask.files import remove_unfinished, write_text
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.deeplab import Segmenter
from tag2mask.runs.fingerprint import (
    Changes,
    Fingerprint,
    compare,
    fingerprint_of,
    read_fingerprint,
    write_fingerprint,
)
from tag2mask.scoring import Metrics, Scores
from tag2mask.segmenter import TrainedSegmenter

log = logging.getLogger("tag2mask")
LOCK = ".lock"
"""The file that a process holds while it works in a run folder."""


@dataclass(frozen=True)
class Source:
    """Where a run's photos, tags and splits come from."""

    path: str
    labels: str | None = None
    split: str | None = None
    eval_split: str | None = None

    @classmethod
    def of(
        cls,
        path: str | Path,
        labels: str | Path | None = None,
        split: str | Path | None = None,
        eval_split: str | Path | None = None,
    ) -> Source:
        """Return a source that means the same from every working folder: paths of files are made absolute."""
        return cls(str(Path(path).resolve()), *(_absolute(one) for one in (labels, split, eval_split)))


@dataclass
class Run:
    """A run folder with its recipe and its data.

    Attributes:
        out: the run folder.
        source: where the data comes from.
        recipe: every parameter.
        strict: an unreadable photo ends the run instead of being skipped.
        given: training photos that were made in Python.
        keep: go on as before where the data has changed.
    """

    out: Path
    source: Source
    recipe: Recipe
    strict: bool = False
    given: ImageSet | None = field(default=None, repr=False)
    keep: bool = False

    @cached_property
    def train(self) -> ImageSet:
        """The training photos with their image-level labels."""
        data = (
            self.given
            if self.given is not None
            else load(self.source.path, self.source.labels, self.source.split, self.strict)
        )
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
        """The device that was asked for, else a GPU where there is one; with several processes, each its own."""
        return device()

    @property
    def classifier_file(self) -> Path:
        """The trained classifier."""
        return self.out / "classifier.safetensors"

    @property
    def patterns_files(self) -> list[Path]:
        """The class patterns of each of the recipe's layers."""
        layers = self.recipe.patterns.layers
        return [self.out / patterns_file(layer, layers) for layer in layers]

    @property
    def segmenter_file(self) -> Path:
        """The last segmenter of the run, retrained as often as the recipe says."""
        return self.segmenter_after(self.recipe.segmenter.retrain)

    @property
    def rounds(self) -> range:
        """The rounds of retraining, from 1."""
        return range(1, self.recipe.segmenter.retrain + 1)

    @property
    def retrain_masks(self) -> Path:
        """The folder of the masks that the last round of retraining learns from."""
        return self.masks_of_round(max(1, self.recipe.segmenter.retrain))

    @property
    def fingerprint_file(self) -> Path:
        """What is known of the data that the run was made from."""
        return self.out / "data.json"

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the data as it is now."""
        return fingerprint_of(self.train, self.evaluation)

    @cached_property
    def changes(self) -> Changes:
        """How the data differs from what the run was made from."""
        before = read_fingerprint(self.fingerprint_file)
        return Changes() if before is None else compare(before, self.fingerprint)

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

    def forget(self, *names: str, stage: str = "") -> None:
        """Take values, and the seconds of a stage, out of metrics.json, if there are any."""
        metrics = read_metrics(self.out)
        kept = {name: value for name, value in metrics.items() if name not in names}
        if stage in kept.get("seconds", {}):
            kept["seconds"] = {name: value for name, value in kept["seconds"].items() if name != stage}
        if kept != metrics:
            write_text(self.out / "metrics.json", json.dumps(kept, indent=2) + "\n")


def patterns_file(layer: str, layers: Sequence[str]) -> str:
    """Return what a run folder calls the patterns of one of several layers."""
    return "patterns.safetensors" if layer == layers[0] else f"patterns-{layer}.safetensors"


def open_run(
    out: str | Path,
    source: Source,
    recipe: Recipe,
    *,
    strict: bool = False,
    given: ImageSet | None = None,
    keep: bool = False,
) -> Run:
    """Start a run in ``out``, or go on with the one that is there if it is the same.

    What has changed in its data since is said; `tag2mask.runs.stages.run_stages` takes it up, or, with ``keep``, goes
    on as before.

    Raises:
        RunError: the folder holds another run or something else.
        DataError: the data cannot be loaded.
        WeightsError: the backbone, a layer or the weights cannot be had.

    Whatever is raised, nothing has then been written.
    """
    run = Run(Path(out), source, recipe, strict, given, keep)
    begin(run)
    return run


def begin(run: Run) -> None:
    """Check a run's folder, data, networks and device, then write its configuration; raises as `open_run` does."""
    device()
    if is_main():
        _check_folder(run)
        with locked(run.out):
            _begin(run)
    barrier()


def _check_folder(run: Run) -> None:
    """Check that a folder is free for a run, or holds the same run."""
    if (run.out / "config.yaml").exists():
        for key, mine, theirs in _differences(_settings(run), _settings(resume_run(run.out))):
            raise RunError(
                f"{run.out} holds another run ({key} is {theirs} there and {mine} here); choose another folder"
            )
    elif run.out.exists() and not _is_free(run.out, Path(run.source.path)):
        raise RunError(f"{run.out} is not empty and holds no run; choose another folder")


def _begin(run: Run) -> None:
    config = run.out / "config.yaml"
    is_new = not config.exists()
    remove_unfinished(run.out)
    for data in (run.train, run.evaluation):
        check_mask_sizes(data)
    _warn_of_seen(run)
    _check_networks(run.recipe)
    if is_new:
        write_fingerprint(run.fingerprint_file, run.fingerprint)
    elif not run.fingerprint_file.exists() and not run.keep:
        raise RunError(
            f"{run.out} does not tell what data it was made from; go on with --keep if that is as it was, "
            "or start a run in another folder"
        )
    write_text(config, yaml.safe_dump(_settings(run), sort_keys=False))
    for line in run.changes.said:
        log.warning("%s since %s was made%s", line, run.out, "; kept as before" if run.keep else "")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from working in a run folder; the processes of one run work in it together.

    Raises:
        RunError: another process works in it.
    """
    end_if_started_again()
    if not is_main():
        yield
        return
    folder_was_there = out.is_dir()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except Timeout:
        raise RunError(f"another process works in {out}; wait for its end or choose another folder") from None
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); choose another folder") from None
    try:
        yield
    finally:
        lock.release()
        if not folder_was_there and not any(path.name != LOCK for path in out.iterdir()):
            with suppress(OSError):  # another process has come meanwhile
                (out / LOCK).unlink(missing_ok=True)  # nothing came of it
                out.rmdir()


def _is_free(folder: Path, data: Path) -> bool:
    """Return whether there is nothing in a folder but, perhaps, the data."""
    return folder.is_dir() and all(
        entry.resolve() == data.resolve() or entry.name == LOCK for entry in folder.iterdir()
    )


def checkpoint_of(file: Path) -> Path:
    """Return where the training that writes a file keeps what it goes on from if it is killed."""
    return file.with_name(f".{file.stem}.pt")


def _absolute(given: str | Path | None) -> str | None:
    """Return the absolute path of a file that is there; a name that a reader knows, such as a split's, as it is."""
    if given is None:
        return None
    return str(Path(given).resolve()) if os.path.isfile(given) else str(given)


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


def check_unchanged(run: Run) -> None:
    """Check that a run's photos and tags are those that it was made from; true masks may have changed.

    Raises:
        RunError: they are not.
    """
    if run.changes.training or run.changes.evaluated:
        said = "; ".join(run.changes.said)
        raise RunError(f"{run.out}: its data has changed ({said}); take it up with tag2mask run")


def check_classes(run: Run, classes: Sequence[str], file: Path) -> None:
    """Check that a file is of the classes of the run's photos.

    Raises:
        RunError: it is not.
    """
    if tuple(classes) != run.train.classes:
        raise RunError(
            f"{file} is of the classes {', '.join(classes)}, the photos of {', '.join(run.train.classes)}; "
            "start a run in another folder"
        )


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
