"""Docstrings as mkdocstrings expects them: doctests under ``Examples:``, equations between dollar signs."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object, if it has one."""
        if obj.docstring:
            obj.docstring.value = tidy(obj.docstring.value)


def tidy(text: str) -> str:
    """Return a docstring with its doctest in a section and its equations in dollars."""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    before, arrows, example = ("\n" + text).partition("\n>>> ")
    if arrows:
        text = before.strip() + "\n\nExamples:\n" + "".join(f"    {line}\n" for line in f">>> {example}".splitlines())
    return text
