"""ResNet and its kin; dilated as DeepLab's where a segmenter asks for that."""

from __future__ import annotations

from typing import Any

from torch import nn

from tag2mask.networks.families.base import Family


class ResNet(Family):
    """Four stages of blocks."""

    modules = ("resnet",)

    def prepare_deeplab(self, model: Any) -> None:
        """Dilate the first block of a dilated stage as the others of it.

        timm and torchvision give that block the dilation of the stage before. DeepLab's ResNet-101 (Chen et al. 2018,
        its train.prototxt: ``res4a_branch2b`` 2, ``res5a_branch2b`` 4) does not. Ours: the stride of ``layer2`` stays
        in the 3 x 3 convolution, where torchvision's weights were trained with it; Caffe's ResNet has it in the 1 x 1.
        """
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            wide = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
            dilation = max(module.dilation for module in wide)
            for module in wide:
                module.dilation = module.padding = dilation


FAMILY = ResNet()
