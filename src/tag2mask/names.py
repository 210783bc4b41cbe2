"""The names that a person types, one enum for each set: nothing heavy is imported for them."""

from __future__ import annotations

from enum import Enum
from importlib import resources

IGNORE = 255
"""The ignore index: pixels of this value count nowhere in training or in the truth of an evaluation."""


class Name(str, Enum):
    """A name from a closed set; it is the string that it stands for."""

    def __str__(self) -> str:
        """Return the name itself, in every version of Python.

        >>> f"{StageName.ESTIMATE}", StageName.ESTIMATE == "estimate"
        ('estimate', True)
        """
        return str(self.value)


class StageName(Name):
    """The stages of a run, in their order."""

    PLAN = "plan"
    CLASSIFY = "classify"
    DISCOVER = "discover"
    RELATE = "relate"
    ESTIMATE = "estimate"
    SEGMENT = "segment"
    REDRAW = "redraw"
    RETRAIN = "retrain"
    REFINE = "refine"
    PREDICT = "predict"
    EVALUATE = "evaluate"
    REPORT = "report"


class MaskKind(Name):
    """The folders of masks that a run has."""

    PREDICTIONS = "predictions"
    PROXY = "proxy"
    RETRAIN = "retrain"
    REFINED = "refined"


class ExportFormat(Name):
    """What masks and segmenters are exported as."""

    COCO = "coco"
    LABELME = "labelme"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"
    FIFTYONE = "fiftyone"
    VOC_SERVER = "voc-server"
    ONNX = "onnx"
    HUGGINGFACE = "huggingface"


class CorrectionFormat(Name):
    """What corrections are read from."""

    AUTO = "auto"
    PNG = "png"
    LABELME = "labelme"
    COCO = "coco"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"
    TAGS = "tags"


class TaskFormat(Name):
    """What lists of photos to correct are written as."""

    LABELME = "labelme"
    LABEL_STUDIO = "label-studio"
    CVAT = "cvat"


class Item(Name):
    """The paper's tables and figures."""

    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"
    FIGURE1 = "figure1"
    FIGURE3 = "figure3"
    FIGURE4 = "figure4"
    FIGURE5 = "figure5"


class ClassifierTraining(Name):
    """What of the classifier is trained."""

    HEAD = "head"
    ALL = "all"


class Conflict(Name):
    """What a position becomes where several classes are present."""

    IGNORE = "ignore"
    STRONGEST = "strongest"


class CrfUse(Name):
    """The photos whose proxy masks the CRF refines."""

    NONE = "none"
    SINGLE = "single"
    ALL = "all"


class Teaching(Name):
    """How proxy masks teach a segmenter."""

    PLAIN = "plain"
    SEC = "sec"
    DSRG = "dsrg"
    EM = "em"


class Head(Name):
    """The segmenter's head."""

    LARGEFOV = "largefov"
    LIGHT = "light"


class Schedule(Name):
    """How learning rates change in a training."""

    CONSTANT = "constant"
    POLY = "poly"


class DemoKind(Name):
    """What generated photos show.

    ``plain``: objects one by one and large. ``tiny``: the same of a twentieth of the area. ``pairs``: every class with
    one other and never without it, so that no tags tell the two apart. ``blobs``: dark cells under a microscope, in
    every photo. ``bright-blobs``: glowing ones. ``scratches``: metal with three kinds of defects, or with none.
    ``scratches-only``: none without. ``lesion``: ultrasound. ``leafspots``: sick spots on leaves. ``aerial``: cars,
    trees and roofs of 20 to 40 pixels. ``documents``: stamps, tables and figures on pages of text.
    """

    PLAIN = "plain"
    TINY = "tiny"
    PAIRS = "pairs"
    BLOBS = "blobs"
    BRIGHT_BLOBS = "bright-blobs"
    SCRATCHES = "scratches"
    SCRATCHES_ONLY = "scratches-only"
    LESION = "lesion"
    LEAFSPOTS = "leafspots"
    AERIAL = "aerial"
    DOCUMENTS = "documents"


class LogFormat(Name):
    """How lines on standard error are written."""

    TEXT = "text"
    JSON = "json"


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package, sorted.

    >>> "fast" in recipe_names()
    True
    """
    return _files("recipes", ".yaml")


def method_names() -> list[str]:
    """Return the names of the proxy methods, one for each file in ``methods/``, sorted.

    >>> "patterns" in method_names()
    True
    """
    return [name for name in _files("methods", ".py") if name not in ("__init__", "base")]


def reader_names() -> list[str]:
    """Return the names of the readers of data, one for each file in ``data/readers/``, sorted.

    >>> "voc" in reader_names()
    True
    """
    return [name for name in _files("data/readers", ".py") if name != "__init__"]


def _files(folder: str, suffix: str) -> list[str]:
    files = resources.files("tag2mask").joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(suffix) for file in files if file.name.endswith(suffix))
