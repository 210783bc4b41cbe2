"""The networks of a recipe: whether they can be had."""

from __future__ import annotations

from tag2mask.config import Recipe
from tag2mask.errors import RecipeError, WeightsError
from tag2mask.methods import load_method
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.deeplab import SegmentationNetwork


def check_networks(recipe: Recipe) -> None:
    """Build what a recipe names, so that a wrong name or missing weights show before anything is written.

    Raises:
        WeightsError: one cannot be had.
        RecipeError: the method cannot look at tiles.
    """
    how, method = recipe.patterns, load_method(recipe.proxy.method)
    if method.learns and recipe.tiles is not None:
        raise RecipeError(f"{recipe.proxy.method} learns from whole photos; set tiles=null, or another method")
    views = [view.backbone for view in how.views if view.backbone]
    for part, layers, stride, train_from in (
        *((one, how.layers, how.output_stride, recipe.classifier.train_from) for one in (recipe.backbone, *views)),
        (recipe.segmenter.backbone or recipe.backbone, (), recipe.segmenter.output_stride, recipe.segmenter.train_from),
    ):
        backbone = Backbone(part.name, layers, output_stride=stride, weights=part.weights)
        backbone.freeze_before(train_from)
        if layers and (refusal := method.refusal(backbone)):
            raise WeightsError(refusal)
    decoder = recipe.segmenter
    network = SegmentationNetwork(
        part.name, (), head=decoder.head, output_stride=decoder.output_stride, weights="random"
    )
    network.backbone.freeze_before(decoder.train_from)  # of what the head leaves of it
