"""Recipes: every parameter of a run."""

from tag2mask.config.recipe import (
    BackboneConfig,
    ClassifierConfig,
    CrfConfig,
    InferenceConfig,
    PatternsConfig,
    ProxyConfig,
    Recipe,
    RefineConfig,
    SegmenterConfig,
    TilesConfig,
)
from tag2mask.config.settings import (
    Settings,
    apply_settings,
    load_recipe,
    parse_recipe,
    parse_settings,
    read_yaml,
    recipe_yaml,
    values_of,
    with_tile,
    with_values,
)

__all__ = [
    "BackboneConfig",
    "ClassifierConfig",
    "CrfConfig",
    "InferenceConfig",
    "PatternsConfig",
    "ProxyConfig",
    "Recipe",
    "RefineConfig",
    "SegmenterConfig",
    "Settings",
    "TilesConfig",
    "apply_settings",
    "load_recipe",
    "parse_recipe",
    "parse_settings",
    "read_yaml",
    "recipe_yaml",
    "values_of",
    "with_tile",
    "with_values",
]
