"""What mkdocs does besides: equations become MathML, which browsers draw themselves; links to code become its path."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LINK_TO_CODE = re.compile(r"\[`?([^\]`]*)`?\]\(\.\./(?:src|tests|benchmarks)/[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The site holds pages alone: a link to a file of the repository is shown as what it is called."""
    return LINK_TO_CODE.sub(r"`\1`", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Draw equations without a script from elsewhere."""

    def drawn(found: re.Match[str]) -> str:
        if found[1] == "span":
            return convert(unescape(found[2]))
        return f'<div style="margin: 1em 0; overflow-x: auto">{convert(unescape(found[2]), display="block")}</div>'

    return EQUATION.sub(drawn, html)
