"""What all commands share: the application, its options, the end of a command that does stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from tag2mask import devices, logs
from tag2mask.distributed import is_main
from tag2mask.errors import UserError, nearest
from tag2mask.names import LogFormat, Name

Chosen = TypeVar("Chosen", bound=Name)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    epilog="Exit codes: 0 done; 1 internal error; 2 user error (one-line message); 130 stopped.",
)
data_app = typer.Typer(
    help="Prepare published data sets.\n\nExample: tag2mask data sbd SBD --out masks", no_args_is_help=True
)
app.add_typer(data_app, name="data")
Labels = Annotated[str | None, typer.Option(help="Tag table (CSV or JSON). For a VOCdevkit also 'xml' or 'masks'.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable photo.")]
Device = Annotated[
    str | None,
    typer.Option(help="Device: cpu, cuda, cuda:1, mps ... (default: a GPU if there is one).", callback=devices.choose),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]


def choice(names: type[Chosen], value: str, what: str) -> Chosen:
    """Return the name of an enum that a person typed."""
    if value not in list(names):
        known = ", ".join(names)
        raise UserError(f"no {what} '{value}'{nearest(value, list(names))} ({what}s: {known})")
    return names(value)


def one_of(names: Iterable[str]) -> Any:
    """Return what completes a value in the shell."""
    return lambda: [str(name) for name in names]


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings, errors and the result only.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every parameter, and where in the code errors occur.")
    ] = False,
    log_format: Annotated[
        str, typer.Option(help="Format of messages: text or json.", autocompletion=one_of(LogFormat))
    ] = "text",
) -> None:
    """From image tags to pixel masks.

    Example: tag2mask run photos/ --labels tags.csv --out runs/mine

    Options on this page stand before the command: tag2mask --quiet run ...
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose: choose one")
    logs.set_up(quiet=quiet, verbose=verbose, log_format=choice(LogFormat, log_format, "log format"))


def finish(opened: Any, until: str) -> None:
    """Do the stages of a run, the plan first, and print the scores."""
    from tag2mask.config import recipe_yaml
    from tag2mask.runs.plan import plan
    from tag2mask.runs.stages import choose_first, run_stages

    choose_first(opened)
    logs.LOG.debug("every parameter:\n%s", recipe_yaml(opened.recipe))
    if is_main() and not logs.is_quiet():
        typer.echo(plan(opened))
    print_scores(run_stages(opened, until))
    typer.echo(f"everything is in {opened.out}")


def print_scores(scores: dict[str, Any]) -> None:
    """Print the IoU of each class and kind of mask; nothing without true masks."""
    columns = {name: part for name, part in scores.items() if isinstance(part, dict) and part.get("iou")}
    if not columns:
        return
    from rich.text import Text

    from tag2mask.notebook import number

    table = Table("class, IoU in percent", *columns, title=None)
    for name in next(iter(columns.values()))["iou"]:
        table.add_row(Text(name), *(number(part["iou"].get(name)) for part in columns.values()))
    table.add_section()
    table.add_row("mIoU", *(number(part["miou"]) for part in columns.values()))
    table.add_row("images", *(str(part["images"]) for part in columns.values()))
    from rich.console import Console

    Console().print(table)
