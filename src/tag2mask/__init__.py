"""tag2mask: from image tags to pixel masks.

    import tag2mask as t2m
    data = t2m.load("photos/", labels="tags.csv")
    result = t2m.run(data, out="runs/mine", recipe="fast")
    mask = t2m.load_segmenter("runs/mine").predict("photo.jpg")

Names are imported when first used, so that ``tag2mask.crf`` alone does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("tag2mask")

_HOMES = {
    "ClassPatterns": "tag2mask.patterns",
    "dense_crf": "tag2mask.crf",
    "evaluate": "tag2mask.api",
    "export": "tag2mask.exports",
    "ImageSet": "tag2mask.data",
    "load": "tag2mask.data",
    "load_segmenter": "tag2mask.runs.folder",
    "run": "tag2mask.api",
    "Sample": "tag2mask.data",
    "UserError": "tag2mask.errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tag2mask' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
