"""Recipes are read from YAML, with settings applied, and written to it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias, get_args

import yaml
from pydantic import ValidationError

from tag2mask.config.recipe import Recipe
from tag2mask.errors import RecipeError, nearest
from tag2mask.names import recipe_names

Settings: TypeAlias = Iterable[str] | Mapping[str, Any]
"""Changes to a recipe: ``key=value`` texts, or values by key."""

MOST_YAML = 1_000_000
"""Bytes; the reader takes seconds for as many."""


def load_recipe(name_or_file: str | Path | Recipe, settings: Settings = ()) -> Recipe:
    """Read a recipe by name or from a YAML file and apply settings.

    Args:
        name_or_file: one of `recipe_names`, or a path; or a recipe, for another with settings applied.
        settings: such as ``["segmenter.epochs=5", "patterns.layers=[C41, last]"]``, values being YAML, or
            ``{"segmenter.epochs": 5}``.

    Raises:
        RecipeError: no such recipe, not YAML, a key or value that is not known.

    >>> load_recipe("fast", ["segmenter.epochs=3"]).segmenter.epochs
    3
    """
    values, source = _read(name_or_file)
    apply_settings(values, settings)
    recipe = parse_recipe(values, source)
    given = parse_settings(settings)
    still_open = [key for key in recipe.auto if not any(_is_in(one, key) for one in given)]
    return recipe.model_copy(update={"auto": still_open})


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values by key; what it leaves to the data stays so.

    >>> with_values(load_recipe("auto"), {"patterns.size": 656}).patterns.size
    656
    """
    everything = recipe.model_dump(mode="json")
    apply_settings(everything, values)
    return parse_recipe(everything, f"recipe {recipe.name}")


def values_of(recipe: Recipe, keys: Iterable[str]) -> dict[str, Any]:
    """Return the values of a recipe by key.

    >>> values_of(load_recipe("fast"), ["patterns.size"])
    {'patterns.size': 328}
    """
    everything = recipe.model_dump(mode="json")
    return {key: reduce(lambda part, name: part[name], key.split("."), everything) for key in keys}


def _is_in(key: str, whole: str) -> bool:
    """Return whether a parameter is another one or a part of it."""
    return f"{key}.".startswith(f"{whole}.")


def with_tile(recipe: Recipe, side: int | None, overlap: int | None) -> Recipe:
    """Return a recipe with other tiles.

    Args:
        recipe: as it is.
        side: of a tile in pixels; 0 for whole photos, None for the recipe's.
        overlap: in pixels; None for the recipe's, or for a seventh of a side that is not the recipe's.

    Raises:
        RecipeError: there is an overlap and no tile, or it is no less than the tile.

    >>> with_tile(load_recipe("fast"), 224, None).tiles
    TilesConfig(side=224, overlap=32, per_photo=16)
    """
    if side == 0 or (side is None and recipe.tiles is None):
        if overlap is not None:
            raise RecipeError("an overlap needs a tile: name the side of the tiles too")
        return recipe.model_copy(update={"tiles": None})
    values = {} if recipe.tiles is None else recipe.tiles.model_dump()
    if side is not None and side != values.get("side"):
        values |= {"side": side, "overlap": side // 7}
    if overlap is not None:
        values["overlap"] = overlap
    return load_recipe(recipe, {"tiles": values})


def parse_recipe(values: dict[str, Any], source: str) -> Recipe:
    """Validate the values of a recipe; ``source`` names their file in error messages.

    Raises:
        RecipeError: a key or a value is wrong.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(error)}") from None


def recipe_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML, every parameter written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _read(name_or_file: str | Path | Recipe) -> tuple[dict[str, Any], str]:
    if isinstance(name_or_file, Recipe):
        return name_or_file.model_dump(mode="json"), f"recipe {name_or_file.name}"
    name = str(name_or_file)
    if name in recipe_names():
        file: Any = resources.files("tag2mask").joinpath(f"recipes/{name}.yaml")
    elif os.path.isfile(name):
        file = Path(name)
    else:
        hint = nearest(name, recipe_names())
        raise RecipeError(f"no recipe or file '{name}'{hint} (recipes: {', '.join(recipe_names())})")
    try:
        values = read_yaml(file.read_bytes())
    except (ValueError, OSError) as error:
        raise RecipeError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{name} must be a YAML mapping of parameters")
    return values, f"recipe {name}"


class _PlainLoader(yaml.SafeLoader):
    """Knows no aliases: of a few lines with these, gigabytes can be made."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read; write the value out")
        return super().compose_node(parent, index)


def read_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML text without aliases.

    Raises:
        ValueError: it is none.

    >>> read_yaml("{a: [1, 2.5, yes]}")
    {'a': [1, 2.5, True]}
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"more than {MOST_YAML} bytes")
    try:
        return yaml.load(text, _PlainLoader)
    except Exception as error:  # the reader raises nearly anything on values that are not of their tag
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def apply_settings(values: dict[str, Any], settings: Settings) -> None:
    """Put settings into the values of a recipe.

    Args:
        values: changed in place.
        settings: ``key=value`` texts, values being YAML, or values by key.

    Raises:
        RecipeError: one is not of that form.

    >>> values = {}
    >>> apply_settings(values, ["segmenter.epochs=5"])
    >>> apply_settings(values, {"segmenter.size": 64})
    >>> values
    {'segmenter': {'epochs': 5, 'size': 64}}
    """
    for key, value in parse_settings(settings).items():
        *parents, last = key.split(".")
        part = values
        for parent in parents:
            if part.get(parent) is None:
                part[parent] = {}
            part = part[parent]
            if not isinstance(part, dict):
                raise RecipeError(f"--set {key}: '{parent}' holds no parameters of its own")
        part[last] = value


def parse_settings(settings: Settings) -> dict[str, Any]:
    """Return the values of settings by key; of two for one key the last.

    Raises:
        RecipeError: one is not ``key=value``, or its value is not YAML.
    """
    texts = [settings] if isinstance(settings, str) else settings
    return dict(settings if isinstance(settings, Mapping) else map(_parsed, texts))


def _parsed(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise RecipeError(f"--set {setting}: write it as key=value, for example segmenter.epochs=5")
    try:
        return key.strip(), read_yaml(text)
    except ValueError:
        raise RecipeError(f"--set {setting}: the value is not valid YAML") from None


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        model: Any = Recipe
        for part in (name for name in first["loc"][:-1] if isinstance(name, str)):  # numbers are places in a list
            kind = model.model_fields[part].annotation
            model = next((one for one in get_args(kind) if one is not type(None)), kind)  # X of X | None and list[X]
        return f"unknown key '{key}'{nearest(path[-1], model.model_fields)}"
    try:
        value = repr(first["input"])
    except ValueError:  # Python does not print integers of thousands of digits
        value = "out of bounds"
    return f"'{key}' is {value}: {first['msg'].removeprefix('Value error, ').lower()}"
