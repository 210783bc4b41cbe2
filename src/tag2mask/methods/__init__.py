"""Ways from a classifier to proxy masks: one file a method, each with its ``METHOD``; the files are the registry."""

from __future__ import annotations

from importlib import import_module

from tag2mask.config import Settings, parse_settings
from tag2mask.errors import RecipeError, nearest
from tag2mask.methods.base import Method
from tag2mask.names import method_names

__all__ = ["Method", "load_method", "method_settings"]


def load_method(name: str) -> Method:
    """Return a method by its name.

    Raises:
        RecipeError: there is none of this name.

    >>> load_method("cam").finds_patterns
    False
    """
    if name not in method_names():
        raise RecipeError(f"no method '{name}'{nearest(name, method_names())} (methods: {', '.join(method_names())})")
    method: Method = import_module(f"tag2mask.methods.{name}").METHOD
    return method


def method_settings(name: str | None, settings: Settings = ()) -> Settings:
    """Return what a method sets in a recipe, its name first, and then other settings; without a method those alone.

    Raises:
        RecipeError: there is no such method.

    >>> settings = method_settings("ddt", ["proxy.conflict=strongest"])
    >>> settings["proxy.method"], settings["proxy.conflict"]
    ('ddt', 'strongest')
    """
    if name is None:
        return settings
    chosen = (f"proxy.method={name}", *load_method(name).settings)
    return {**parse_settings(chosen), **parse_settings(settings)}
