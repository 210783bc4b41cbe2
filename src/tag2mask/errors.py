"""Errors that a user can fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_SIGNS = 2000
"""A longer message is cut in its middle."""


class UserError(Exception):
    r"""Wrong input: the message says what is wrong, in which file, and how to fix it.

    The command line prints the message as one line and exits with code 2. Quoted text may come from untrusted files:
    unprintable characters, such as terminal codes, are escaped, and long text is cut.

    >>> print(UserError("a\nb.jpg: \x1b[2J"))
    a\nb.jpg: \x1b[2J
    """

    def __str__(self) -> str:
        """Return the message."""
        text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in super().__str__())
        return text if len(text) <= MOST_SIGNS else f"{text[: MOST_SIGNS // 2]} ... {text[-MOST_SIGNS // 2 :]}"


class DataError(UserError):
    """Photos, tags, masks or splits are wrong."""


class RecipeError(UserError):
    """A recipe or one of its values is wrong."""


class WeightsError(UserError):
    """Network weights are missing, corrupt or of another network."""


class RunError(UserError):
    """A run folder is missing, incomplete or belongs to another run."""


class NotFittedError(UserError, AttributeError):
    """Something was asked of class patterns that have not been found yet."""


class ExportError(UserError):
    """A format or an option of it is wrong, or what it needs is not installed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or an empty string.

    >>> nearest("dgo", ["cat", "dog"])
    "; did you mean 'dog'?"
    >>> nearest("helmet", ["cat", "sheep"])
    ''
    """
    if len(word) > 100:  # comparing takes the product of the lengths, for each known word
        return ""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def reason(error: BaseException) -> str:
    r"""Return the first line of an exception's text, or its type's name where it has none.

    >>> reason(ValueError("no room\nat all")), reason(KeyError())
    ('no room', 'KeyError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def few(items: list[str], most: int = 3) -> str:
    """Return the first items and how many more there are, for a message of one line.

    >>> few(["'a'", "'b'", "'c'", "'d'", "'e'"])
    "'a', 'b', 'c' and 2 more"
    """
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
