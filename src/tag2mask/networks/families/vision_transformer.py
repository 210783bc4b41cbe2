"""Plain vision transformers: DeiT, DINOv2, DINOv3, EVA and all else of one stage, any photo size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from tag2mask.networks.families.base import LAST, Family


class VisionTransformer(Family):
    """Layers are blocks, maps are their patches' tokens; there is no output stride and no last stage."""

    modules: ClassVar[tuple[str, ...]] = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva")
    is_transformer = True

    def options(self, output_stride: int) -> dict[str, Any]:
        """Let photos be of any size."""
        return {"dynamic_img_size": True, "dynamic_img_pad": True}

    def layers(self, model: Any) -> list[str]:
        """Return the blocks."""
        return [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+", name)]

    def aliases(self, model: Any) -> None:
        """Return nothing: all blocks are alike."""

    def fine_layer(self, model: Any) -> str:
        """Return the block in the middle."""
        return f"blocks.{len(model.blocks) // 2}"

    def deepest_layer(self, model: Any) -> str:
        """Return the last block with what follows it."""
        return LAST

    def hooked(self, layers: Sequence[str]) -> list[str]:
        """Return nothing: timm gives the blocks' maps by their index."""
        return []

    def maps(self, model: Any, images: Tensor, layers: Sequence[str], seen: dict[str, Any]) -> dict[str, Any]:
        """Return the patches' tokens as maps, the prefix left out and the last norm left out."""
        names = [layer for layer in layers if layer != LAST]
        indices = sorted({int(layer.split(".")[1]) for layer in names} | {len(model.blocks) - 1})
        maps = model.forward_intermediates(images, indices=indices, output_fmt="NCHW", intermediates_only=True)
        by_index = dict(zip(indices, maps, strict=True))
        return {**{layer: by_index[int(layer.split(".")[1])] for layer in names}, LAST: maps[-1]}


FAMILY = VisionTransformer()
