"""Commands for what a person corrects: read it back, and name the photos to correct next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tag2mask.cli.app import Device, RunFolder, Strict, app, one_of, print_scores
from tag2mask.names import CorrectionFormat, TaskFormat


@app.command()
def refine(
    run: RunFolder,
    corrections: Annotated[
        Path, typer.Argument(help="Corrected masks: the file or folder of the annotation tool, or a tag table.")
    ],
    format: Annotated[
        str,
        typer.Option(
            help="auto, png, labelme, coco, yolo, label-studio or tags.", autocompletion=one_of(CorrectionFormat)
        ),
    ] = "auto",
    yes: Annotated[
        bool, typer.Option("--yes", help="Where a mask contradicts the photo's tags, correct the tags.")
    ] = False,
    take_all: Annotated[
        bool, typer.Option("--all", help="Take masks too that are as exported: they were looked at.")
    ] = False,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Learn from corrected masks and predict the masks of all other photos again.

    Corrected masks are kept in RUN/corrected and are truth from then on. Until all is done the run stays as it is.

    Example: tag2mask refine runs/mine labels/
    """
    from tag2mask.api import refine as learn

    done = learn(run, corrections, format=format, yes=yes, take_all=take_all, strict=strict)
    print_scores(done.scores.model_dump())
    changed = f", corrected tags of {len(done.tags)}" if done.tags else ""
    left = f"; {len(done.as_exported)} are as they were exported and were left out" if done.as_exported else ""
    typer.echo(f"took the corrected masks of {len(done.taken)} photos{changed}{left}")
    typer.echo(f"everything is in {run}")


@app.command(name="next")
def next_photos(
    run: RunFolder,
    count: Annotated[int, typer.Option(min=1, help="How many photos.")] = 20,
    format: Annotated[
        str | None, typer.Option(help="Write them as labelme, label-studio or cvat.", autocompletion=one_of(TaskFormat))
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; of label-studio the JSON file.")] = None,
    photo_url: Annotated[str | None, typer.Option(help="Label Studio's URL before a photo's name.")] = None,
) -> None:
    """Name the photos whose correction will help most, and write their masks for an annotation tool.

    Example: tag2mask next runs/mine --count 20 --format labelme --out tasks
    """
    from tag2mask.api import next_photos as ask
    from tag2mask.runs.folder import resume_run

    classes = resume_run(run).train.classes
    for one in ask(run, count, format=format, out=out, photo_url=photo_url):
        tags = ", ".join(classes[label - 1] for label in one.sample.labels) or "no tags"
        typer.echo(f"{one.sample.name}: {tags}; doubt {one.doubt:.0%}")
    if out is not None:
        tasks, names = _typed(out), _typed(out / "labels.txt")
        opened = f"labelme {tasks} --labels {names}" if format == TaskFormat.LABELME else tasks
        typer.echo(f"to correct: {opened}; then tag2mask refine {_typed(run)} {tasks}")


def _typed(path: Path) -> str:
    """Return a path as it is typed in a terminal, of every system."""
    return f'"{path}"' if " " in str(path) else str(path)
