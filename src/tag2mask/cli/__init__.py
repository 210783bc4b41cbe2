"""The command line: parses, calls, prints."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Idle threads must not spin: cores may be shared. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# What an Apple GPU lacks is done on the CPU, with a warning from torch. torch reads this when it is imported.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

from tag2mask.threads import by_affinity, cores

# OpenMP does not know of a container's limit on processor time: it would start a thread for each core of the machine.
if cores() < by_affinity():
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))

from tag2mask import devices, logs
from tag2mask.cli import commands, corrections
from tag2mask.cli.app import app
from tag2mask.distributed import first_to_fail, is_main, leave
from tag2mask.errors import UserError

__all__ = ["app", "commands", "corrections", "main"]

INTERRUPTED = 130
"""The exit code that typer gives for Ctrl-C."""


def main() -> None:
    """Run the command line. A user error ends in one line and exit code 2.

    Of several processes, only the main one prints; others only warn, and the first to fail says why.
    """
    logs.set_up()
    devices.choose(None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that a Windows code page lacks
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        with _interrupts_said():
            app(prog_name="tag2mask")
    except UserError as error:
        if first_to_fail():
            logs.tell(str(error), error)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED and is_main():
            logs.tell("stopped; the same command continues from here")
        if not end.code:
            leave()
        raise
    except Exception as error:
        if not first_to_fail():
            sys.exit(1)  # an exchange with a process that has said why it failed
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            logs.tell(
                f"{error.filename or 'a file'}: the disk is full; free some space and call the command again", error
            )
            sys.exit(2)
        if not logs.is_json():
            raise
        logs.LOG.critical("%s", error, exc_info=error)
        sys.exit(1)


@contextmanager
def _interrupts_said() -> Iterator[None]:
    """Say at once that Ctrl-C was heard: threads and processes may take seconds to end."""
    home, before = os.getpid(), signal.getsignal(signal.SIGINT)

    def heard(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        if os.getpid() == home and is_main():  # not in a forked process that reads photos
            os.write(
                2, logs.as_line("stopping; press Ctrl-C again to stop at once").encode()
            )  # print may be at work below
        raise KeyboardInterrupt

    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
