"""Settings that do nothing, since other parameters of the recipe leave them no part in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from tag2mask.config import Recipe, Settings, parse_settings
from tag2mask.methods import load_method
from tag2mask.methods.base import SOME_READ
from tag2mask.names import ClassifierTraining, CrfUse, Teaching
from tag2mask.networks.backbones import LAST

Rule: TypeAlias = tuple[Callable[[Recipe], bool], Sequence[str], str]
"""When, which parameters do nothing, and why."""

FINE_TUNING = ("train_from", "batch_size", "backbone_learning_rate", "crop", "colour")
RULES: tuple[Rule, ...] = (
    (
        lambda recipe: recipe.classifier.train == ClassifierTraining.HEAD,
        [f"classifier.{name}" for name in FINE_TUNING],
        "classifier.train is head: the backbone stays as loaded, each photo is seen once",
    ),
    (
        lambda recipe: recipe.classifier.train_from == LAST,
        ["classifier.backbone_learning_rate"],
        "classifier.train_from is last: the backbone stays as loaded",
    ),
    (
        lambda recipe: recipe.segmenter.train_from == LAST,
        ["segmenter.backbone_learning_rate"],
        "segmenter.train_from is last: the backbone stays as loaded",
    ),
    (
        lambda recipe: recipe.segmenter.method != Teaching.PLAIN and not recipe.segmenter.retrain,
        ["segmenter.label_stride"],
        "sec, dsrg and em compare at every position of the network's map",
    ),
    (
        lambda recipe: recipe.proxy.crf == CrfUse.NONE,
        ["proxy.sharpness", "crf"],
        "proxy.crf is none: no proxy mask is refined",
    ),
    (
        lambda recipe: recipe.tiles is not None,
        ["inference.compile"],
        "with tiles the network is not compiled",
    ),
    (
        lambda recipe: len(recipe.patterns.layers) == 1,
        ["patterns.layer_weights"],
        "patterns.layers names one layer",
    ),
)


def idle_settings(recipe: Recipe, settings: Settings) -> list[str]:
    """Return a line for each setting that does nothing in a run of a recipe.

    Args:
        recipe: with the settings in it.
        settings: as they were given.

    >>> recipe = Recipe.model_validate({"proxy": {"method": "cam", "threshold": 1}})
    >>> idle_settings(recipe, ["proxy.threshold=1", "seed=0"])
    ['proxy.threshold does nothing: the method cam does not read it']
    """
    return [f"{key} {what}" for key in _keys(parse_settings(settings)) if (what := _what(recipe, key))]


def idle_in_prediction(settings: Settings) -> list[str]:
    """Return a line for each setting that does nothing where photos are predicted with a trained segmenter.

    >>> idle_in_prediction(["inference.crf=null", "segmenter.epochs=3"])
    ['segmenter.epochs does nothing: the segmenter is trained already; set a parameter of inference, or tiles']
    """
    why = "the segmenter is trained already; set a parameter of inference, or tiles"
    keys = _keys(parse_settings(settings))
    return [
        f"{key} does nothing: {why}"
        for key in keys
        if key != "workers" and not any(_is_part(key, part) for part in ("inference", "tiles"))
    ]


def _what(recipe: Recipe, key: str) -> str:
    """Return what is to be said of a parameter; empty where it has its part in the run."""
    name = recipe.proxy.method
    method = load_method(name)
    if key in SOME_READ and key not in method.options:
        return f"does nothing: the method {name} does not read it"
    if key == "patterns.layers" and method.layers(recipe) != recipe.patterns.layers:
        return f"is more than needed: the method {name} looks at the first layer alone, {recipe.patterns.layers[0]}"
    for holds, keys, why in RULES:
        if holds(recipe) and any(_is_part(key, idle) for idle in keys):
            return f"does nothing: {why}"
    return ""


def _is_part(key: str, whole: str) -> bool:
    return key == whole or key.startswith(f"{whole}.")


def _keys(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Yield the keys of settings; of a setting that is a mapping, such as ``proxy={threshold: 1}``, those in it."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{before}{key}.")
        else:
            yield f"{before}{key}"
