"""What a command says while it works, on standard error: text for people, or a JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Iterable
from datetime import datetime, timezone

from rich.logging import RichHandler

from tag2mask.distributed import is_main
from tag2mask.names import LogFormat
from tag2mask.progress import DETAILS, console

LOG = logging.getLogger("tag2mask")
_LIBRARIES = ("accelerate", "huggingface_hub", "py.warnings", "timm")
"""Loggers that ``--verbose`` shows too."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, stage if there is one, message; progress has its numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname.lower(), "stage": _stage or None, "message": record.getMessage()}
        line |= {name: getattr(record, name, None) for name in DETAILS}
        line["traceback"] = self.formatException(record.exc_info) if record.exc_info else None
        return json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=False)


_stage = ""


def enter(stage: str) -> None:
    """Name the stage that the lines from here on belong to."""
    global _stage
    _stage = stage


def set_up(*, quiet: bool = False, verbose: bool = False, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Send what the package logs to standard error; called again, it replaces what it did before.

    Of several processes only the main one speaks; the others warn.

    Args:
        quiet: warnings and errors only, no progress.
        verbose: details, what other libraries say, and where in the code an error arose.
        log_format: text (with colours and a progress bar on a terminal) or JSON lines.
    """
    enter("")
    handler: logging.Handler = RichHandler(console=console, show_path=False, show_level=False)
    if log_format is LogFormat.JSON:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
    elif not sys.stderr.isatty():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.set_name("tag2mask")
    logging.captureWarnings(True)
    for name in ("tag2mask", *_LIBRARIES):
        logger = logging.getLogger(name)
        logger.handlers[:] = [other for other in logger.handlers if other.name != "tag2mask"]
        if verbose or logger is LOG:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
    LOG.setLevel(logging.WARNING if quiet or not is_main() else logging.DEBUG if verbose else logging.INFO)
    LOG.debug("tag2mask on Python %s, %s", platform.python_version(), platform.platform())


def set_up_in_python() -> None:
    """Send the same lines to standard error where a script or a notebook has not set up logging itself.

    ``logging.getLogger("tag2mask").setLevel("WARNING")`` before leaves warnings only.
    """
    if LOG.hasHandlers() or LOG.level:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.set_name("tag2mask")
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO if is_main() else logging.WARNING)


def is_quiet() -> bool:
    """Return whether only warnings and errors are wanted."""
    return LOG.level > logging.INFO


def is_json() -> bool:
    """Return whether lines are JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in LOG.handlers)


def warn(lines: Iterable[str]) -> None:
    """Log lines as warnings; of several processes the main one does."""
    for line in lines if is_main() else ():
        LOG.warning("%s", line)


def as_line(message: str) -> str:
    """Return a line for standard error that is written past logging, as in a signal's handler."""
    if is_json():
        return JsonLines().format(logging.makeLogRecord({"msg": message, "levelname": "WARNING"})) + "\n"
    return f"\ntag2mask: {message}\n"


def tell(message: str, error: BaseException | None = None) -> None:
    """Say in one line why a command ends; with ``--verbose`` also where in the code it arose."""
    line = " ".join(message.splitlines())
    if is_json():
        LOG.error("%s", line, exc_info=error if LOG.level <= logging.DEBUG else None)
        return
    LOG.debug("where it arose:", exc_info=error)
    print(f"tag2mask: {line}", file=sys.stderr)
