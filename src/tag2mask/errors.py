"""The errors that a user can mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something that the user gave is wrong; the message says what, in which file, and how to mend it.

    The command line prints the message as one line and exits with code 2.
    """


class DataError(UserError):
    """Photos, tags, masks or splits are wrong."""


class RecipeError(UserError):
    """A recipe or one of its values is wrong."""


class WeightsError(UserError):
    """Network weights are missing, corrupt or of another network."""


class RunError(UserError):
    """A run folder is missing, incomplete or belongs to another run."""


class ExportError(UserError):
    """A format or an option of it is wrong, or what it needs is not installed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or an empty string.

    >>> nearest("dgo", ["cat", "dog"])
    "; did you mean 'dog'?"
    >>> nearest("zebra", ["cat", "dog"])
    ''
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
