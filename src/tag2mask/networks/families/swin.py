"""Swin transformers: their maps are N x h x w x D, which `Family` turns round."""

from __future__ import annotations

from typing import Any

from tag2mask.networks.families.base import Family


class Swin(Family):
    """Windows that fit any photo; of stride 32 alone."""

    modules = ("swin_transformer", "swin_transformer_v2")

    def options(self, output_stride: int) -> dict[str, Any]:
        """Let photos be of any size."""
        return {**super().options(output_stride), "strict_img_size": False}

    def prepare(self, model: Any, output_stride: int) -> None:
        """Let photos end within a patch."""
        model.patch_embed.dynamic_img_pad = True


FAMILY = Swin()
