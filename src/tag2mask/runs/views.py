"""Views: the photos seen by further backbones and at further sizes, each in a folder of its own (`patterns.views`)."""

from __future__ import annotations

from copy import copy

from tag2mask.config import Recipe, ViewConfig
from tag2mask.methods import load_method
from tag2mask.runs.folder import Run


def views_of(run: Run) -> list[Run]:
    """Return the run itself, then one for each further view of the photos."""
    found = [run]
    if "patterns.views" not in load_method(run.recipe.proxy.method).options:
        return found
    for number, view in enumerate(run.recipe.patterns.views, 2):
        _ = run.train  # which all share
        other = copy(run)
        other.out, other.recipe = run.out / f"view-{number}", recipe_of(run.recipe, view)
        other.shares = run.out if other.recipe.backbone == run.recipe.backbone else None
        found.append(other)
    return found


def recipe_of(recipe: Recipe, view: ViewConfig) -> Recipe:
    """Return the recipe by which a further view of the photos finds its patterns."""
    how = recipe.patterns.model_copy(update={"views": [], "size": view.size or recipe.patterns.size})
    return recipe.model_copy(update={"patterns": how, "backbone": view.backbone or recipe.backbone})
