r"""FickleNet (Lee et al. 2019): a classifier that sees random positions of each window, and many maps of one photo.

Published and kept: in each 9 x 9 window of the feature map hidden units are left out at random (p = 0.9), the same in
all channels, but never the centre; the class score is the mean over windows; 200 maps of a photo by the gradient of
that score, $A_c = \max(0, \sum_k x_k \, \partial S_c / \partial x_k)$; a position is a class if it is in any of its
maps.

Replaced: VGG16, fine-tuned, by the recipe's frozen backbone, brought to 64 channels, and one convolution, so that the
gradient at these is known in closed form; the objects' threshold (0.35 of the maximum) and the background of a saliency
detector by the shared rule, ``proxy.cam_thresholds``, on the largest of the maps; DSRG, by which its authors train the
segmenter, by the recipe's segmenter (``--set segmenter.method=dsrg`` is DSRG).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tag2mask.config import Recipe
from tag2mask.methods.base import Features, Network
from tag2mask.methods.cam import Cam, normalised_cam
from tag2mask.networks.backbones import LAST, pyramid_layers
from tag2mask.networks.classifier import Classifier
from tag2mask.training.heads import Lesson, learn_on_features, narrowed, prior, tag_loss

WINDOW, DROPPED, MAPS = 9, 0.9, 200
"""Side of a window in positions, probability of leaving a unit out, maps of a photo."""


def chosen(count: int, size: Sequence[int], window: int = WINDOW, generator: torch.Generator | None = None) -> Tensor:
    """Return which positions of which windows are seen, float count x O x h x w of zeros and ones, O offsets.

    A position u counts for the window around u - o, by offset o; where that is not in the map it counts nowhere. The
    centre of a window is always seen.

    Args:
        count: how many.
        size: h and w.
        window: side, odd.
        generator: where chance comes from.
    """
    rows, columns = (torch.arange(side) for side in size)
    reach = torch.arange(window) - window // 2
    inside = [
        ((at[None] - reach[:, None] >= 0) & (at[None] - reach[:, None] < len(at))).float() for at in (rows, columns)
    ]
    there = torch.einsum("ay,bx->abyx", *inside).reshape(-1, *size)
    seen = (torch.rand(count, *there.shape, generator=generator) >= DROPPED).float()
    seen[:, len(there) // 2] = 1
    return seen * there


class Fickle(nn.Module):
    """One convolution from the feature map to the classes, kept apart by the offsets within its window.

    Args:
        channels: of the feature map.
        classes: number of maps.
        window: side of the convolution.
        width: channels of the map that it sees.
    """

    def __init__(self, channels: int, classes: int, window: int = WINDOW, width: int = 64) -> None:
        super().__init__()
        self.classes, self.window = classes, window
        self.narrow = narrowed(channels, width)
        self.weigh = nn.Conv2d(width, classes * window**2, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))

    def parts(self, features: Tensor) -> Tensor:
        r"""Return $w_{c,o}^T x_u$, what each position adds to each class by each offset, N x C x O x h x w."""
        return self.weigh(self.narrow(features)).unflatten(1, (self.classes, self.window**2))

    def forward(self, features: Tensor) -> Tensor:
        """Return a random map of each photo, N x C x h x w, whose means are the class scores but for a bias."""
        seen = chosen(len(features), features.shape[2:], self.window).to(features.device)
        return torch.einsum("ncoyx,noyx->ncyx", self.parts(features), seen)


class FickleNet(Cam):
    """The largest of many random maps, each by its own maximum."""

    title = "FickleNet"
    learns: ClassVar[bool] = True

    def layers(self, recipe: Recipe) -> list[str]:
        """Return the deepest stage."""
        return pyramid_layers(recipe.backbone.name)[-1:]

    def build(self, classifier: Classifier, recipe: Recipe) -> nn.Module:
        """Return the convolution."""
        return Fickle(classifier.backbone.channels[classifier.backbone.layers[0]], len(classifier.classes))

    def learn(self, module: Any, lesson: Lesson) -> None:
        """Train random maps to tell the labels."""
        (layer,) = lesson.classifier.backbone.layers

        def loss(model: Any, features: Features, labels: Tensor) -> Tensor:
            return tag_loss(model(features[layer]) + model.bias[:, None, None], labels)

        module.bias.data.copy_(prior(lesson))
        learn_on_features(module, lesson, loss)

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the largest of the labels' maps, and class activations, float N x C x h x w each.

        The same random choices serve every photo, so that a mask does not depend on the photos beside it.
        """
        with torch.inference_mode():
            features = network.backbone(images)
            activation = network.classifier.activation(features[LAST])
            parts = network.learnt.parts(features[network.backbone.layers[0]])
            scores = parts.new_zeros(parts[:, :, 0].shape)
            generator = torch.Generator().manual_seed(network.recipe.seed)
            seen = chosen(MAPS, parts.shape[3:], network.learnt.window, generator).to(parts)
            for row, present in enumerate(labels):
                for label in present:
                    maps = torch.einsum("oyx,soyx->syx", parts[row, label - 1], seen)
                    scores[row, label - 1] = normalised_cam(maps[None])[0].amax(0)
            return scores, activation


METHOD = FickleNet()
