"""The run folder: where its data comes from, its recipe, its files, its metrics; opened, taken up again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from tag2mask.config import Recipe, parse_recipe, read_yaml, values_of, with_values
from tag2mask.data import ImageSet, check_not_empty, check_photo_sizes, check_truth, keep_truth, load, trainable
from tag2mask.distributed import barrier, device, is_main
from tag2mask.errors import DataError, RunError
from tag2mask.files import absolute, is_unfinished, remove_unfinished, write_text
from tag2mask.methods import load_method
from tag2mask.patterns.estimator import check_flip
from tag2mask.runs.corrected import Corrections, has_masks, read_corrections, with_tags
from tag2mask.runs.fingerprint import Changes, Fingerprint, compare, fingerprint_of, read_fingerprint, write_fingerprint
from tag2mask.runs.lock import LOCK, locked
from tag2mask.runs.networks import check_networks
from tag2mask.runs.shadow import drop, take_place
from tag2mask.scoring import RunScores, Scores

log = logging.getLogger("tag2mask")
GIVEN = "given in Python"
"""What a run's configuration says instead of a path, or of an evaluation split, for an image set made in Python."""


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
        return cls(str(Path(path).resolve()), *(absolute(one) for one in (labels, split, eval_split)))


@dataclass
class Run:
    """A run folder with its recipe and its data.

    Attributes:
        out: the run folder.
        source: where the data comes from.
        recipe: every parameter.
        strict: an unreadable photo ends the run instead of being skipped.
        given: training photos that were made in Python.
        given_eval: evaluation photos that were made in Python.
        keep: go on as before where the data has changed.
        shares: the folder whose classifier it uses; None for its own.
        kept: folder of feature maps that it shares with other runs; None for its own, once it is refined.
    """

    out: Path
    source: Source
    recipe: Recipe
    strict: bool = False
    given: ImageSet | None = field(default=None, repr=False)
    given_eval: ImageSet | None = field(default=None, repr=False)
    keep: bool = False
    shares: Path | None = None
    kept: Path | None = None

    @cached_property
    def _listed(self) -> ImageSet:
        """The training photos with all classes that are listed, also those that no photo has."""
        return self._load(self.given, self.source.path, self.source.split)

    @cached_property
    def train(self) -> ImageSet:
        """The training photos with their image-level labels."""
        data = trainable(with_tags(self._listed, self.corrections.tags))
        made_from = read_fingerprint(self.fingerprint_file) if self.keep else None
        data = data.with_levels(made_from.levels if made_from else None)
        return keep_truth(data, self.out / "truth" / "train")

    @cached_property
    def evaluation(self) -> ImageSet:
        """The photos that are predicted and scored: the evaluation split, else the training photos."""
        if self.source.eval_split is None:
            return self.train
        data = self._load(self.given_eval, self.source.eval_split, self.source.eval_split)
        if data.classes not in (self._listed.classes, self.train.classes):
            advice = "put a classes.txt beside the photos" if self.given_eval is None else "give both sets the same"
            raise DataError(
                f"the evaluation photos have the classes {', '.join(data.classes)}, the training photos "
                f"{', '.join(self.train.classes)}; {advice}"
            )
        check_not_empty(data)
        data = data.with_classes(self.train.classes)
        return keep_truth(data.with_levels(self.train.levels), self.out / "truth" / "evaluation")

    def _load(self, given: ImageSet | None, said: str, split: str | None) -> ImageSet:
        """Return an image set that was given, or that the source says where to find."""
        if given is not None:
            return given
        if said == GIVEN:
            raise DataError(
                f"{self.out}: its photos were passed in Python and have no path; "
                "call tag2mask.run with the same data again"
            )
        return load(self.source.path, self.source.labels, split, self.strict)

    @cached_property
    def corrections(self) -> Corrections:
        """What a person has corrected; masks of photos that the run no longer has do not count."""
        return read_corrections(self.out, {sample.name for sample in self._listed.samples})

    @property
    def device(self) -> torch.device:
        """The device that was asked for, else a GPU where there is one; with several processes, each its own."""
        return device()

    @property
    def classifier_file(self) -> Path:
        """The trained classifier."""
        return (self.shares or self.out) / "classifier.safetensors"

    @property
    def patterns_files(self) -> list[Path]:
        """The class patterns of each layer that the recipe's proxy method looks at."""
        layers = load_method(self.recipe.proxy.method).layers(self.recipe)
        return [self.out / patterns_file(layer, layers) for layer in layers]

    @property
    def segmenter_file(self) -> Path:
        """The last segmenter of the run: retrained as often as the recipe says, then refined by corrected masks."""
        return self.refined_file if self.is_refined else self.segmenter_after(self.recipe.segmenter.retrain)

    @property
    def is_refined(self) -> bool:
        """Whether a person has corrected masks."""
        return has_masks(self.out)

    @property
    def refined_file(self) -> Path:
        """The segmenter that has learnt from corrected masks."""
        return self.out / "segmenter-refined.safetensors"

    @property
    def refined_masks(self) -> Path:
        """The folder of the training photos' masks by that segmenter and by the person."""
        return self.out / "refined"

    @property
    def rounds(self) -> range:
        """The rounds of retraining, from 1."""
        return range(1, self.recipe.segmenter.retrain + 1)

    @property
    def retrain_masks(self) -> Path:
        """The folder of the masks that are drawn again, which the last round of retraining learns from."""
        return self.masks_of_round(max(1, self.recipe.segmenter.retrain))

    @property
    def fingerprint_file(self) -> Path:
        """What is known of the data that the run was made from."""
        return self.out / "data.json"

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the data as it is now."""
        return fingerprint_of(
            self.train, self.evaluation, self.corrections.digests(), read_fingerprint(self.fingerprint_file)
        )

    @cached_property
    def changes(self) -> Changes:
        """How the data differs from what the run was made from."""
        return compare(read_fingerprint(self.fingerprint_file), self.fingerprint)

    def segmenter_after(self, rounds: int) -> Path:
        """The segmenter after ``rounds`` rounds of retraining."""
        suffix = ("", "-retrained")[rounds] if rounds < 2 else f"-retrained-{rounds}"
        return self.out / f"segmenter{suffix}.safetensors"

    def masks_of_round(self, rounds: int) -> Path:
        """The folder of the training photos' masks used for retraining round ``rounds``."""
        return self.out / ("retrain" if rounds == 1 else f"retrain-{rounds}")

    def record(self, name: str, value: Any) -> None:
        """Put a value into metrics.json; of several processes, only the main one writes."""
        if not is_main():
            return
        metrics = {**read_metrics(self.out), name: value}
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
    given_eval: ImageSet | None = None,
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
    run = Run(Path(out), source, recipe, strict, given, given_eval, keep)
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
        known = resume_run(run.out).recipe
        if not run.recipe.patterns.flip:  # what `flip` has turned round stays so
            run.recipe = with_flip(run.recipe, known.patterns.flip)
        if run.recipe.auto == known.auto:
            run.recipe = with_values(run.recipe, values_of(known, known.auto))
        for key, mine, theirs in _differences(_settings(run), _settings(resume_run(run.out))):
            raise RunError(
                f"{run.out} holds another run ({key} is {theirs} there and {mine} here); choose another folder"
            )
    elif run.out.exists() and not _is_free(run.out, Path(run.source.path)):
        raise RunError(f"{run.out} is not empty and holds no run; choose another folder")


def _begin(run: Run) -> None:
    is_known = run.fingerprint_file.exists()
    if not is_known and run.classifier_file.exists() and not run.keep:
        raise RunError(
            f"{run.out} does not record its data; continue with --keep if the data has not changed, "
            "or start a run in another folder"
        )
    drop(run.out)
    remove_unfinished(run.out)
    for data in (run.train, run.evaluation) if not is_known or run.changes.said else ():
        check_truth(data)
        check_photo_sizes(data.samples, run.recipe.tiles)
    check_flip(run.recipe.patterns.flip, run.train.classes)
    _warn_of_seen(run)
    check_networks(run.recipe)
    # The configuration first: a folder with nothing else is a run that was killed at its start, and starts again.
    write_config(run)
    if not run.changes.said if is_known else not run.classifier_file.exists():
        write_fingerprint(run.fingerprint_file, run.fingerprint)
    for line in run.changes.said:
        log.warning("%s since %s was made%s", line, run.out, "; results are kept" if run.keep else "")


def _is_free(folder: Path, data: Path) -> bool:
    """Return whether there is nothing in a folder but, perhaps, the data."""
    return folder.is_dir() and all(
        entry.resolve() == data.resolve() or entry.name == LOCK or is_unfinished(entry) for entry in folder.iterdir()
    )


def checkpoint_of(file: Path) -> Path:
    """Return where the training that writes a file keeps what it goes on from if it is killed."""
    return file.with_name(f".{file.stem}.pt")


def resume_run(out: str | Path, *, strict: bool = False) -> Run:
    """Open the run that is in ``out``.

    Raises:
        RunError: there is none.
    """
    config = Path(out) / "config.yaml"
    if not config.is_file():
        raise RunError(f"{out} holds no run: it has no config.yaml; start one with tag2mask run")
    take_place(Path(out))
    try:
        values = read_yaml(config.read_bytes())
        source = Source(**values["data"])
        recipe = values["recipe"]
        if not all(
            isinstance(value, str) or value is None
            for value in (source.path or 0, source.labels, source.split, source.eval_split)
        ):
            raise TypeError("not a path")
    except (ValueError, TypeError, KeyError, OSError):
        raise RunError(f"{config} is not the configuration of a run; start another run") from None
    return Run(Path(out), source, parse_recipe(recipe, str(config)), strict)


def read_metrics(out: Path) -> Scores:
    """Return what metrics.json of a run folder holds; empty where there is none yet."""
    file = out / "metrics.json"
    if not file.exists():
        return {}
    try:
        values = json.loads(file.read_text("utf-8"))
        RunScores.model_validate(values)
        return cast(Scores, values)
    except (ValueError, OSError, RecursionError):
        raise RunError(f"{file} is damaged; delete it and call tag2mask evaluate {out}") from None


def _warn_of_seen(run: Run) -> None:
    seen = {sample.name for sample in run.train.samples} & {sample.name for sample in run.evaluation.samples}
    if seen and run.evaluation is not run.train:
        log.warning(
            "%d of %d photos of the evaluation split are in the training split too, for example %s: "
            "the scores are not scores of new photos", len(seen), len(run.evaluation), min(seen),
        )  # fmt: skip


def check_unchanged(run: Run) -> None:
    """Check that a run's photos and tags are those that it was made from; true masks may have changed.

    Raises:
        RunError: they are not.
    """
    if run.changes.training or run.changes.evaluated:
        raise RunError(f"{run.out}: its data has changed ({'; '.join(run.changes.said)}); update it with tag2mask run")


def check_classes(run: Run, classes: Sequence[str], file: Path) -> None:
    """Check that a file is of the classes of the run's photos.

    Raises:
        RunError: it is not.
    """
    if tuple(classes) != run.train.classes:
        raise RunError(
            f"{file} has the classes {', '.join(classes)}, the photos have {', '.join(run.train.classes)}; "
            "start a run in another folder"
        )


def write_config(run: Run) -> None:
    """Write where a run's data comes from and its recipe."""
    write_text(run.out / "config.yaml", yaml.safe_dump(_settings(run), sort_keys=False))


def with_flip(recipe: Recipe, classes: Sequence[str]) -> Recipe:
    """Return a recipe in which the patterns of these classes, and of no others, are turned round."""
    return recipe.model_copy(update={"patterns": recipe.patterns.model_copy(update={"flip": list(classes)})})


def _settings(run: Run) -> dict[str, Any]:
    recipe = run.recipe.model_dump(mode="json")
    return {"tag2mask": version("tag2mask"), "data": {**vars(run.source)}, "recipe": recipe}


def _differences(mine: Any, theirs: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings in which two runs differ; how many processes read photos is not one."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for name in sorted({*mine, *theirs} - {"workers"}):
            yield from _differences(mine.get(name), theirs.get(name), f"{key}.{name}".strip("."))
    elif mine != theirs:
        yield key, mine, theirs
