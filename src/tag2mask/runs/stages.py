"""The stages in order, each with what it writes; doing them, and doing them again.

photos + tags -> plan -> classify -> discover -> relate -> estimate -> segment -> redraw -> retrain -> refine
-> predict -> evaluate -> report
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tag2mask.distributed import barrier, is_main, of_main
from tag2mask.errors import RunError, nearest
from tag2mask.logs import enter
from tag2mask.methods import Method, load_method
from tag2mask.names import StageName
from tag2mask.patterns.estimator import check_flip
from tag2mask.progress import duration
from tag2mask.runs import tasks
from tag2mask.runs.auto import plan
from tag2mask.runs.confidence import confidence_file
from tag2mask.runs.estimate import estimate
from tag2mask.runs.fingerprint import Changes, write_fingerprint
from tag2mask.runs.folder import Run, check_unchanged, checkpoint_of, read_metrics, with_flip, write_config
from tag2mask.runs.learnt import affinities_file, has_affinities, learnt_checkpoints, learnt_file
from tag2mask.runs.lock import locked
from tag2mask.runs.refine import refine
from tag2mask.runs.relate import masks_by_scores, relate
from tag2mask.runs.tasks import is_redrawn, say_doubts
from tag2mask.runs.views import views_of
from tag2mask.scoring import Scores

log = logging.getLogger("tag2mask")


def _method(run: Run) -> Method:
    return load_method(run.recipe.proxy.method)


def _found(run: Run) -> Sequence[Path]:
    """Return the files of what the method finds or learns."""
    if _method(run).learns:
        return [learnt_file(run)]
    return sorted(
        {file for view in views_of(run) for file in (*view.patterns_files, *view.out.glob("patterns-*.safetensors"))}
    )


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: its name, which is its command.
        about: what it does, in a line.
        do: does it.
        files: what it writes as a whole; when all of it is there the stage is done.
        folders: where it writes one mask a photo; it sees for itself which are there already.
        checkpoints: what a training that was killed goes on from.
        metrics: what it records in metrics.json.
        repeats: whether it is done at every call, since it sees for itself what is done or takes no time.
        is_needed: whether the recipe has it at all.
    """

    name: StageName
    about: str
    do: Callable[[Run], None]
    files: Callable[[Run], Sequence[Path]] = lambda run: ()
    folders: Callable[[Run], Sequence[Path]] = lambda run: ()
    checkpoints: Callable[[Run], Sequence[Path]] = lambda run: ()
    metrics: tuple[str, ...] = ()
    repeats: bool = False
    is_needed: Callable[[Run], bool] = lambda run: True

    def is_done(self, run: Run) -> bool:
        """Return whether there is nothing to do."""
        if not self.is_needed(run):
            return True
        known = read_metrics(run.out)
        written = all(file.exists() for file in self.files(run)) and all(name in known for name in self.metrics)
        return written and not self.repeats

    def remove(self, run: Run) -> None:
        """Remove all that it wrote, its checkpoints and its figures."""
        for file in (*self.files(run), *self.checkpoints(run)):
            file.unlink(missing_ok=True)
        for folder in self.folders(run):
            if folder.is_dir():
                shutil.rmtree(folder)
        run.forget(*self.metrics, stage=self.name)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            StageName.PLAN,
            "Choose what the recipe leaves to the data.",
            plan,
            files=lambda run: [run.out / "plan.json"],
            is_needed=lambda run: bool(run.recipe.auto),
        ),
        Stage(
            StageName.CLASSIFY,
            "Train a classifier to recognise the tags.",
            tasks.classify,
            files=lambda run: [view.classifier_file for view in views_of(run)],
            checkpoints=lambda run: [checkpoint_of(view.classifier_file) for view in views_of(run)],
            metrics=("classifier",),
        ),
        Stage(
            StageName.DISCOVER,
            "Find the pattern of each class, or what another method learns.",
            tasks.find_patterns,
            files=_found,
            folders=lambda run: [run.out / "report" / "patterns"],
            checkpoints=learnt_checkpoints,
            metrics=("patterns",),
            is_needed=lambda run: _method(run).finds_patterns or _method(run).learns,
        ),
        Stage(
            StageName.RELATE,
            "Learn which neighbouring positions belong together.",
            relate,
            files=lambda run: [affinities_file(run)],
            folders=lambda run: [masks_by_scores(run)],
            checkpoints=lambda run: [checkpoint_of(affinities_file(run))],
            is_needed=has_affinities,
        ),
        Stage(
            StageName.ESTIMATE,
            "Draw the first masks (proxy masks) of the training photos.",
            estimate,
            folders=lambda run: [run.out / "proxy"],
            repeats=True,
        ),
        Stage(
            StageName.SEGMENT,
            "Train the segmenter on the first masks.",
            tasks.segment,
            files=lambda run: [run.segmenter_after(0)],
            checkpoints=lambda run: [checkpoint_of(run.segmenter_after(0))],
        ),
        Stage(
            StageName.REDRAW,
            "Draw better masks of the training photos, with the segmenter and the tags.",
            tasks.redraw,
            folders=lambda run: [run.masks_of_round(1)],
            repeats=True,
            is_needed=is_redrawn,
        ),
        Stage(
            StageName.RETRAIN,
            "Train a new segmenter on the better masks.",
            tasks.retrain,
            files=lambda run: [run.segmenter_after(rounds) for rounds in run.rounds],
            folders=lambda run: [run.masks_of_round(rounds) for rounds in run.rounds[1:]],
            checkpoints=lambda run: [checkpoint_of(run.segmenter_after(rounds)) for rounds in run.rounds],
            is_needed=lambda run: bool(run.rounds),
        ),
        Stage(
            StageName.REFINE,
            "Teach the segmenter what a person has corrected, and predict masks of the training photos.",
            refine,
            files=lambda run: [run.refined_file],
            folders=lambda run: [run.refined_masks],
            checkpoints=lambda run: [checkpoint_of(run.refined_file)],
            is_needed=lambda run: run.is_refined,
        ),
        Stage(
            StageName.PREDICT,
            "Predict the final masks.",
            tasks.predict,
            folders=lambda run: [run.out / "predictions"],
            repeats=True,
        ),
        Stage(
            StageName.EVALUATE,
            "Score the masks against true masks, if there are any.",
            tasks.evaluate,
            metrics=("proxy", "retrain", "refined", "prediction"),
            repeats=True,
        ),
        Stage(
            StageName.REPORT,
            "Write the report page.",
            tasks.report,
            files=lambda run: [
                *(run.out / "report" / name for name in ("index.html", "overview.png")),
                confidence_file(run),
            ],
            repeats=True,
        ),
    )
}
"""What a run does, in this order."""

AFTER_CORRECTIONS = (StageName.REFINE, StageName.PREDICT, StageName.EVALUATE, StageName.REPORT)
"""What is done again when corrected masks differ. Proxy masks of the other photos and the segmenters that learnt from
them are of tags alone and stay; `refine` goes on from the last of these."""


def find_stage(name: str) -> Stage:
    """Return the stage of a name.

    Raises:
        RunError: there is none.
    """
    if name not in STAGES:
        raise RunError(f"no stage '{name}'{nearest(name, STAGES)} (stages: {', '.join(STAGES)})")
    return STAGES[name]


def from_stage(name: str) -> list[Stage]:
    """Return a stage and all after it."""
    return list(STAGES.values())[list(STAGES).index(name) :]


def run_stages(run: Run, until: str = StageName.REPORT) -> Scores:
    """Do every stage up to ``until`` that is not done yet and return the scores.

    Where torchrun or accelerate launch started several processes, all call this: they share the work, the
    main one writes what is common to all, and none begins a stage before all have ended the one before.

    Raises:
        RunError: another process works in the run folder, or there is no such stage.
    """
    last = find_stage(until)
    with locked(run.out):
        finished = of_main(not stages_to_do(run, until))
        take_up(run)
        if finished:
            log.info("every stage is done: nothing to do; tag2mask STAGE %s repeats a stage", run.out)
            return read_metrics(run.out)
        for stage in STAGES.values():
            if not of_main(stage.is_done(run)):
                started = time.monotonic()
                enter(stage.name)
                log.info("%s: %s", stage.name, stage.about)
                stage.do(run)
                seconds = time.monotonic() - started
                spent = read_metrics(run.out).get("seconds", {})
                run.record("seconds", {**spent, stage.name: round(spent.get(stage.name, 0) + seconds, 1)})
                barrier()
                log.info("%s: done in %s", stage.name, duration(seconds))
            if stage is last:
                break
        if last.name == StageName.REPORT:
            say_doubts(run)
    return read_metrics(run.out)


def choose_first(run: Run) -> None:
    """Choose what the recipe leaves to the data, if it has not been chosen: all else, its time too, depends on it."""
    if of_main(StageName.PLAN in stages_to_do(run)):
        run_stages(run, StageName.PLAN)


def redo_stage(run: Run, name: str) -> list[str]:
    """Do one stage again; what it wrote before, and all that was made from that, is removed first.

    Returns:
        The names of the stages after it, whose results are gone.

    Raises:
        RunError: another process works in the run folder, the data has changed, or there is no such stage.

    Whatever is raised before the stage begins, nothing has then been removed.
    """
    stage, _ = find_stage(name), run.device  # a wrong one shows before anything is removed
    with locked(run.out):
        if not stage.is_needed(run):
            raise RunError(f"the recipe of {run.out} has no stage {name}; nothing to repeat")
        check_unchanged(run)
        check_ready(run, name)
        later = from_stage(name)[1:]
        if is_main():
            # What is written as a whole in a moment, such as the report, stays until the new one takes its place.
            for one in later if stage.repeats and not stage.folders(run) else (stage, *later):
                one.remove(run)
        barrier()
        enter(name)
        stage.do(run)
        barrier()
    return [after.name for after in later if after.is_needed(run)]


def flip(run: Run, classes: Sequence[str]) -> None:
    """Have the patterns of some classes turned round, those turned already back; what was made from them is removed.

    Raises:
        RunError: the run finds no class patterns, another process works in its folder, or its data has changed.
        RecipeError: one is not among the run's classes.

    Whatever is raised, nothing has then been removed.
    """
    before = run.recipe.patterns.flip
    check_flip(classes, run.train.classes)
    with locked(run.out):
        if "patterns.flip" not in _method(run).options:
            raise RunError(
                f"the masks of {run.out} are made by {run.recipe.proxy.method}, which has no class patterns to flip"
            )
        check_unchanged(run)
        for stage in from_stage(StageName.DISCOVER):
            stage.remove(run)
        run.recipe = with_flip(run.recipe, sorted({*before} ^ {*classes}))
        write_config(run)


def check_ready(run: Run, name: str) -> None:
    """Check that what the stages before one write as a whole is there.

    Raises:
        RunError: it is not.
    """
    for earlier in list(STAGES.values())[: list(STAGES).index(name)]:
        missing = [file for file in earlier.files(run) if earlier.is_needed(run) and not file.exists()]
        if missing:
            raise RunError(f"{missing[0]} does not exist; call tag2mask run, which runs {earlier.name} first")


def take_up(run: Run) -> None:
    """Remove what changed data has made old, and what training no longer needs; not where the run is kept."""
    if is_main():
        for stage in STAGES.values():
            if stage.is_done(run):
                for checkpoint in stage.checkpoints(run):  # of a process that was killed before it removed it
                    checkpoint.unlink(missing_ok=True)
        if run.changes.said and not run.keep:
            _remove_stale(run)
            write_fingerprint(run.fingerprint_file, run.fingerprint)
    barrier()
    if not run.keep:
        run.__dict__.pop("changes", None)


def _remove_stale(run: Run) -> None:
    changes = run.changes
    for stage in from_stage(StageName.PLAN) if changes.training else ():
        stage.remove(run)
    for after in AFTER_CORRECTIONS if changes.corrected else ():
        STAGES[after].remove(run)
    for mask in [run.out / kind / f"{name}.png" for name in changes.corrected for kind in ("proxy", "retrain")]:
        mask.unlink(missing_ok=True)
    for name in changes.stale:
        (run.out / "predictions" / f"{name}.png").unlink(missing_ok=True)
    for name in (StageName.EVALUATE, StageName.REPORT):  # else a process killed here would leave old scores
        STAGES[name].remove(run)
    if changes.evaluated:
        run.forget("classifier")  # its mean average precision is of the evaluation photos: it is measured again


def stages_to_do(run: Run, until: str = StageName.REPORT) -> list[str]:
    """Return the names of the stages up to ``until`` that `run_stages` will do; none where all of them are complete."""
    changes = run.changes if not run.keep else None
    stages = list(STAGES.values())[: list(STAGES).index(until) + 1]
    if not run.changes.said and _are_complete(run, stages):
        return []
    return [
        stage.name
        for stage in stages
        if stage.is_needed(run) and (not stage.is_done(run) or (changes is not None and _is_stale(stage.name, changes)))
    ]


def _is_stale(name: str, changes: Changes) -> bool:
    """Return whether a stage that is done is done again, as data has changed."""
    if changes.training or (changes.corrected and name in AFTER_CORRECTIONS):
        return True
    return changes.evaluated and name == StageName.CLASSIFY


def _are_complete(run: Run, stages: Sequence[Stage]) -> bool:
    """Return whether all that the stages write is there, every photo's mask too, and none is newer than the report."""
    needed = {stage.name: stage for stage in stages if stage.is_needed(run)}
    models = [file for name, stage in needed.items() for file in stage.files(run) if name != StageName.REPORT]
    masks = [run.out / "proxy" / f"{sample.name}.png" for sample in run.train if StageName.ESTIMATE in needed]
    masks += [
        run.out / "predictions" / f"{sample.name}.png" for sample in run.evaluation if StageName.PREDICT in needed
    ]
    masks += [run.refined_masks / f"{sample.name}.png" for sample in run.train if StageName.REFINE in needed]
    masks += [run.masks_of_round(1) / f"{sample.name}.png" for sample in run.train if StageName.REDRAW in needed]
    without = {name for name, has in (("retrain", is_redrawn(run)), ("refined", run.is_refined)) if not has}
    figures = {name for stage in needed.values() for name in stage.metrics} - without
    if not (all(file.exists() for file in (*models, *masks)) and figures <= set(read_metrics(run.out))):
        return False
    if StageName.REPORT not in needed:
        return StageName.EVALUATE not in needed  # whether scores are of these masks is seen by the report's time
    page = needed[StageName.REPORT].files(run)
    made_from = (*models, *masks, *run.retrain_masks.rglob("*.png"))
    return all(file.exists() for file in page) and max(map(_time, made_from)) <= min(map(_time, page))


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns
