"""Class patterns: the leading direction of each semantic subset, found in photos and saved with its network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tag2mask.config import TilesConfig
from tag2mask.data import ImageSet, Sample, photo_size, trainable
from tag2mask.data.loading import photo_batches, tile_batches
from tag2mask.distributed import device as default_device
from tag2mask.distributed import gather, of_main, share
from tag2mask.errors import DataError, NotFittedError, RecipeError, nearest
from tag2mask.networks.backbones import Backbone, check_network, resolve_layer
from tag2mask.networks.classifier import Classifier, train_head
from tag2mask.networks.weights import check_finite, load_tensors, load_weights, part_of, refusing, save_tensors
from tag2mask.notebook import html_table
from tag2mask.patterns.collect import batches_of, choose_subsets, collect_moments, merge_processes
from tag2mask.patterns.eigen import Pattern, find_pattern, score
from tag2mask.patterns.moments import Moments
from tag2mask.patterns.orientation import EVIDENCE, trust_in_classifier
from tag2mask.proxy import proxy_mask
from tag2mask.tiles import Stitch

_FITTED = ("means", "directions", "spectra", "variances", "evidence", "confidence")
_MISSING = ("classes_", "classifier_", *(f"{name}_" for name in _FITTED))


class ClassPatterns:
    """Class patterns of one layer: fit them on photos with image-level labels, then score or mask photos.

    It has the habits of scikit-learn's estimators, among them `sklearn.base.clone`.

    Args:
        backbone, weights: as in a recipe's ``backbone``.
        layer, size, output_stride, images_per_class, components, contrast, whitening, flip: as in a recipe's
            ``patterns``.
        tiles: as in a recipe; or ``{"side": 448, "overlap": 64}``.
        seed: of the draw of the photos.
        workers: processes that decode photos; 0 decodes in this one.
        device: where `fit` makes a network, such as ``"cuda:1"``; None for a GPU where there is one.

    Attributes:
        classes_: names of the C foreground classes.
        means_: float32 C x D.
        directions_: float32 C x D, unit length, oriented to the class.
        spectra_: float32 C x k, leading eigenvalues, padded with zeros.
        variances_: float32 C, traces of the covariances.
        evidence_: float32 C x E, correlations with what orients a pattern (`EVIDENCE`).
        confidence_: float32 C, that each points to its class, 0.5 to 1; 1 for those of ``flip``.
        classifier_: the network that gives the features.
    """

    classes_: tuple[str, ...]
    means_: Tensor
    directions_: Tensor
    spectra_: Tensor
    variances_: Tensor
    evidence_: Tensor
    confidence_: Tensor
    classifier_: Classifier

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layer: str = "C41",
        *,
        weights: str = "auto",
        size: int = 328,
        output_stride: int = 16,
        images_per_class: int = 800,
        components: int = 50,
        contrast: float = 0.0,
        whitening: float = 0.0,
        flip: Sequence[str] = (),
        tiles: TilesConfig | dict[str, int] | None = None,
        seed: int = 0,
        workers: int = 1,
        device: str | torch.device | None = None,
    ) -> None:
        self.backbone, self.layer, self.weights = backbone, layer, weights
        self.size, self.output_stride = size, output_stride
        self.images_per_class, self.components, self.contrast = images_per_class, components, contrast
        self.whitening, self.flip, self.tiles = whitening, flip, tiles
        self.seed, self.workers, self.device = seed, workers, device

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; ``deep`` is there for scikit-learn and changes nothing."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> ClassPatterns:
        """Set parameters, for the next `fit`; return the estimator.

        Raises:
            RecipeError: there is no such parameter.
        """
        known = self.get_params()
        for name in parameters:
            if name not in known:
                raise RecipeError(f"ClassPatterns has no parameter '{name}'{nearest(name, known)}")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return the parameters."""
        return f"ClassPatterns({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    if not TYPE_CHECKING:  # a type checker would take every name for one that is there

        def __getattr__(self, name):
            """Say what is missing where it is asked for before `fit`."""
            if name in _MISSING:
                raise NotFittedError("these class patterns are not fitted; call fit(data) first, or ClassPatterns.load")
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def fit(self, data: ImageSet, classifier: Classifier | None = None) -> ClassPatterns:
        """Find the pattern of every class; return the estimator.

        Args:
            data: photos with image-level labels.
            classifier: gives features and class activations; without one, a linear layer is first fitted
                on the pooled features of the frozen backbone.

        Raises:
            DataError: there are no photos, or too few of a class.
            WeightsError: the backbone or its weights cannot be had.
        """
        if not data.samples:
            raise DataError("the image set has no photos; class patterns are found in two photos of each class or more")
        data = trainable(data)
        check_flip(self.flip, data.classes)
        if classifier is not None and classifier.classes != data.classes:
            raise DataError(
                f"the classifier is of the classes {', '.join(classifier.classes)}, the photos of"
                f" {', '.join(data.classes)}; give photos of each of its classes"
            )
        if classifier is None:
            backbone = Backbone(self.backbone, [self.layer], output_stride=self.output_stride, weights=self.weights)
            classifier = Classifier(backbone, data.classes).eval().to(self.device or default_device())
            train_head(classifier, data.samples, size=self.size, tiles=self.tiling, workers=self.workers)
        discover(classifier, data, [self])
        return self

    def keep(self, classifier: Classifier, classes: Sequence[str], found: Sequence[Pattern]) -> None:
        """Take the patterns found for some classes, and the network that gives the features."""
        self.classes_, self.classifier_ = tuple(classes), classifier
        self.means_ = torch.stack([pattern.mean for pattern in found])
        self.directions_ = torch.stack([pattern.direction for pattern in found])
        self.spectra_ = torch.stack([pattern.spectrum for pattern in found])
        self.variances_ = torch.tensor([pattern.variance for pattern in found])
        self.evidence_ = torch.stack([pattern.evidence for pattern in found])
        self.confidence_ = torch.tensor([pattern.confidence for pattern in found])

    def score(self, images: Tensor) -> Tensor:
        """Return every class's scores q_c in standard deviations of that class's scores (Eq. 3).

        Args:
            images: N x 3 x H x W, RGB, 0..255.

        Returns:
            float N x C x h x w, where the network is.

        Raises:
            NotFittedError: `fit` has not been called.
        """
        with torch.inference_mode():
            return self.score_features(self.classifier_(images.to(self.classifier_.head.weight.device)).features)

    def score_features(self, features: dict[str, Tensor]) -> Tensor:
        """Do `score` for features that the classifier's backbone has already given."""
        maps = features[resolve_layer(self.layer, self.classifier_.backbone.name, self.classifier_.backbone.model)]
        scale = self.spectra_[:, 0].clamp_min(1e-12).rsqrt().to(maps.device)
        return score(maps, self.means_.to(maps.device), self.directions_.to(maps.device)) * scale[:, None, None]

    def transform(self, data: ImageSet) -> Iterator[tuple[Sample, np.ndarray]]:
        """Yield each photo of ``data`` with its proxy mask by Algorithm 1, uint8 H x W, no CRF.

        Raises:
            NotFittedError: `fit` has not been called.
            DataError: the classes of ``data`` are others.
        """
        if data.classes != self.classes_:
            raise DataError(
                f"the patterns are of the classes {', '.join(self.classes_)}, the photos of {', '.join(data.classes)}"
            )
        for sample, scores in self.scores_of(data.samples):
            yield sample, proxy_mask(scores.cpu().numpy(), sample.labels, photo_size(sample.image))

    def scores_of(
        self, samples: Sequence[Sample], *, strict: bool = False, label: str = ""
    ) -> Iterator[tuple[Sample, Tensor]]:
        """Yield each photo with its scores as of `score`, float C x h x w.

        Args:
            samples: the photos.
            strict: raise for an unreadable photo instead of skipping it.
            label: what the progress shows; empty for no progress.
        """
        how: dict[str, Any] = {"workers": self.workers, "strict": strict, "label": label}
        if self.tiling is None:
            for some, images in photo_batches(samples, self.size, **how):
                yield from zip(some, self.score(images), strict=True)
            return
        parts = tile_batches(samples, self.size, self.tiling, **how)
        for (sample, size), batches in groupby(parts, key=itemgetter(0, 1)):
            whole = Stitch(size)
            for _, _, tiles, images in batches:
                for tile, scores in zip(tiles, self.score(images), strict=True):
                    whole.add(tile, scores)
            yield sample, whole.map()

    @property
    def tiling(self) -> TilesConfig | None:
        """The tiles, checked."""
        return TilesConfig.model_validate(self.tiles) if isinstance(self.tiles, dict) else self.tiles

    def about(self) -> dict[str, dict[str, float]]:
        """Return, by class, the evidence for the sign and the share of the variance that the pattern explains."""
        share = self.spectra_[:, 0] / self.variances_
        return {
            name: {kind: round(float(value), 3) for kind, value in zip(EVIDENCE, evidence, strict=True)}
            | {"confidence": round(float(sure), 3), "explained": round(float(explained), 4)}
            for name, evidence, sure, explained in zip(
                self.classes_, self.evidence_, self.confidence_, share, strict=True
            )
        }

    def _repr_html_(self) -> str:
        """Return a table for a notebook: by class, the variance explained and the evidence for the sign."""
        caption = f"class patterns of {self.backbone}, layer {self.layer}"
        if not hasattr(self, "classes_"):
            return html_table(f"{caption}, not fitted", (), ())
        rows = (
            (
                name,
                f"{100 * about['explained']:.1f}%",
                f"{about['confidence']:.2f}",
                *(f"{about[kind]:+.2f}" for kind in EVIDENCE),
            )
            for name, about in self.about().items()
        )
        return html_table(caption, ("class", "variance explained", "confidence", *EVIDENCE), rows)

    def save(self, file: str | Path) -> None:
        """Write everything needed to apply the patterns, the network's weights among it, as safetensors."""
        fitted = {f"patterns.{name}": getattr(self, f"{name}_") for name in _FITTED}
        network = {f"classifier.{name}": t for name, t in self.classifier_.state_dict().items()}
        about = {name: value for name, value in self.get_params().items() if name != "device"}
        about |= {"tiles": self.tiling and self.tiling.model_dump(), "flip": list(self.flip)}
        about |= {"classes": list(self.classes_), "layers": self.classifier_.backbone.layers}
        save_tensors(file, {**fitted, **network}, "class patterns", about)

    @classmethod
    def load(cls, file: str | Path, device: str | torch.device = "cpu") -> ClassPatterns:
        """Read what `save` wrote.

        Args:
            file: its name.
            device: where the network is to work.

        Raises:
            WeightsError: the file is missing, corrupt or not of class patterns.
        """
        tensors, about = load_tensors(file, "class patterns")
        with refusing(file):
            layers, classes = about.pop("layers"), about.pop("classes")
            patterns = cls(**about, device=device)
            check_network(patterns.backbone, tensors, file)
            backbone = Backbone(patterns.backbone, layers, output_stride=patterns.output_stride, weights="random")
            patterns.classifier_ = Classifier(backbone, classes).eval()
            load_weights(patterns.classifier_, part_of(tensors, "classifier."), str(file))
            fitted = part_of(tensors, "patterns.")
            check_finite(fitted, file)
            layer = resolve_layer(patterns.layer, patterns.backbone, backbone.model)
            width, kept = backbone.channels[layer], fitted["spectra"].shape[-1]
            shapes = ((width,), (width,), (kept,), (), (len(EVIDENCE),), ())
            for name, shape in zip(_FITTED, shapes, strict=True):
                if fitted[name].shape != (len(classes), *shape):
                    raise ValueError(f"'{name}' has the shape {tuple(fitted[name].shape)}")
                setattr(patterns, f"{name}_", fitted[name].float())
            patterns.classes_ = tuple(classes)
        patterns.classifier_.to(device)
        return patterns


def discover(classifier: Classifier, data: ImageSet, patterns: Sequence[ClassPatterns], strict: bool = False) -> None:
    """Fit the patterns of several layers in one pass over the photos, shared among the processes at work.

    Args:
        classifier: gives features and class activations; in evaluation mode.
        data: photos with image-level labels.
        patterns: one a layer, set in place; the first one's size, subsets, contrast, whitening, flips and
            seed hold for all.
        strict: raise for an unreadable photo instead of skipping it.

    Raises:
        DataError: a class has no photo.
    """
    labels, how = range(1, len(data.classes) + 1), patterns[0]
    subsets = choose_subsets(data, how.images_per_class, how.seed, how.contrast > 0 or how.whitening > 0)
    moments = moments_of(classifier, data, subsets, how, strict)
    present = {label: sum(label in sample.labels for sample in data.samples) for label in labels}
    for fitted in patterns:
        layer = resolve_layer(fitted.layer, classifier.backbone.name, classifier.backbone.model)
        for label, name in enumerate(data.classes, 1):
            if (layer, label) not in moments:
                raise DataError(f"no readable photo carries the tag '{name}'; remove the class or add photos")
        mine = [
            (
                label,
                find_pattern(
                    moments[layer, label], fitted.components, _rest(moments, layer, label), contrast=how.contrast,
                    whitening=how.whitening, trust=trust_in_classifier(present[label], len(data) - present[label]),
                ),
            )
            for label in share(labels)
        ]  # fmt: skip
        by_label = dict(of_main([pair for theirs in gather(mine) for pair in theirs]))
        found = [by_label[label] for label in labels]
        for name in how.flip:
            turn(found[data.classes.index(name)])
        fitted.keep(classifier, data.classes, found)


def turn(pattern: Pattern) -> None:
    """Turn a pattern round in place, as a person who has seen its masks says."""
    pattern.direction, pattern.evidence, pattern.confidence = -pattern.direction, -pattern.evidence, 1.0


def check_flip(flip: Sequence[str], classes: Sequence[str]) -> None:
    """Check that the classes whose patterns are to be turned round are there.

    Raises:
        RecipeError: one is not.
    """
    for name in flip:
        if name not in classes:
            raise RecipeError(f"patterns.flip names '{name}', which no photo is tagged with{nearest(name, classes)}")


def _rest(moments: dict[tuple[str, int], Moments], layer: str, label: int) -> Moments | None:
    """Return the moments of the photos without a class, None where they were not collected."""
    if (layer, 0) not in moments:
        return None
    rest = moments[layer, 0].without(moments[layer, label])
    return rest.without(moments[layer, -label]) if (layer, -label) in moments else rest


def moments_of(
    classifier: Classifier, data: ImageSet, subsets: dict[str, list[int]], how: ClassPatterns, strict: bool
) -> dict[tuple[str, int], Moments]:
    """Do `collect_moments` over the photos of some subsets, shared among the processes at work."""
    # Photos of the same classes side by side: their descriptors are multiplied together, once for all classes.
    chosen = sorted((sample for sample in data.samples if sample.name in subsets), key=lambda s: subsets[s.name])
    batches = batches_of(share(chosen), how.size, how.tiling, workers=how.workers, strict=strict)
    moments = collect_moments(classifier, batches, subsets)
    return merge_processes(moments, classifier.backbone.channels, classifier.head.weight.device)
