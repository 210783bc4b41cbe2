"""What a proxy method is: a way from a classifier to the scores of a photo's classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tag2mask.config import Recipe
from tag2mask.data import ImageSet
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.patterns import ClassPatterns, discover
from tag2mask.resize import resize_like
from tag2mask.tiles import Stitch, Tile
from tag2mask.training.affinity import AffinityHead
from tag2mask.training.heads import Lesson

Features: TypeAlias = dict[str, Tensor]

PUBLISHED = (
    "proxy.threshold=0", "proxy.peak_share=0", "proxy.share_per_skew=0", "proxy.cam_weight=0",
    "proxy.activation_weight=0", "proxy.affinity=null",
    "patterns.contrast=0", "patterns.whitening=0", "patterns.layer_weights=[]", "patterns.views=[]",
    "segmenter.tag_weight=0", "segmenter.method=plain", "inference.background_weight=1",
)  # fmt: skip
"""Settings without which a recipe would add to a published method what is ours."""

OF_PATTERNS = ("patterns.layers", "patterns.images_per_class", "patterns.components", "patterns.contrast")
"""Parameters that `discover` reads."""

SOME_READ = (
    *OF_PATTERNS, "patterns.whitening", "patterns.flip", "patterns.layer_weights", "patterns.views", "proxy.threshold",
    "proxy.peak_share", "proxy.share_per_skew", "proxy.cam_weight", "proxy.activation_weight", "proxy.affinity",
    "proxy.cam_thresholds",
)  # fmt: skip
"""Parameters that some methods read and others do not; every method reads the rest."""


@dataclass(frozen=True)
class Network:
    """What a method looks at photos with.

    Attributes:
        classifier: in evaluation mode, not to be trained.
        backbone: the classifier's, faster, for inference alone.
        patterns: one for each of the method's layers; none where the method finds none.
        recipe: every parameter.
        learnt: what the method has learnt, in evaluation mode; None where it learns nothing.
        affinities: learnt affinities, on the last of the backbone's layers; None where scores are not spread by them.
    """

    classifier: Classifier
    backbone: Backbone
    patterns: Sequence[ClassPatterns]
    recipe: Recipe
    learnt: Any = None
    affinities: AffinityHead | None = None
    _last: list[tuple[Tensor, Features]] = field(default_factory=list, compare=False)

    def features(self, images: Tensor) -> Features:
        """Return the backbone's maps; those of the last images are kept, since scores and affinities look at them."""
        if not self._last or self._last[0][0] is not images:
            self._last[:] = [(images, self.backbone(images))]
        return self._last[0][1]

    def alike(self, images: Tensor) -> Tensor | None:
        """Return features whose likeness is the affinity of positions, float N x D x h x w, where they are learnt."""
        if self.affinities is None:
            return None
        layers = self.backbone.layers[-self.affinities.count :]
        with torch.inference_mode():
            features = self.features(images)
            return self.affinities([features[layer] for layer in layers])


class Method(ABC):
    """A way from a classifier to scores. A method is a file in this folder with an instance of it, ``METHOD``.

    Attributes:
        title: what people call it.
        settings: what the method sets in a recipe, as ``key=value``; its own name is set besides.
        finds_patterns: whether `fit` finds something that the run folder keeps; else there is no such stage.
        learns: whether it trains a module of its own (`build`, `learn`), which the run folder keeps; it then finds no
            patterns.
        in_shares: whether scores are shares of the class's maximum in the photo, cut at ``proxy.cam_thresholds``;
            else standard deviations, cut at ``proxy.threshold``.
        many_layers: whether it looks at all of ``patterns.layers``; else at the first alone.
        options: the parameters that it reads, of `SOME_READ`.
    """

    title: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()
    finds_patterns: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    in_shares: ClassVar[bool] = False
    many_layers: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("proxy.threshold", *OF_PATTERNS)

    def refusal(self, backbone: Backbone) -> str:
        """Return why the method cannot look at a backbone's layers, and what to do; empty where it can."""
        return ""

    def layers(self, recipe: Recipe) -> list[str]:
        """Return the layers of a recipe that the method looks at."""
        return recipe.patterns.layers if self.many_layers else recipe.patterns.layers[:1]

    def fit(self, classifier: Classifier, data: ImageSet, patterns: Sequence[ClassPatterns], strict: bool) -> None:
        """Find the patterns of the method's layers, set in place.

        Args:
            classifier: gives features and class activations; in evaluation mode.
            data: photos with image-level labels.
            patterns: one a layer.
            strict: raise for an unreadable photo instead of skipping it.
        """
        discover(classifier, data, patterns, strict)

    def build(self, classifier: Classifier, recipe: Recipe) -> nn.Module:
        """Return the module that the method learns, untrained; a new one is filled with what the run folder keeps.

        Args:
            classifier: with the method's `layers`.
            recipe: every parameter.
        """
        raise NotImplementedError

    def learn(self, module: Any, lesson: Lesson) -> None:
        """Train what `build` gives, in place; `tag2mask.training.heads` has the loop."""
        raise NotImplementedError

    def look(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the scores of all classes and their class activations, float N x C x h x w each.

        Args:
            network: what to look with.
            images: N x 3 x H x W, RGB, 0..255, whole photos.
            labels: class indices present in each image, 1..C.
        """
        scores, activation = self.see(network, images, labels)
        scores = self.of_photo(scores, activation, network)
        return scores, resize_like(activation, scores)

    def look_at_tiles(
        self,
        network: Network,
        size: tuple[int, int],
        tiles: Iterable[tuple[Sequence[Tile], Tensor]],
        labels: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Return the scores of all classes of a photo and their class activations, float C x h x w each.

        Args:
            network: what to look with.
            size: height and width of the photo in pixels.
            tiles: some of its tiles and their pixels, N x 3 x H x W, RGB, 0..255, until there are no more.
            labels: class indices present in the photo, 1..C.
        """
        wholes = Stitch(size), Stitch(size)
        for some, images in tiles:
            for whole, maps in zip(wholes, self.see(network, images, [labels] * len(some)), strict=True):
                for tile, one in zip(some, maps, strict=True):
                    whole.add(tile, one)
        scores, activation = (whole.map()[None] for whole in wholes)
        scores = self.of_photo(scores, activation, network)
        return scores[0], resize_like(activation, scores)[0]

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return what `score` gives for photos or tiles, and class activations, float N x C x h x w each."""
        with torch.inference_mode():
            features = network.features(images)
            activation = network.classifier.activation(features[LAST])
            return self.score(features, activation, network), activation

    @abstractmethod
    def score(self, features: Features, activation: Tensor, network: Network) -> Tensor:
        """Return the scores of all classes, float N x C x h x w; what a photo's maximum decides is for `of_photo`.

        Args:
            features: float N x D x h x w by layer: those of ``network.backbone.layers``, and ``last``.
            activation: float N x C x h x w, the class activations in logits.
            network: its ``patterns`` are as `fit` set them.
        """

    def of_photo(self, scores: Tensor, activation: Tensor, network: Network) -> Tensor:
        """Return the scores of whole photos, float N x C x h x w, where they depend on what is elsewhere in the photo.

        Args:
            scores: float N x C x h x w, as `score` gives them, joined from tiles if photos are tiled.
            activation: float N x C x h' x w', joined too.
            network: as for `score`.
        """
        return scores

    def finish(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what becomes of a photo's mask, uint8 H x W, at the end."""
        return mask
