"""Small tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_MOST = 30
"""Rows that are shown."""


def number(value: float | None) -> str:
    """Return a number to one place, ``-`` where there is none.

    >>> number(51.26), number(None)
    ('51.3', '-')
    """
    return "-" if value is None else f"{value:.1f}"


def html_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as HTML, every text escaped, numbers to one place, the first 30 rows.

    >>> html_table("a & b", ["class", "IoU"], [["dog", 51.234], ["cat", None]])  # doctest: +ELLIPSIS
    '<table><caption ...>a &amp; b</caption><thead><tr><th ...>class</th>...<td ...>51.2</td>...<td ...>-</td></tr>...'
    """
    lines = [[_cell(value) for value in row] for row in rows]
    if len(lines) > _MOST:
        lines[_MOST:] = [[f"and {len(lines) - _MOST} more", *[""] * (len(header) - 1)]]
    left, right = (f' style="text-align: {side}"' for side in ("left", "right"))
    head = "".join(f"<th{left if not place else right}>{escape(name)}</th>" for place, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{left if not place else right}>{cell}</td>" for place, cell in enumerate(line)) + "</tr>"
        for line in lines
    )
    return (
        f"<table><caption{left}>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(value: object) -> str:
    return number(value) if value is None or isinstance(value, float) else escape(str(value))
