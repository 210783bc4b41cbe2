"""tag2mask: from image tags to pixel masks.

    import tag2mask as t2m
    data = t2m.load("photos/", labels="tags.csv")
    result = t2m.run(data, out="runs/mine")
    mask = t2m.load_segmenter("runs/mine").predict("photo.jpg")

Names are imported when first used, so that ``tag2mask.crf`` alone does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; `_HOMES` says the same when the program runs
    from tag2mask.api import Refined, Result, evaluate, next_photos, predict_photos, refine, run
    from tag2mask.config import Recipe, load_recipe
    from tag2mask.crf import dense_crf
    from tag2mask.data import ImageSet, Sample, load
    from tag2mask.errors import UserError
    from tag2mask.exports import export
    from tag2mask.patterns import ClassPatterns
    from tag2mask.runs.trained import load_segmenter
    from tag2mask.segmenter import Segmenter

__version__ = version("tag2mask")
__all__ = [
    "ClassPatterns",
    "ImageSet",
    "Recipe",
    "Refined",
    "Result",
    "Sample",
    "Segmenter",
    "UserError",
    "__version__",
    "dense_crf",
    "evaluate",
    "export",
    "load",
    "load_recipe",
    "load_segmenter",
    "next_photos",
    "predict_photos",
    "refine",
    "run",
]
_HOMES = {
    "ClassPatterns": "patterns",
    "ImageSet": "data",
    "Recipe": "config",
    "Refined": "api",
    "Result": "api",
    "Sample": "data",
    "Segmenter": "segmenter",
    "UserError": "errors",
    "dense_crf": "crf",
    "evaluate": "api",
    "export": "exports",
    "load": "data",
    "load_recipe": "config",
    "load_segmenter": "runs.trained",
    "next_photos": "api",
    "predict_photos": "api",
    "refine": "api",
    "run": "api",
}

if not TYPE_CHECKING:  # a type checker would take every name for one that is there

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'tag2mask' has no attribute '{name}'")
        return getattr(import_module(f"tag2mask.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
