"""What a family of backbones is: how timm builds its networks, what their layers are, how maps come out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from tag2mask.networks.stages import as_map, last_blocks

LAST = "last"
"""The name of the feature map that global average pooling sees."""

ALIASES = ("C41", "C42", "C43")
"""The first block of a network's last stage, the next one or its last, and what global average pooling sees."""


class PipWeights(NamedTuple):
    """Weights that arrive as a pip package.

    Attributes:
        package: what is imported.
        attribute: of the package, with ``get_model_file_path()``.
        mean: of the pixels that the network was trained with, 0..255.
        std: of those pixels.
    """

    package: str
    attribute: str
    mean: float = 127.0
    std: float = 128.0


class Family:
    """Networks that are built and read alike. This one is any network whose `forward_features` gives a map.

    A family is a file in this folder with an instance, ``FAMILY``, of a class that changes what differs.

    Attributes:
        modules: of timm (``timm.models.vgg`` is ``vgg``), whose networks these are.
        weights: those that arrive by pip, by the network's name.
        is_transformer: whether the layers are blocks of tokens.
        is_vgg: whether fully connected layers, not a pooled map, follow the last stage.
    """

    modules: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[Mapping[str, PipWeights]] = {}
    is_transformer: ClassVar[bool] = False
    is_vgg: ClassVar[bool] = False

    def options(self, output_stride: int) -> dict[str, Any]:
        """Return what `timm.create_model` is called with."""
        return {} if output_stride == 32 else {"output_stride": output_stride}

    def prepare(self, model: Any, output_stride: int) -> None:
        """Change a network that timm has built, in place."""

    def prepare_deeplab(self, model: Any) -> None:
        """Change what DeepLab changes beyond the output stride, in place, after `prepare`."""

    def layers(self, model: Any) -> list[str]:
        """Return the modules that can be layers."""
        return [name for name, _ in model.named_modules() if name]

    def aliases(self, model: Any) -> tuple[str, str, str] | None:
        """Return what C41, C42 and C43 stand for; None where there is no last stage.

        Args:
            model: as `timm.create_model` gives it without options, on the meta device.
        """
        return last_blocks(model, LAST)

    def fine_layer(self, model: Any) -> str | None:
        """Return a layer of stride 8 for a segmenter's details; None where there is none."""
        fine = [stage["module"] for stage in getattr(model, "feature_info", []) if stage["reduction"] == 8]
        return fine[-1] if fine else None

    def deepest_layer(self, model: Any) -> str:
        """Return where the last stage ends."""
        return str(model.feature_info[-1]["module"])

    def hooked(self, layers: Sequence[str]) -> list[str]:
        """Return the modules whose outputs `maps` is to be given."""
        return [layer for layer in dict.fromkeys(layers) if layer != LAST]

    def maps(self, model: Any, images: Tensor, layers: Sequence[str], seen: dict[str, Any]) -> dict[str, Any]:
        """Return feature maps by layer name, N x D x h x w, and that of ``last``.

        Args:
            model: the network.
            images: N x 3 x H x W, normalised.
            layers: names of modules, or ``last``.
            seen: emptied; outputs of the modules `hooked`, once the network has run.
        """
        last = model.forward_features(images)
        features = {layer: as_map(model, seen.pop(layer, None)) for layer in self.hooked(layers)}
        return {**features, LAST: as_map(model, last)}

    def leave_out_tail(self, model: Any) -> None:
        """Leave out what follows the last stage and only ``last`` needs, in place."""
        if hasattr(model, "conv_head") and hasattr(model, "bn2"):
            model.conv_head, model.bn2 = nn.Identity(), nn.Identity()
