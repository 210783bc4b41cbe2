"""The page at ``/``: one document that asks for nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from tag2mask.data import voc_palette
from tag2mask.report.colours import class_colours


def page(name: str, classes: Sequence[str]) -> tuple[str, str]:
    """Return the page, and its Content-Security-Policy: no other script or style than its own.

    Args:
        name: of the run.
        classes: names of the foreground classes.
    """
    folder = resources.files("tag2mask.serve")
    style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    shown, kept = class_colours()[: len(classes) + 1].tolist(), voc_palette()[: len(classes) + 1].tolist()
    facts = json.dumps({"shown": shown, "kept": kept}).replace("<", "\\u003c")
    script = f"const COLOURS = {facts};\n{script}"
    environment = Environment(loader=PackageLoader("tag2mask", "serve"), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("page.html.j2").render(name=name, classes=classes, style=style, script=script)
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src blob: data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
