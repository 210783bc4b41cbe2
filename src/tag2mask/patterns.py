"""Class patterns (METHOD 4): moments of each semantic subset, their leading eigenvector, and its sign."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.linalg.blas import ssyrk
from scipy.sparse.linalg import eigsh
from torch import Tensor

from tag2mask.data import ImageSet, Sample, photo_size
from tag2mask.data.loading import photo_batches
from tag2mask.distributed import gather, of_main, share, total, world
from tag2mask.errors import DataError
from tag2mask.networks.backbones import LAST, Backbone, check_network, half_precision, resolve_layer
from tag2mask.networks.classifier import Classifier, targets_of, train_head
from tag2mask.networks.speed import folded_backbone
from tag2mask.networks.weights import check_finite, load_tensors, load_weights, part_of, refusing, save_tensors
from tag2mask.notebook import html_table
from tag2mask.proxy import proxy_mask

EVIDENCE = ("activation", "centre")
"""What orients a pattern: the classifier's class activation, and a prior that objects stand in the centre."""

_BLOCK, _POSITIONS = 256, 1024
"""Rows of a matrix, and positions, that are worked on at a time."""

WEAK = 0.1
"""Correlation below which the evidence for a sign is called weak."""


@dataclass
class Moments:
    r"""Count, mean and centred second moment of descriptors, exact under any split of the data.

    Attributes:
        count: K, the number of positions.
        mean: float64 D, $\bar t = \frac1K \sum_u t_u$ (Eq. 1).
        scatter: float D x D, $\sum_u (t_u - \bar t)(t_u - \bar t)^T$ (K times the covariance of Eq. 2); float32
            of one chunk of descriptors, float64 as soon as chunks are merged.
        cross: float64 E x D, $\sum_u e_u t_u$ for each evidence e, which sums to zero in each image.
        energy: float64 E, $\sum_u e_u^2$.
    """

    count: int
    mean: Tensor
    scatter: Tensor
    cross: Tensor
    energy: Tensor

    @classmethod
    def of(cls, descriptors: Tensor, evidence: Tensor) -> Moments:
        """Return the moments of some positions.

        Args:
            descriptors: float K x D.
            evidence: float E x K, each row of zero sum.
        """
        mean = descriptors.mean(0, dtype=torch.float64) if descriptors.is_cuda else _mean(descriptors)
        shift = mean.to(descriptors.dtype)
        scatter, cross = _products(descriptors, shift, evidence.to(descriptors.dtype))
        rest = (mean - shift).to(scatter.dtype)  # what rounding left of the mean
        scatter.addr_(rest, rest, alpha=-len(descriptors))
        return cls(len(descriptors), mean, scatter, cross.double(), evidence.double().square().sum(1))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of positions together (Chan, Golub and LeVeque 1979)."""
        return self.copy().update(other)

    def copy(self) -> Moments:
        """Return moments of their own memory, all of them float64."""
        tensors = (self.mean, self.scatter, self.cross, self.energy)
        return Moments(self.count, *(tensor.to(torch.float64, copy=True) for tensor in tensors))

    def update(self, other: Moments) -> Moments:
        """Do `merge` in place."""
        count = self.count + other.count
        delta = other.mean - self.mean
        self.scatter.addr_(delta, delta, alpha=self.count * other.count / count)
        for rows, more in zip(self.scatter.split(_BLOCK), other.scatter.split(_BLOCK), strict=True):
            rows += more
        self.mean += delta * (other.count / count)
        self.cross += other.cross
        self.energy += other.energy
        self.count = count
        return self

    def without(self, part: Moments) -> Moments:
        """Return the moments of the positions that are not among those of ``part``; no evidence is left."""
        count = self.count - part.count
        mean = (self.mean * self.count - part.mean * part.count) / max(count, 1)
        delta = mean - part.mean
        scatter = (self.scatter - part.scatter).addr_(delta, delta, alpha=-part.count * count / self.count)
        return Moments(count, mean, scatter, torch.zeros_like(self.cross), torch.zeros_like(self.energy))

    def per_class(self, classes: int) -> Iterator[Moments]:
        """Yield one for each of the classes whose evidence was given one after the other; they share the scatter."""
        for cross, energy in zip(self.cross.chunk(classes), self.energy.chunk(classes), strict=True):
            yield Moments(self.count, self.mean, self.scatter, cross, energy)


def _mean(descriptors: Tensor) -> Tensor:
    """Return the float64 mean; NumPy sums on the way, where torch would first convert all descriptors."""
    return torch.from_numpy(descriptors.numpy().mean(0, dtype=np.float64))


def _products(descriptors: Tensor, shift: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scatter about ``shift``, D x D, and the cross sums, E x D.

    On a CPU by BLAS's symmetric rank-k update, which does half the work of a product of matrices, for some
    positions at a time, so that what is centred stays in the processor's cache.
    """
    if descriptors.is_cuda:
        centred = descriptors - shift
        return centred.T @ centred, evidence @ centred
    size = len(shift)
    upper, cross = np.zeros((size, size), np.float32, order="F"), torch.zeros(len(evidence), size)
    for rows, weights in zip(descriptors.split(_POSITIONS), evidence.split(_POSITIONS, 1), strict=True):
        centred = (rows - shift).contiguous()
        upper = ssyrk(1.0, centred.numpy().T, beta=1.0, c=upper, overwrite_c=True)
        cross += weights @ centred
    for start in range(0, size, _BLOCK):
        end = start + _BLOCK
        upper[end:, start:end] = upper[start:end, end:].T
        upper[start:end, start:end] += np.triu(upper[start:end, start:end], 1).T
    return torch.from_numpy(upper.T), cross


@dataclass
class Pattern:
    """One class's pattern.

    Attributes:
        mean: float32 D, the subset's mean descriptor.
        direction: float32 D, unit length, pointing to the class.
        spectrum: float32, variances of the subset along the leading eigenvectors; without contrast these are the
            leading eigenvalues of the covariance.
        variance: the covariance's trace.
        evidence: float32 E, correlations (see `EVIDENCE`) after orientation; the first known one is >= 0.
    """

    mean: Tensor
    direction: Tensor
    spectrum: Tensor
    variance: float
    evidence: Tensor


def leading_pattern(moments: Moments, components: int, rest: Moments | None = None, contrast: float = 0.0) -> Pattern:
    r"""Return the oriented leading eigenvector of the covariance (Eq. 2).

    With contrast (ours) it is that of $\Sigma_c - \gamma \Sigma_{\bar c}$: what varies as much where the class is
    not, as much of the background does, loses against what varies with the class alone.

    The sign is that for which the scores correlate with the class activation; where that is unknown or
    exactly zero, with the centre prior.

    $\rho = \xi^T \big(\sum_u e_u t_u\big) / \sqrt{K \lambda \, \sum_u e_u^2}$

    Args:
        moments: of the semantic subset.
        components: how many eigenvalues to keep.
        rest: of photos without the class, for the contrast.
        contrast: gamma.
    """
    covariance = (moments.scatter.double() / moments.count).cpu().numpy()
    if rest is None or not rest.count:
        values, vectors = leading_eigenpairs(covariance, components)
    else:
        others = (rest.scatter.double() / rest.count).cpu().numpy()
        _, vectors = leading_eigenpairs(covariance - contrast * others, components)
        values = (vectors * (covariance @ vectors)).sum(0)
    direction = torch.from_numpy(vectors[:, 0].copy())
    norm = (moments.energy.cpu() * max(values[0], 0.0) * moments.count).sqrt()
    evidence = torch.nan_to_num(moments.cross.cpu() @ direction / norm, nan=0.0, posinf=0.0, neginf=0.0)
    known = evidence[evidence != 0]
    sign = -1.0 if len(known) and known[0] < 0 else 1.0
    return Pattern(
        moments.mean.float().cpu(),
        (sign * direction).float(),
        torch.from_numpy(values.copy()).float(),
        float(np.trace(covariance)),
        (sign * evidence).float(),
    )


def leading_eigenpairs(covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues, descending, and their eigenvectors as columns.

    Args:
        covariance: float64 D x D, symmetric.
        count: how many; at most D are returned.
    """
    size = len(covariance)
    if count >= size - 1 or size <= 64 or not covariance.any():
        values, vectors = eigh(covariance)
    else:
        values, vectors = eigsh(covariance, count, which="LA", v0=np.ones(size))
    order = np.argsort(values)[::-1][:count]
    return values[order], vectors[:, order]


def score(features: Tensor, mean: Tensor, direction: Tensor) -> Tensor:
    r"""Return $q_c(u) = (t_u - \bar t_c)^T \xi_c$ (Eq. 3).

    Args:
        features: float N x D x h x w.
        mean: float C x D.
        direction: float C x D.

    Returns:
        float N x C x h x w.
    """
    projected = torch.einsum("ndhw,cd->nchw", features, direction)
    return projected - (mean * direction).sum(1)[None, :, None, None]


def evidence_maps(activation: Tensor) -> Tensor:
    """Return the evidence for a class at each position, each map centred.

    Args:
        activation: float N x h x w, the class activation.

    Returns:
        float N x E x h x w in the order of `EVIDENCE`, zero mean per image and kind.
    """
    count, height, width = activation.shape
    rows = torch.linspace(-1, 1, height, device=activation.device)[:, None]
    columns = torch.linspace(-1, 1, width, device=activation.device)[None, :]
    centre = torch.exp(-2 * (rows**2 + columns**2)).expand(count, height, width)
    maps = torch.stack([activation, centre], 1)
    return maps - maps.mean((2, 3), keepdim=True)


def choose_subsets(data: ImageSet, images_per_class: int, seed: int, contrast: bool = False) -> dict[str, list[int]]:
    """Draw each class's semantic subset and return, by photo name, the classes that it is drawn for.

    A photo with two classes is in two subsets (METHOD 4). The draw depends on the seed and the data alone.

    Args:
        data: photos with image-level labels.
        images_per_class: at most this many in a subset.
        seed: of the draw.
        contrast: add what tells the photos without a class: 0 to every photo, and -c to one of class c that is not
            drawn for it.
    """
    drawn: dict[str, list[int]] = defaultdict(list)
    for label in range(1, len(data.classes) + 1):
        names = sorted(sample.name for sample in data.samples if label in sample.labels)
        if len(names) > images_per_class:
            names = random.Random(f"{seed}/{label}").sample(names, images_per_class)
        for name in names:
            drawn[name].append(label)
    for sample in data.samples if contrast else ():
        if sample.name in drawn:
            undrawn = (-label for label in sample.labels if label not in drawn[sample.name])
            drawn[sample.name] += [0, *undrawn]
    return drawn


def collect_moments(
    classifier: Classifier, batches: Iterable[tuple[list[Sample], Tensor]], subsets: dict[str, list[int]]
) -> dict[tuple[str, int], Moments]:
    """Run every photo once and return the moments by layer and class index.

    Args:
        classifier: in evaluation mode; its backbone's ``layers`` are used.
        batches: of photos, as `photo_batches` yields them.
        subsets: as `choose_subsets` returns them; class indices that are not positive have the activations of a
            photo's classes together as evidence.
    """
    moments: dict[tuple[str, int], Moments] = {}
    device, backbone = classifier.head.weight.device, folded_backbone(classifier.backbone)
    for samples, images in batches:
        with torch.inference_mode(), half_precision(device):
            features = backbone(images.to(device))
            activation = classifier.activation(features[LAST]).float()
        present = targets_of((sample.labels for sample in samples), activation.shape[1]).to(activation)
        together = torch.einsum("nchw,nc->nhw", activation, present)
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, sample in enumerate(samples):
            alike[tuple(subsets[sample.name])].append(row)
        for labels, rows in alike.items():
            seen = (activation[rows, label - 1] if label > 0 else together[rows] for label in labels)
            evidence = torch.cat([evidence_maps(maps) for maps in seen], 1)
            for layer in classifier.backbone.layers:
                maps = features[layer][rows].float()
                new = Moments.of(
                    maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]),
                    _fit_evidence(evidence, maps).permute(1, 0, 2, 3).flatten(1),
                )
                for label, part in zip(labels, new.per_class(len(labels)), strict=True):
                    key = (layer, label)
                    moments[key] = moments[key].update(part) if key in moments else part.copy()
    return moments


def _fit_evidence(evidence: Tensor, maps: Tensor) -> Tensor:
    """Bring evidence to the size of the feature map; the mean per image stays zero."""
    if evidence.shape[2:] == maps.shape[2:]:
        return evidence
    resized = torch.nn.functional.interpolate(evidence, maps.shape[2:], mode="bilinear", align_corners=False)
    return resized - resized.mean((2, 3), keepdim=True)


def merge_processes(
    moments: dict[tuple[str, int], Moments], channels: dict[str, int], device: torch.device
) -> dict[tuple[str, int], Moments]:
    r"""Return the moments of all processes together, the same in each; alone, return what came in.

    `Moments.merge` of many at once, in sums over processes p: $\bar t = \frac1K \sum_p K_p \bar t_p$, and
    $\sum_p \big( S_p + K_p (\bar t_p - \bar t)(\bar t_p - \bar t)^T \big)$.

    Args:
        moments: this process's, by layer and class index.
        channels: of each layer.
        device: where the moments are.
    """
    if world() == 1:
        return moments
    for key in of_main(sorted({key for theirs in gather(list(moments)) for key in theirs})):
        if key not in moments:
            nothing = torch.zeros(1, channels[key[0]], device=device)
            moments[key] = replace(Moments.of(nothing, nothing.new_zeros(len(EVIDENCE), 1)).copy(), count=0)
        mine = moments[key]
        count = int(total(torch.tensor(mine.count)))
        mean = total(mine.mean * (mine.count / count))
        delta = mine.mean - mean
        mine.scatter.addr_(delta, delta, alpha=mine.count)
        moments[key] = Moments(count, mean, total(mine.scatter), total(mine.cross), total(mine.energy))
    return moments


_FITTED = ("means", "directions", "spectra", "variances", "evidence")
_PARAMETERS = (
    "backbone", "layer", "weights", "size", "output_stride", "images_per_class", "components", "contrast", "seed",
    "workers",
)  # fmt: skip


class ClassPatterns:
    """Class patterns of one layer: fit them on photos with image-level labels, then score or mask photos.

    Parameters are as in a recipe's ``backbone`` and ``patterns``.

    Attributes:
        classes_: names of the C foreground classes.
        means_: float32 C x D.
        directions_: float32 C x D, unit length, oriented to the class.
        spectra_: float32 C x k, leading eigenvalues, padded with zeros.
        variances_: float32 C, traces of the covariances.
        evidence_: float32 C x 2, correlations with class activation and centre prior (`EVIDENCE`).
        classifier_: the network that gives the features.
    """

    classes_: tuple[str, ...]
    means_: Tensor
    directions_: Tensor
    spectra_: Tensor
    variances_: Tensor
    evidence_: Tensor
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
        seed: int = 0,
        workers: int = 1,
    ) -> None:
        self.backbone, self.layer, self.weights = backbone, layer, weights
        self.size, self.output_stride = size, output_stride
        self.images_per_class, self.components, self.contrast = images_per_class, components, contrast
        self.seed, self.workers = seed, workers

    def fit(self, data: ImageSet, classifier: Classifier | None = None) -> ClassPatterns:
        """Find the pattern of every class.

        Args:
            data: photos with image-level labels.
            classifier: gives features and class activations; without one, a linear layer is first fitted
                on the pooled features of the frozen backbone.

        Raises:
            DataError: a class has no photo.
            WeightsError: the backbone or its weights cannot be had.
        """
        if classifier is None:
            backbone = Backbone(self.backbone, [self.layer], output_stride=self.output_stride, weights=self.weights)
            classifier = Classifier(backbone, data.classes).eval()
            train_head(classifier, data.samples, size=self.size, workers=self.workers)
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

    def score(self, images: Tensor) -> Tensor:
        """Return every class's scores q_c in standard deviations of that class's scores (Eq. 3).

        Args:
            images: N x 3 x H x W, RGB, 0..255.

        Returns:
            float N x C x h x w.
        """
        with torch.inference_mode():
            return self.score_features(self.classifier_(images).features)

    def score_features(self, features: dict[str, Tensor]) -> Tensor:
        """Do `score` for features that the classifier's backbone has already given."""
        maps = features[resolve_layer(self.layer, self.classifier_.backbone.name, self.classifier_.backbone.model)]
        scale = self.spectra_[:, 0].clamp_min(1e-12).rsqrt().to(maps.device)
        return score(maps, self.means_.to(maps.device), self.directions_.to(maps.device)) * scale[:, None, None]

    def transform(self, data: ImageSet) -> Iterator[tuple[Sample, np.ndarray]]:
        """Yield each photo of ``data`` with its proxy mask by Algorithm 1, uint8 H x W, no CRF."""
        for samples, images in photo_batches(data.samples, self.size, workers=self.workers):
            for sample, scores in zip(samples, self.score(images), strict=True):
                yield sample, proxy_mask(scores.numpy(), sample.labels, photo_size(sample.image))

    def about(self) -> dict[str, dict[str, float]]:
        """Return, by class, the evidence for the sign and the share of the variance that the pattern explains."""
        share = self.spectra_[:, 0] / self.variances_
        return {
            name: {kind: round(float(value), 3) for kind, value in zip(EVIDENCE, evidence, strict=True)}
            | {"explained": round(float(explained), 4)}
            for name, evidence, explained in zip(self.classes_, self.evidence_, share, strict=True)
        }

    def _repr_html_(self) -> str:
        """Return a table for a notebook: by class, the variance explained and the evidence for the sign."""
        caption = f"class patterns of {self.backbone}, layer {self.layer}"
        if not hasattr(self, "classes_"):
            return html_table(f"{caption}, not fitted", (), ())
        rows = (
            (name, f"{100 * about['explained']:.1f}%", *(f"{about[kind]:+.2f}" for kind in EVIDENCE))
            for name, about in self.about().items()
        )
        return html_table(caption, ("class", "variance explained", *EVIDENCE), rows)

    def doubts(self) -> list[str]:
        """Return a line for every class whose sign has weak evidence or two that disagree."""
        lines = []
        for name, (activation, centre) in zip(self.classes_, self.evidence_.tolist(), strict=True):
            said = f"class activation {activation:+.2f}, centre {centre:+.2f}"
            if activation < WEAK:
                lines.append(f"the sign of '{name}' has weak evidence ({said}); look at its masks first")
            elif centre < 0:
                lines.append(f"the evidence for the sign of '{name}' disagrees ({said}); look at its masks first")
        return lines

    def save(self, file: str | Path) -> None:
        """Write everything needed to apply the patterns, the network's weights among it, as safetensors."""
        fitted = {f"patterns.{name}": getattr(self, f"{name}_") for name in _FITTED}
        network = {f"classifier.{name}": t for name, t in self.classifier_.state_dict().items()}
        about = {name: getattr(self, name) for name in _PARAMETERS}
        about |= {"classes": list(self.classes_), "layers": self.classifier_.backbone.layers}
        save_tensors(file, {**fitted, **network}, "class patterns", about)

    @classmethod
    def load(cls, file: str | Path) -> ClassPatterns:
        """Read what `save` wrote.

        Raises:
            WeightsError: the file is missing, corrupt or not of class patterns.
        """
        tensors, about = load_tensors(file, "class patterns")
        with refusing(file):
            layers, classes = about.pop("layers"), about.pop("classes")
            patterns = cls(**about)
            check_network(patterns.backbone, tensors, file)
            backbone = Backbone(patterns.backbone, layers, output_stride=patterns.output_stride, weights="random")
            patterns.classifier_ = Classifier(backbone, classes).eval()
            load_weights(patterns.classifier_, part_of(tensors, "classifier."), str(file))
            fitted = part_of(tensors, "patterns.")
            check_finite(fitted, file)
            layer = resolve_layer(patterns.layer, patterns.backbone, backbone.model)
            width, kept = backbone.channels[layer], fitted["spectra"].shape[-1]
            shapes = ((width,), (width,), (kept,), (), (len(EVIDENCE),))
            for name, shape in zip(_FITTED, shapes, strict=True):
                if fitted[name].shape != (len(classes), *shape):
                    raise ValueError(f"'{name}' has the shape {tuple(fitted[name].shape)}")
                setattr(patterns, f"{name}_", fitted[name].float())
            patterns.classes_ = tuple(classes)
        return patterns


def discover(classifier: Classifier, data: ImageSet, patterns: Sequence[ClassPatterns], strict: bool = False) -> None:
    """Fit the patterns of several layers in one pass over the photos, shared among the processes at work.

    Args:
        classifier: gives features and class activations; in evaluation mode.
        data: photos with image-level labels.
        patterns: one a layer, set in place; the first one's size, subsets, contrast and seed hold for all.
        strict: raise for an unreadable photo instead of skipping it.

    Raises:
        DataError: a class has no photo.
    """
    labels, contrast = range(1, len(data.classes) + 1), patterns[0].contrast
    subsets = choose_subsets(data, patterns[0].images_per_class, patterns[0].seed, contrast > 0)
    moments = moments_of(classifier, data, subsets, patterns[0], strict)
    for fitted in patterns:
        layer = resolve_layer(fitted.layer, classifier.backbone.name, classifier.backbone.model)
        for label, name in enumerate(data.classes, 1):
            if (layer, label) not in moments:
                raise DataError(f"no readable photo carries the tag '{name}'; remove the class or add photos")
        mine = [
            (label, leading_pattern(moments[layer, label], fitted.components, _rest(moments, layer, label), contrast))
            for label in share(labels)
        ]
        by_label = dict(of_main([pair for theirs in gather(mine) for pair in theirs]))
        fitted.keep(classifier, data.classes, [by_label[label] for label in labels])


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
    batches = photo_batches(share(chosen), how.size, workers=how.workers, strict=strict, label="moments")
    moments = collect_moments(classifier, batches, subsets)
    return merge_processes(moments, classifier.backbone.channels, classifier.head.weight.device)
