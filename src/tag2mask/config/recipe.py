"""Every parameter of a run, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from tag2mask.errors import nearest
from tag2mask.names import (
    ClassifierTraining,
    Conflict,
    CrfUse,
    Head,
    Schedule,
    Teaching,
    method_names,
)

Positive = Annotated[int, Field(gt=0, le=1_000_000)]
Side = Annotated[int, Field(gt=0, le=8192)]
Rate = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Stride = Literal[8, 16, 32]
AutoKey = Literal[
    "patterns.size",
    "patterns.contrast",
    "patterns.whitening",
    "proxy.cam_weight",
    "proxy.affinity",
    "segmenter.size",
    "inference.scales",
    "tiles",
]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= pair[0] <= pair[1] < 1:
        raise ValueError("two shares of the maximum, 0 to 1, the first not above the second")
    return pair


def _known_method(name: str) -> str:
    if name not in method_names():
        raise ValueError(f"not among the methods {', '.join(method_names())}{nearest(name, method_names())}")
    return name


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackboneConfig(_Part):
    """The network that features come from.

    Attributes:
        name: any timm model name.
        weights: ``auto`` (the weights that came with pip where they fit, else timm's hub), ``hub``,
            ``random``, or a local .safetensors or .pth file.
    """

    name: str = "tf_efficientnet_lite0"
    weights: str = "auto"


class ClassifierConfig(_Part):
    """The classification network.

    Attributes:
        train: ``head`` fits the linear layer on pooled features of the frozen backbone; ``all`` fine-tunes.
        train_from: with ``train: all``, first backbone module to train; those before it stay as loaded.
        size: side of the square training input in pixels.
        output_stride: of the feature map in training; discovery has its own.
        learning_rate: of the linear layer (Adam).
        backbone_learning_rate: of the backbone, with ``train: all``.
        crop: smallest share of a photo's area in a random crop, with ``train: all``.
        colour: strength of the colour jitter, with ``train: all``.
        holdout: share of the training photos kept for the mAP where there is no evaluation split.
    """

    train: ClassifierTraining = ClassifierTraining.HEAD
    train_from: str = ""
    size: Side = 328
    output_stride: Stride = 16
    epochs: Positive = 200
    batch_size: Positive = 32
    learning_rate: Rate = 1e-2
    backbone_learning_rate: Rate = 1e-4
    weight_decay: Rate = 1e-4
    crop: Share = 0.4
    colour: Rate = 0.2
    holdout: Annotated[float, Field(gt=0, le=0.5)] = 0.1


class ViewConfig(_Part):
    """Another view of the photos, with class patterns of its own; the scores of all views are averaged.

    Attributes:
        backbone: null for the recipe's own.
        size: side of the square input in pixels; null for that of the first view.
    """

    backbone: BackboneConfig | None = None
    size: Side | None = None


class PatternsConfig(_Part):
    """The class patterns (Eqs. 1 and 2 of the paper).

    Attributes:
        layers: module names or aliases (C41, C42, C43, last); the scores of several are averaged.
        layer_weights: how much each of several layers counts in that; empty for all the same.
        size: side of the square input in pixels.
        output_stride: of the feature map.
        images_per_class: at most this many randomly chosen photos a semantic subset.
        components: how much of the spectrum to keep.
        contrast: share of the covariance of the photos without the class that is taken from that of the photos
            with it (paper: 0): what varies in all photos alike, as backgrounds do, then does not lead.
        whitening: of further candidates for the pattern, the directions along which photos with the class vary most
            against those without it: this share of the latter's mean variance is added to each of their variances
            (paper: 0, no such candidates). They find what is small, or what all photos but those of the class lack.
        flip: classes whose patterns are turned round, because their masks were found to be of the background.
        views: further views of the photos, by another backbone or at another size (paper: none).
    """

    layers: Annotated[list[str], Field(min_length=1)] = ["C41"]
    layer_weights: list[Annotated[float, Field(gt=0)]] = []
    size: Side = 328
    output_stride: Stride = 16
    images_per_class: Positive = 800
    components: Positive = 50
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    whitening: Annotated[float, Field(ge=0, le=1000)] = 0.0
    flip: list[str] = []
    views: Annotated[list[ViewConfig], Field(max_length=10)] = []

    @field_validator("layer_weights")
    @classmethod
    def _one_a_layer(cls, weights: list[float], others: ValidationInfo) -> list[float]:
        layers = others.data.get("layers", [])
        if weights and len(weights) != len(layers):
            raise ValueError(f"one for each of the {len(layers)} layers, or none")
        return weights


class CrfConfig(_Part):
    """The fully connected CRF (Kraehenbuehl and Koltun 2011).

    Attributes:
        gaussian: standard deviation in pixels, compatibility.
        bilateral: standard deviation in pixels, in colour levels (0..255), compatibility.
        steps: of mean field.
        side: pixels to which a larger photo's longer side is brought for the CRF, whose probabilities are then brought
            to the photo's size; deviations are pixels of the smaller photo. Parts of a photo in tiles are not larger.
    """

    gaussian: tuple[float, float] = (3.0, 3.0)
    bilateral: tuple[float, float, float] = (80.0, 13.0, 10.0)
    steps: Positive = 10
    side: Positive = 1024


class AffinityConfig(_Part):
    """Learnt affinities (Ahn and Kwak 2018): a head on the frozen backbone learns which neighbouring positions have one
    label in masks that are drawn by scores alone, and a random walk spreads the scores over what is alike.

    Attributes:
        epochs: of the head, over photos of ``patterns.size``.
        shows: how many photos the head sees in all, at least: an epoch of few photos shows each of them several times.
        learning_rate: of the head, to zero with power 0.9.
        power: beta, to which affinities are taken; a larger one spreads scores less.
        steps: of the walk.
        crf: of the proxy masks after the walk, in place of the recipe's. A lighter one: the walk has seen to edges. The
            masks that are learnt from have the recipe's, since edges are what is learnt.
    """

    epochs: Positive = 2
    shows: Positive = 1200
    learning_rate: Rate = 3e-3
    power: Annotated[float, Field(gt=0, le=100)] = 8.0
    steps: Annotated[int, Field(gt=0, le=4096)] = 64
    crf: CrfConfig = CrfConfig(gaussian=(1.0, 3.0), bilateral=(67.0, 5.0, 10.0))


class ProxyConfig(_Part):
    """From scores to proxy masks (Eq. 3 and Algorithm 1 of the paper).

    Attributes:
        method: what scores the classes: ``patterns`` (paper) and ``ddt`` in standard deviations, ``cam`` and
            ``gradcam`` in shares of the class's maximum in the photo.
        threshold: a class is present where its score exceeds this many standard deviations (paper: 0).
        peak_share: and this share of its own peak in the photo (paper: 0): the tag says that the class is there, so
            its peak is on it, however strong it is in this photo.
        share_per_skew: what is added to that share for each unit by which the skewness of the class's scores in the
            photo exceeds 2.5 (paper: 0), to 0.65 at most: a small object has skewed scores and a wide blur around it.
        cam_weight: standard deviations that a class's CAM, 0..1 in each photo, adds to its score (paper: 0): CAM
            knows which class, the pattern how far.
        activation_weight: where several classes are present, standard deviations taken from the score of each for
            every logit by which its class activation is below the largest of theirs (paper: 0): the classifier's
            logits compare classes, scores in deviations of their own class hardly do.
        affinity: learn affinities of neighbouring positions and spread the scores by them; null for neither (paper).
            Whole photos only: with tiles there is none.
        cam_thresholds: of ``cam`` and ``gradcam``: background where no class exceeds the first share, a class
            where it exceeds the second, 255 between them.
        conflict: where several classes are present: ``ignore`` writes 255 (paper), ``strongest`` takes the
            class of the largest score.
        crf: refine ``none``, the photos of a ``single`` class (paper), or ``all``.
        sharpness: the CRF's unary is the softmax of this times the score beyond the threshold, background 0.
    """

    method: Annotated[str, AfterValidator(_known_method)] = "patterns"
    threshold: float = 0.0
    peak_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    share_per_skew: Rate = 0.0
    cam_weight: Rate = 0.0
    activation_weight: Rate = 0.0
    affinity: AffinityConfig | None = None
    cam_thresholds: Annotated[tuple[float, float], AfterValidator(_ascending)] = (0.2, 0.2)
    conflict: Conflict = Conflict.IGNORE
    crf: CrfUse = CrfUse.SINGLE
    sharpness: Annotated[float, Field(gt=0)] = 3.0


class SegmenterConfig(_Part):
    """The segmentation network and its training.

    Attributes:
        backbone: of the segmenter; null for the recipe's own.
        method: how proxy masks teach: ``plain`` cross-entropy (paper), or as seeds of ``sec`` or ``dsrg``; ``em``
            learns from the tags alone. Retraining is always plain.
        head: ``largefov`` (DeepLab-LargeFOV, paper) or ``light`` (for any encoder).
        output_stride: of the encoder.
        train_from: first backbone module to train; those before it stay as loaded. Empty: train all.
        size: side of the square training input in pixels.
        learning_rate: of new layers (Adam).
        backbone_learning_rate: of the backbone.
        schedule: of both rates: ``constant`` (paper) or ``poly`` (to zero with power 0.9).
        crop: smallest share of a photo's area in a random crop; 1 resizes the whole photo (paper).
        label_stride: logits and masks are compared at every n-th pixel of the input.
        tag_weight: of the loss of a head that tells the photo's tags, whose log-probabilities are added to the
            logits (paper: 0, no such head). Tags are right where masks are not: what is in a photo is learnt from
            them, and a class that masks draw badly does not vanish or appear in photos without it.
        dice_weight: of a Dice loss, in which a small object weighs as much as a large one (paper: 0, none).
        retrain: how many times to train again from scratch on own predictions (paper: 1).
        redraw: draw the training photos' masks again with the segmenter and the tags, even if it is not trained again.
    """

    backbone: BackboneConfig | None = None
    method: Teaching = Teaching.PLAIN
    head: Head = Head.LIGHT
    output_stride: Stride = 16
    train_from: str = ""
    size: Side = 328
    epochs: Positive = 20
    batch_size: Positive = 16
    learning_rate: Rate = 1e-4
    backbone_learning_rate: Rate = 5e-6
    weight_decay: Rate = 0.0
    schedule: Schedule = Schedule.CONSTANT
    crop: Share = 1.0
    label_stride: Positive = 1
    tag_weight: Rate = 0.0
    dice_weight: Rate = 0.0
    retrain: Annotated[int, Field(ge=0, le=100)] = 1
    redraw: bool = False

    @field_validator("crop")
    @classmethod
    def _whole_photos(cls, crop: float, others: ValidationInfo) -> float:
        if others.data.get("method") not in (None, Teaching.PLAIN) and crop != 1:
            raise ValueError("sec, dsrg and em need 1: a crop may lose what the photo's tags name")
        return crop


class InferenceConfig(_Part):
    """Inference at several scales, and the CRF as last step.

    Attributes:
        scales: sides of the square inputs in pixels; scores are averaged at the photo's size.
        crf: of the CRF that is the last step; null for none. A segmenter's scores are sure and fine already,
            so it is a weaker one than for proxy masks: DeepLab's (Chen et al. 2018).
        background_weight: what background's probability is multiplied by in photos whose labels are not known (paper:
            1). The class of each pixel that is most likely makes the most pixels right; to make the most of an
            IoU of J in expectation a class wins from a probability of J / (1 + J) on (Lipton, Elkan and
            Naryanaswamy 2014 for the F-measure, a monotone function of it): 0.375 for an IoU of 0.6, as with a
            weight of J.
        fill_specks: give specks (see `tag2mask.proxy.speck_area`) the class around them. It changes the mIoU by +0.03
            on 195 photos of VOC and takes 20 ms per photo.
        compile: compile the network with `torch.compile`, once for each scale; needs a C++ compiler.
    """

    scales: Annotated[list[Side], Field(min_length=1, max_length=100)] = [241, 328, 401]
    crf: CrfConfig | None = CrfConfig(gaussian=(1.0, 3.0), bilateral=(67.0, 3.0, 4.0))
    background_weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    fill_specks: bool = False
    compile: bool = False


class RefineConfig(_Part):
    """What is learnt from masks that a person has corrected (not in the paper; nothing without such masks).

    Attributes:
        spread: by how much, in standard deviations of its scores, a class's best threshold is taken to differ from the
            recipe's before a corrected mask of it has been seen.
        temperature: the IoU, summed over corrected photos, by which a threshold must be better to count e times as
            much; a larger one trusts few photos less.
        shows: how many masks the last segmenter's head sees as it learns on, each corrected one at least four times;
            its backbone stays.
        remember: a class that fewer corrected masks show is learnt from the run's own masks of other photos as well,
            up to so many in all, but where the run was mostly wrong; without them the head forgets what no corrected
            mask shows.
        learning_rate: of that where the segmenter's masks agree with the corrected ones, and up to ten times as much
            where they do not.
        dice_weight: as ``segmenter.dice_weight``, for masks that are right to the pixel.
    """

    spread: Annotated[float, Field(gt=0, le=10)] = 0.5
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.2
    shows: Positive = 800
    remember: Annotated[int, Field(ge=0)] = 3
    learning_rate: Rate = 1e-3
    dice_weight: Rate = 0.5


class TilesConfig(_Part):
    """Photos in overlapping squares, each of which is to the networks what a photo else is (paper: no tiles).

    For objects that are small in large photos. Sizes and scales are then those of a tile; where a tile is smaller, it
    is enlarged. Tags, peaks and masks stay the photo's.

    Attributes:
        side: of a tile in pixels of the photo.
        overlap: of neighbours in pixels, at least.
        per_photo: at most this many tiles of a photo are trained on; those with objects come first.
    """

    side: Side = 448
    overlap: Annotated[int, Field(ge=0, validate_default=True)] = 64
    per_photo: Positive = 16

    @field_validator("overlap")
    @classmethod
    def _moves_on(cls, overlap: int, others: ValidationInfo) -> int:
        side = others.data.get("side", overlap + 1)
        if overlap >= side:
            raise ValueError(f"must be less than the side of a tile, {side}")
        return overlap


class Recipe(_Part):
    """Every parameter of a run."""

    name: str = "fast"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    workers: Annotated[int, Field(ge=0, le=256, description="processes that decode photos")] = 1
    backbone: BackboneConfig = BackboneConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    patterns: PatternsConfig = PatternsConfig()
    proxy: ProxyConfig = ProxyConfig()
    crf: CrfConfig = Field(CrfConfig(), description="of proxy masks; inference has its own")
    segmenter: SegmenterConfig = SegmenterConfig()
    inference: InferenceConfig = InferenceConfig()
    refine: RefineConfig = RefineConfig()
    tiles: TilesConfig | None = Field(None, description="overlapping squares of large photos; null for whole photos")
    auto: list[AutoKey] = Field([], description="parameters that are chosen from the data before the start")

    @field_validator("tiles")
    @classmethod
    def _not_of_seeds(cls, tiles: TilesConfig | None, others: ValidationInfo) -> TilesConfig | None:
        segmenter = others.data.get("segmenter")
        if tiles is not None and segmenter is not None and segmenter.method != Teaching.PLAIN:
            raise ValueError("sec, dsrg and em need whole photos: a tile may lack what the photo's tags name")
        return tiles
