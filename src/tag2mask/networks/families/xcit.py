"""XCiT: a transformer whose positions are computed, so that photos may be of any size as it is."""

from __future__ import annotations

from typing import Any

from tag2mask.networks.families.vision_transformer import VisionTransformer


class Xcit(VisionTransformer):
    """Read as vision transformers are."""

    modules = ("xcit",)

    def options(self, output_stride: int) -> dict[str, Any]:
        """Return nothing."""
        return {}


FAMILY = Xcit()
