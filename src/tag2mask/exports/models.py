"""A run's segmenter for other programs: as an ONNX graph, and as a folder in Hugging Face's layout."""

from __future__ import annotations

import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tag2mask import __version__
from tag2mask.config import Recipe
from tag2mask.errors import ExportError
from tag2mask.files import whole
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.runs.folder import find_segmenter, read_metrics

TOLERANCE = 1e-3
"""How far a probability of the ONNX graph may be from the network's."""


class Graph(nn.Module):
    """A segmenter with all that stands before and after it: a photo in, class probabilities at its size out."""

    def __init__(self, segmenter: SegmentationNetwork) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities.

        Args:
            image: float32 N x 3 x H x W, RGB, 0..1; the mean and standard deviation of the weights are inside.

        Returns:
            float32 N x (C + 1) x H x W, summing to 1; 0 is background.
        """
        logits = self.segmenter(255 * image)
        return functional.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False).softmax(1)


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

    file, recipe = find_segmenter(source, rounds)
    graph = Graph(SegmentationNetwork.load(file)).eval()
    try:
        model = _to_onnx(graph)
    except Exception as error:  # the exporter meets each network in its own way
        raise ExportError(f"torch {torch.__version__} cannot write {file} as ONNX ({_reason(error)})") from None
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(graph.segmenter.classes) + 1
    onnx.helper.set_model_props(model, {key: _text(value) for key, value in _about(graph.segmenter, recipe).items()})
    with whole(out) as temporary:
        onnx.save(model, temporary)
        _compare(graph, temporary)


def write_huggingface(source: str | Path, out: Path, *, rounds: int | None = None) -> None:
    """Write the segmenter as a folder: model.safetensors, config.json and a model card; `load_segmenter` takes it.

    Args:
        source: a run folder, or a folder of this kind.
        out: the folder.
        rounds: of a run, the segmenter after so many retrainings; None for the last.
    """
    file, recipe = find_segmenter(source, rounds)
    classes = SegmentationNetwork.load(file).classes
    recipe = _without_paths(recipe)
    names = dict(enumerate(["background", *classes]))
    config = {
        "architectures": ["Segmenter"],
        "library_name": "tag2mask",
        "tag2mask": __version__,
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "recipe": recipe.model_dump(mode="json"),
    }
    scores = read_metrics(Path(source)).get("prediction") if rounds is None else None
    with whole(out) as folder:
        folder.mkdir()
        shutil.copyfile(file, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        (folder / "README.md").write_text(model_card(classes, recipe, scores), "utf-8")


def model_card(classes: tuple[str, ...], recipe: Recipe, scores: dict[str, Any] | None = None) -> str:
    """Return a model card: what the segmenter is, its classes, how to load it, its recipe.

    Args:
        classes: names of the foreground classes.
        recipe: that it was trained by.
        scores: of the run's predictions, as in metrics.json.
    """
    head = {"library_name": "tag2mask", "pipeline_tag": "image-segmentation", "tags": ["weakly-supervised"]}
    iou = (scores or {}).get("iou") or {}
    rows = "\n".join(
        f"| {index} | {_cell(name)} | {_cell(_number(iou.get(name)))} |"
        for index, name in enumerate(["background", *classes])
    )
    measured = "The run that it is from had no true masks to score its predictions on."
    if scores and scores.get("miou") is not None:
        measured = f"mIoU {_number(scores['miou'])}% on the {scores['images']} photos that the run predicted."
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---

# A segmenter of {len(classes)} classes

It gives a class to every pixel of a photo. tag2mask {__version__} trained it from image-level labels alone, by
the recipe below.
{measured}

## How to load it

```python
import tag2mask as t2m

model = t2m.load_segmenter("FOLDER")    # the folder of this file
mask = model.predict("photo.jpg")       # uint8 H x W, the numbers below
```

## Classes

| number | class | IoU, % |
|---|---|---|
{rows}

## Recipe

```yaml
{yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)}```
"""


def _to_onnx(graph: Graph) -> Any:
    """Return the ONNX model, of any batch, height and width.

    A convolutional network is traced: that takes a second where torch.export, whose symbolic sizes grow with each
    strided layer, takes minutes. torch.export is for transformers, and for a torch that cannot trace any more.
    """
    example = torch.rand(2, 3, 224, 256, generator=torch.Generator().manual_seed(0))
    axes = {0: "batch", 2: "height", 3: "width"}
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["probabilities"]}
    with _quiet():
        if not graph.segmenter.backbone.is_transformer:
            with suppress(Exception):  # each network meets the exporter in its own way
                return _traced(graph, example, dynamic_axes={"image": axes, "probabilities": axes}, **names)
        program: Any = torch.onnx.export(graph, (example,), dynamo=True, verbose=False, dynamic_shapes=(axes,), **names)
        return program.model_proto


def _traced(graph: Graph, example: Tensor, **options: Any) -> Any:
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


def _about(segmenter: SegmentationNetwork, recipe: Recipe) -> dict[str, Any]:
    return {
        "tag2mask": __version__,
        "classes": ["background", *segmenter.classes],
        "input": "image: float32 N x 3 x H x W, RGB, 0 to 1; normalisation is inside the graph",
        "output": "probabilities: float32 N x classes x H x W; the mask is the argmax over classes",
        "scales": recipe.inference.scales,
    }


def _compare(graph: Graph, file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    random = torch.Generator().manual_seed(0)
    for size in ((1, 3, 97, 131), (2, 3, 160, 128)):
        image = torch.rand(size, generator=random)
        with torch.inference_mode():
            wanted: NDArray[np.float32] = graph(image).numpy()
        (given,) = session.run(None, {"image": image.numpy()})
        apart = float(np.abs(given - wanted).max())
        if not apart <= TOLERANCE:
            raise ExportError(f"onnxruntime differs from torch by {apart:.2g} at {size[2]} x {size[3]} pixels")


def _without_paths(recipe: Recipe) -> Recipe:
    """Return a recipe that says nothing of this machine's folders: weights from a file are named alone."""
    parts = [recipe.backbone, recipe.segmenter.backbone]
    plain = [part and part.model_copy(update={"weights": Path(part.weights).name}) for part in parts]
    segmenter = recipe.segmenter.model_copy(update={"backbone": plain[1]})
    return recipe.model_copy(update={"backbone": plain[0], "segmenter": segmenter})


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
