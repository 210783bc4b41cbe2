"""VGG, dilated as DeepLab's (Chen et al. 2015)."""

from __future__ import annotations

from typing import Any

from torch import nn

from tag2mask.networks.families.base import Family


class Vgg(Family):
    """One sequence of convolutions, ReLUs and pools; timm gives it no output stride."""

    modules = ("vgg",)
    is_vgg = True

    def options(self, output_stride: int) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def prepare(self, model: Any, output_stride: int) -> None:
        """Leave out the layers for classification; set the last pools to stride 1 and dilate what follows."""
        model.pre_logits = nn.Identity()
        pools = [module for module in model.features if isinstance(module, nn.MaxPool2d)]
        dense = set(pools[{32: 5, 16: 4, 8: 3}[output_stride] :])
        dilation = 1
        for index, module in enumerate(model.features):
            if isinstance(module, nn.Conv2d):
                module.dilation = module.padding = (dilation, dilation)
            elif module in dense:
                model.features[index] = nn.MaxPool2d(3, stride=1, padding=1)
                dilation *= 2 if module is not pools[-1] else 1

    def prepare_deeplab(self, model: Any) -> None:
        """Make all pools 3 x 3 with a padding of 1, as in the authors' train.prototxt of DeepLab-LargeFOV.

        That file takes photos of 32 k - 31 pixels (321), whose sides every pool halves without a remainder. Caffe
        rounds other sizes up; we round down as torch does, so that 328 pixels give a map of 41 x 41 here too.
        """
        for index, module in enumerate(model.features):
            if isinstance(module, nn.MaxPool2d):
                model.features[index] = nn.MaxPool2d(3, stride=module.stride, padding=1)

    def aliases(self, model: Any) -> tuple[str, str, str]:
        """Return the ReLUs after the fifth stage's convolutions: the first, the next and the last."""
        relus: list[str] = []
        for index, module in enumerate(list(model.features)[:-1]):
            if isinstance(module, nn.MaxPool2d):
                relus.clear()
            elif isinstance(module, nn.ReLU):
                relus.append(f"features.{index}")
        return relus[0], relus[1], relus[-1]


FAMILY = Vgg()
