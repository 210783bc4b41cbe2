"""Corrections into a run: kept, taught, and all that follows from them done again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tag2mask.corrections.reading import Contradiction, Reading, read
from tag2mask.data import ImageSet
from tag2mask.distributed import world
from tag2mask.errors import RunError
from tag2mask.names import CorrectionFormat, StageName
from tag2mask.runs.corrected import FOLDER, Corrections, write_corrections
from tag2mask.runs.folder import Run, check_unchanged, read_metrics, resume_run
from tag2mask.runs.lock import locked
from tag2mask.runs.shadow import shadow
from tag2mask.runs.stages import check_ready, run_stages, stages_to_do
from tag2mask.scoring import RunScores

log = logging.getLogger("tag2mask")

MOST_LINES = 10
"""Of more contradictions the rest is counted."""


@dataclass(frozen=True)
class Refined:
    """What `refine` has done.

    Attributes:
        out: the run folder.
        format: that the corrections were read from.
        taken: names of the photos whose masks were taken, new or changed.
        as_exported: names of those whose masks nobody had changed; they are not taken.
        tags: names of the photos whose tags were corrected.
        contradictions: of masks and tags.
        scores: what the run's metrics.json holds.
    """

    out: Path
    format: str
    taken: tuple[str, ...]
    as_exported: tuple[str, ...]
    tags: tuple[str, ...]
    contradictions: tuple[Contradiction, ...]
    scores: RunScores


def refine(
    run: str | Path,
    corrections: str | Path,
    *,
    format: str = CorrectionFormat.AUTO,
    yes: bool = False,
    take_all: bool = False,
    data: ImageSet | None = None,
    eval_data: ImageSet | None = None,
    strict: bool = False,
) -> Refined:
    """Teach a run what a person has corrected, and predict the masks of all its other photos again.

    Corrected masks are kept in the run folder and are truth from then on. Until everything is done the run is as it
    was before; a process that is killed changes nothing.

    Args:
        run: the folder of a finished run.
        corrections: file or folder that an annotation tool wrote, or a tag table.
        format: one of `CorrectionFormat`.
        yes: where a mask contradicts its photo's tags, correct the tags, and learn all from them again.
        take_all: take masks that are as exported too, since a person has looked at them.
        data: the training photos of a run that was given them in Python.
        eval_data: its evaluation photos.
        strict: an unreadable photo is an error.

    Raises:
        UserError: something that was given is wrong; the run is then as before.
    """
    if world() > 1:
        raise RunError("refine is done by one process; call it without torchrun")
    opened = replace(resume_run(run, strict=strict), given=data, given_eval=eval_data)
    with locked(opened.out):
        _check_finished(opened)
        reading = read(opened, Path(corrections), format, take_all=take_all)
        _say(reading, yes)
        known = opened.corrections.digests()
        new = {name: mask.png for name, mask in reading.masks.items() if known.get(name) != mask.digest}
        merged = _with_reading(opened, reading, yes)
        if new or merged.tags != opened.corrections.tags or opened.changes.said or stages_to_do(opened):
            _make(opened, merged, new)
        else:
            log.info("no correction is new: nothing to do")
    return Refined(
        opened.out, reading.format, tuple(new), tuple(reading.as_exported), tuple(reading.tags),
        tuple(reading.contradictions), RunScores.model_validate(read_metrics(opened.out)),
    )  # fmt: skip


def _check_finished(run: Run) -> None:
    check_unchanged(run)
    check_ready(run, StageName.REFINE)
    if not run.fingerprint_file.exists():  # then nothing says which masks a correction makes old
        raise RunError(f"{run.out} does not record its data (data.json); start a run in another folder")
    if not (run.out / "proxy").is_dir():
        raise RunError(f"{run.out} has no proxy masks; finish the run with tag2mask run")


def _say(reading: Reading, yes: bool) -> None:
    log.info(
        "read as %s: %d corrected masks, %d as they were exported, corrected tags of %d photos",
        reading.format, len(reading.masks), len(reading.as_exported), len(reading.tags),
    )  # fmt: skip
    for contradiction in reading.contradictions[:MOST_LINES]:
        now = f"its tags are now {', '.join(contradiction.tags)}"
        log.warning("%s: %s", contradiction, now if yes else "the mask is taken; --yes corrects the tags too")
    if len(reading.contradictions) > MOST_LINES:
        log.warning("and %d more such photos", len(reading.contradictions) - MOST_LINES)


def _with_reading(run: Run, reading: Reading, yes: bool) -> Corrections:
    """Return the corrections of a run but for new masks: with corrected tags, and the masks that will be replaced."""
    before = run.corrections
    by_mask = {one.photo: one.tags for one in reading.contradictions} if yes else {}
    shown = run.out / "predictions" if run.evaluation is run.train else run.refined_masks
    earlier = (*before.earlier, shown) if shown.is_dir() else before.earlier
    return Corrections(before.masks, {**before.tags, **reading.tags, **by_mask}, earlier)


def _make(run: Run, corrections: Corrections, new: Mapping[str, bytes]) -> None:
    """Do in a copy of the run what follows from corrections; it takes the run's place when all is done."""
    with shadow(run.out) as copy:
        shutil.rmtree(copy / FOLDER, ignore_errors=True)
        write_corrections(copy, corrections, new)
        run_stages(Run(copy, run.source, run.recipe, run.strict, run.given, run.given_eval))
