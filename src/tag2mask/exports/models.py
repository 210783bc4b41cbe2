"""A run's segmenter for other programs: as an ONNX graph, and as a folder in Hugging Face's layout."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import InferenceConfig
from tag2mask.errors import ExportError, reason
from tag2mask.files import whole
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.resize import resize
from tag2mask.runs.fingerprint import Fingerprint, read_fingerprint
from tag2mask.runs.folder import read_metrics, resume_run
from tag2mask.runs.trained import load_segmenter
from tag2mask.scoring import MaskScores
from tag2mask.segmenter import Segmenter

log = logging.getLogger("tag2mask")

TOLERANCE = 1e-3
"""How far a probability of the ONNX graph may be from the network's, or a logit in parts of the largest."""


_OUTPUT = "probabilities: float32 N x classes x H x W; the mask is the argmax over classes"
_TILE_OUTPUT = (
    "logits: float32 N x scales x classes x H x W, to be averaged over tiles; present: float32 N x scales x classes, "
    "of which the maximum over tiles is added; then softmax over classes, mean over scales, background_weight, argmax"
)


class Graph(nn.Module):
    """A segmenter with all that `Segmenter.predict_proba` does: a photo in, class probabilities at its size out.

    Args:
        network: in evaluation mode.
        how: its scales and its background weight are used; the CRF is left out.
    """

    outputs: ClassVar[dict[str, dict[int, str]]] = {"probabilities": {0: "batch", 2: "height", 3: "width"}}
    background_weight: Tensor

    def __init__(self, network: SegmentationNetwork, how: InferenceConfig) -> None:
        super().__init__()
        self.network, self.scales = network, how.scales
        weights = [how.background_weight] + [1.0] * len(network.classes)
        self.register_buffer("background_weight", torch.tensor(weights).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities.

        Args:
            image: float32 N x 3 x H x W, RGB, 0..1; the mean and standard deviation of the weights are inside.

        Returns:
            float32 N x (C + 1) x H x W, summing to 1; 0 is background.
        """
        weighted = sum(self._at_scale(image, side) for side in self.scales) * self.background_weight
        return weighted / weighted.sum(1, keepdim=True)

    def _at_scale(self, image: Tensor, side: int) -> Tensor:
        return resize(self.network(squared(image, side)), image.shape[2:]).softmax(1)


class TileGraph(nn.Module):
    """A segmenter for one tile, with all that is needed to join tiles as `Segmenter.predict_proba` does.

    Args:
        network: in evaluation mode.
        how: its scales are used.
    """

    outputs: ClassVar[dict[str, dict[int, str]]] = {
        "logits": {0: "batch", 3: "height", 4: "width"},
        "present": {0: "batch"},
    }

    def __init__(self, network: SegmentationNetwork, how: InferenceConfig) -> None:
        super().__init__()
        self.network, self.scales = network, how.scales

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and presences for each of S scales.

        Args:
            image: float32 N x 3 x H x W, RGB, 0..1.

        Returns:
            float32 N x S x (C + 1) x H x W, logits that know nothing of the tags; and float32 N x S x (C + 1), the
            log-probability of each class to be in the tile, 0 for background or without a head for tags.
        """
        found = [self._at_scale(image, side) for side in self.scales]
        return torch.stack([logits for logits, _ in found], 1), torch.stack([present for _, present in found], 1)

    def _at_scale(self, image: Tensor, side: int) -> tuple[Tensor, Tensor]:
        logits, tags = self.network.decode_apart(self.network.backbone(squared(image, side)))
        logits = resize(logits, image.shape[2:])
        if tags is None:
            return logits, 0 * logits[:, :, 0, 0]
        return logits, functional.pad(functional.logsigmoid(tags), (1, 0))


def squared(image: Tensor, side: int) -> Tensor:
    """Return an image, float32 N x 3 x H x W, 0..1, at the network's size and range, N x 3 x side x side, 0..255."""
    rows, columns = shrinking(image[0, 0, :, 0], side), shrinking(image[0, 0, 0], side)
    return 255 * (rows @ image @ columns.T)


def shrinking(line: Tensor, side: int) -> Tensor:
    """Return the matrix of antialiased bilinear resizing; not every runtime of ONNX has that as an operator.

    Args:
        line: of n pixels; only how many there are counts, which an exporter can follow in a tensor.
        side: length after resizing.

    Returns:
        float32 side x n; the rows sum to 1.
    """
    ones = torch.ones_like(line)
    places, scale = ones.cumsum(0) - 0.5, ones.sum() / side
    centres = (torch.arange(side, dtype=line.dtype, device=line.device) + 0.5)[:, None] * scale
    weights = (1 - (places - centres).abs() / scale.clamp_min(1)).relu()
    return weights / weights.sum(1, keepdim=True)


def write_onnx(source: str | Path, out: Path, *, rounds: int | None = None) -> None:
    """Write the segmenter as ONNX, any batch, height and width, once onnxruntime is seen to give the same.

    Args:
        source: a run folder, or a folder that `write_huggingface` wrote.
        out: the .onnx file.
        rounds: of a run, the segmenter after so many retrainings; None for the last.

    Raises:
        ExportError: something is not installed, or this torch or onnxruntime cannot do it.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ExportError(f"the format onnx needs {', '.join(missing)}: python -m pip install 'tag2mask[export]'")
    import onnx

    trained = load_segmenter(source, rounds, "cpu")
    kind = TileGraph if trained.recipe.tiles else Graph
    graph = kind(trained.network, trained.recipe.inference).eval()
    try:
        model = _to_onnx(graph)
    except Exception as error:  # the exporter meets each network in its own way
        raise ExportError(f"torch {torch.__version__} cannot write {source} as ONNX ({reason(error)})") from None
    model.graph.output[0].type.tensor_type.shape.dim[-3].dim_value = len(trained.classes) + 1
    onnx.helper.set_model_props(model, {key: _text(value) for key, value in _about(trained).items()})
    with whole(out) as temporary:
        onnx.save(model, temporary)
        _compare(graph, temporary)
    if trained.recipe.inference.crf:
        log.warning("%s does all of predict but the dense CRF, its last step: masks have coarser outlines", out)
    if tiles := trained.recipe.tiles:
        log.warning(
            "%s takes one tile at a time: the code on the page Exports cuts photos into squares of %d pixels that "
            "overlap by %d, and joins what the graph finds in them", out, tiles.side, tiles.overlap,
        )  # fmt: skip


def write_huggingface(source: str | Path, out: Path, *, rounds: int | None = None) -> None:
    """Write the segmenter as a folder: model.safetensors, config.json and a model card; `load_segmenter` takes it.

    Args:
        source: a run folder, or a folder of this kind.
        out: the folder.
        rounds: of a run, the segmenter after so many retrainings; None for the last.
    """
    model = load_segmenter(source, rounds, "cpu")
    if rounds is None and (scores := read_metrics(Path(source)).get("prediction")):
        model.scores = MaskScores.model_validate(scores)
        model.seen = seen_in_training(read_fingerprint(resume_run(source).fingerprint_file), model.scores.images)
    with whole(out) as folder:
        model.save_pretrained(folder)


def seen_in_training(data: Fingerprint | None, scored: int) -> int:
    """Return how many of the scored photos a run was trained on; all of them where that is not known.

    Args:
        data: what the run was made from.
        scored: number of photos that were scored.
    """
    if data is None or data.evaluation is None:
        return scored
    known = {(name, photo.photo[:2]) for name, photo in data.train.items()}
    return sum((name, photo.photo[:2]) in known for name, photo in data.evaluation.items() if photo.mask is not None)


def _to_onnx(graph: Graph | TileGraph) -> Any:
    """Return the ONNX model, of any batch, height and width.

    A convolutional network is traced: that takes a second where torch.export, whose symbolic sizes grow with each
    strided layer, takes minutes. torch.export is for transformers, and for a torch that cannot trace any more.
    """
    example = torch.rand(2, 3, 224, 256, generator=torch.Generator().manual_seed(0))
    axes = {0: "batch", 2: "height", 3: "width"}
    names: dict[str, Any] = {"input_names": ["image"], "output_names": list(graph.outputs)}
    with _quiet():
        if not graph.network.backbone.is_transformer:
            with suppress(Exception):  # each network meets the exporter in its own way
                return _traced(graph, example, dynamic_axes={"image": axes, **graph.outputs}, **names)
        program: Any = torch.onnx.export(graph, (example,), dynamo=True, verbose=False, dynamic_shapes=(axes,), **names)
        return program.model_proto


def _traced(graph: Graph | TileGraph, example: Tensor, **options: Any) -> Any:
    import onnx

    for part in graph.modules():
        if isinstance(part, nn.BatchNorm2d) and not part.affine:  # the exporter knows it with weights only
            ones = torch.ones(part.num_features)
            part.weight, part.bias, part.affine = nn.Parameter(ones), nn.Parameter(0 * ones), True
    if "dynamo" in signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    written: Any = io.BytesIO()
    torch.onnx.export(graph, (example,), written, **options)
    return onnx.load_from_string(written.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters from telling how they go about it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _about(trained: Segmenter) -> dict[str, Any]:
    how, tiles = trained.recipe.inference, trained.recipe.tiles
    seen = "the photo at its own size" if tiles is None else f"one tile of a photo, {tiles.side} x {tiles.side} pixels"
    return {
        "tag2mask": version("tag2mask"),
        "classes": ["background", *trained.classes],
        "input": f"image: float32 N x 3 x H x W, RGB, 0 to 1, {seen}; all else is inside the graph",
        "output": _OUTPUT if tiles is None else _TILE_OUTPUT,
        "scales": how.scales,
        "background_weight": how.background_weight,
        "crf": "left out" if how.crf else "none",
        "fill_specks": "left out" if how.fill_specks else "none",
        "levels": trained.levels,
        "tiles": tiles and tiles.model_dump(),
    }


def _compare(graph: Graph | TileGraph, file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    random = torch.Generator().manual_seed(0)
    for size in ((1, 3, 97, 131), (2, 3, 160, 128)):
        image = torch.rand(size, generator=random)
        with torch.inference_mode():
            found = graph(image)
        wanted = [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]
        given = session.run(None, {"image": image.numpy()})
        apart = max(float(np.abs(a - b).max() / max(1, np.abs(b).max())) for a, b in zip(given, wanted, strict=True))
        if not apart <= TOLERANCE:
            raise ExportError(f"onnxruntime differs from torch by {apart:.2g} at {size[2]} x {size[3]} pixels")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
