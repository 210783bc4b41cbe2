"""The names that a person types and a shell completes: nothing heavy is imported for them."""

from __future__ import annotations

from importlib import resources

STAGES = ("classify", "discover", "estimate", "segment", "retrain", "predict", "evaluate", "report")
FORMATS = ("coco", "labelme", "yolo", "label-studio", "voc-server", "onnx", "huggingface")
ITEMS = ("table1", "table2", "table3", "figure1", "figure3", "figure4", "figure5")
MASKS = ("predictions", "proxy", "retrain")
METHODS = ("patterns", "cam", "gradcam", "ddt", "sec", "dsrg")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package.

    >>> "fast" in recipe_names()
    True
    """
    files = resources.files("tag2mask").joinpath("recipes").iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".yaml"))
