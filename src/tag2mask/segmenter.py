"""A trained segmenter: load it, predict photos with it, share it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
import yaml
from huggingface_hub import ModelHubMixin, snapshot_download
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from tag2mask import distributed
from tag2mask.config import Recipe, parse_recipe, with_tile
from tag2mask.data import Photo, as_photo, photo_size, read_photo
from tag2mask.data.decode import Levels
from tag2mask.data.text import read_json
from tag2mask.errors import RunError, UserError, reason
from tag2mask.files import write_text
from tag2mask.inference import (
    draft_size,
    fast_copy,
    forward,
    mask_at,
    mean_probabilities,
    photos_together,
    probabilities_of,
)
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.notebook import html_table, number
from tag2mask.scoring import MaskScores

_WEIGHTS, _CONFIG, _CARD = "model.safetensors", "config.json", "README.md"


class Segmenter(ModelHubMixin):
    """A trained segmentation network, with the recipe for its predictions.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are those of huggingface_hub.

    Attributes:
        network: in evaluation mode.
        recipe: that it was trained by; its ``inference`` is how photos are predicted.
        levels: by which its 16-bit photos were scaled, and those that it predicts are.
        scores: of the predictions of the run that it is from, for the model card.
        seen: how many of the scored photos it was trained on.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        recipe: Recipe,
        levels: Levels | None = None,
        scores: MaskScores | None = None,
        seen: int = 0,
    ) -> None:
        self.network, self.recipe, self.levels, self.scores = network.eval(), recipe, levels, scores
        self.seen = seen
        self._fast: SegmentationNetwork | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes: value i of a mask is ``classes[i - 1]``, 0 is background."""
        return self.network.classes

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.backbone.mean.device

    def to(self, device: str | torch.device | None) -> Segmenter:
        """Move the network, in place; return the segmenter.

        Args:
            device: such as ``"cpu"`` or ``"cuda:1"``; None for a GPU where there is one.

        Raises:
            RunError: torch has no such device.
        """
        try:
            self.network.to(distributed.device() if device is None else device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the second
            raise RunError(f"torch cannot use the device '{device}' here ({reason(error)})") from None
        self._fast = None
        return self

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str comes here
        self, photo: Photo, *, tile: int | None = None, overlap: int | None = None
    ) -> NDArray[np.uint8]: ...

    @overload
    def predict(
        self, photo: Sequence[Photo], *, tile: int | None = None, overlap: int | None = None
    ) -> list[NDArray[np.uint8]]: ...

    def predict(
        self, photo: Photo | Sequence[Photo], *, tile: int | None = None, overlap: int | None = None
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Return the mask of a photo, uint8 H x W at the photo's own size, 0 for background; of several a list.

        The mask of a file equals that of ``tag2mask predict``. Without a CRF in the recipe, large JPEG files are
        decoded at reduced size, so a few pixels may differ from the mask of the same photo as an array.

        Args:
            photo: a file, a Pillow image or an array as `tag2mask.data.as_photo` takes it; or a list of these.
            tile: side of overlapping squares of the photo in pixels, for small objects in large photos; 0 for whole
                photos, None for as it was trained.
            overlap: of the squares in pixels, with ``tile``.

        Raises:
            DataError: the photo cannot be read, or the array is none of a photo.
            RecipeError: the overlap is no less than the tile.
        """
        recipe = with_tile(self.recipe, tile, overlap)
        several = isinstance(photo, Sequence) and not isinstance(photo, str)
        looked = self._look(cast(Sequence[Photo], photo if several else [photo]), recipe)
        masks = [mask_at(logits, pixels, size, recipe.inference, tiles=recipe.tiles) for pixels, size, logits in looked]
        return masks if several else masks[0]

    def predict_proba(self, photo: Photo) -> NDArray[np.float32]:
        """Return class probabilities, float32 (C + 1) x H x W, summing to 1; 0 is background.

        They are averaged over the recipe's scales and weighted by its background weight; no CRF is applied.

        Args:
            photo: as for `predict`.

        Raises:
            DataError: as for `predict`.
        """
        ((_, size, logits),) = self._look([photo], self.recipe)
        return probabilities_of(logits, size, background_weight=self.recipe.inference.background_weight)

    def predict_scored(self, photo: Photo) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the mask that `predict` gives, and how probable its classes are on average.

        Args:
            photo: as for `predict`.

        Returns:
            uint8 H x W; and float32 C + 1, 0..1, the mean probability of each class over its pixels of the mask, before
            any CRF; 0 for a class that has none.

        Raises:
            DataError: as for `predict`.
        """
        how = self.recipe.inference
        ((pixels, size, logits),) = self._look([photo], self.recipe)
        mask = mask_at(logits, pixels, size, how, tiles=self.recipe.tiles)
        return mask, mean_probabilities(logits, mask, how.background_weight)

    def _look(
        self, photos: Sequence[Photo], recipe: Recipe
    ) -> Iterator[tuple[NDArray[np.uint8], tuple[int, int], list[Tensor]]]:
        """Yield each photo's pixels, its size and its logits."""
        how, tiles = recipe.inference, recipe.tiles
        if self._fast is None:
            self._fast = fast_copy(self.network, self.recipe)
        read = (_read(photo, draft_size(how, tiles), self.levels) for photo in photos)
        while some := list(islice(read, 1 if tiles else photos_together(self._fast))):
            found = forward(self._fast, [pixels for pixels, _ in some], how.scales, tiles)
            for (pixels, size), logits in zip(some, found, strict=True):
                yield pixels, size, logits

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Segmenter:
        """Load a segmenter from a folder that `save_pretrained` wrote, or from a repository of Hugging Face's hub.

        Nothing is unpickled, and the file of the weights is checked.

        Args:
            pretrained_model_name_or_path: the folder, or the repository's name.
            **options: ``device`` as for `load_segmenter`, and those of huggingface_hub: ``revision``, ``token``,
                ``cache_dir``, ``force_download``, ``local_files_only``.

        Raises:
            RunError: it is not of a segmenter of tag2mask.
            WeightsError: the weights are corrupt.
            UserError: the repository cannot be fetched.
        """
        name = str(pretrained_model_name_or_path)
        if os.path.isdir(name):
            _read_config(Path(name))
        try:
            return super().from_pretrained(name, **options)
        except (UserError, TypeError):
            raise
        except Exception as error:  # the hub's client raises errors of several libraries
            raise UserError(f"{name} cannot be loaded ({reason(error)}); check the name of the folder") from None

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> Segmenter:
        folder = model_id
        if not os.path.isdir(folder):
            folder = snapshot_download(
                model_id, revision=revision, cache_dir=cache_dir, force_download=force_download,
                local_files_only=local_files_only, token=token, allow_patterns=[_WEIGHTS, _CONFIG],
            )  # fmt: skip
        recipe, levels = _read_config(Path(folder))
        return cls(SegmentationNetwork.load(Path(folder) / _WEIGHTS), recipe, levels).to(device)

    def _save_pretrained(self, save_directory: Path) -> None:
        recipe = _without_paths(self.recipe)
        names = dict(enumerate(["background", *self.classes]))
        config = {
            "architectures": ["Segmenter"],
            "library_name": "tag2mask",
            "tag2mask": version("tag2mask"),
            "id2label": names,
            "label2id": {name: index for index, name in names.items()},
            "recipe": recipe.model_dump(mode="json"),
            "levels": self.levels,
        }
        self.network.save(save_directory / _WEIGHTS)
        write_text(save_directory / _CONFIG, json.dumps(config, indent=2) + "\n")
        if not (save_directory / _CARD).exists():
            write_text(save_directory / _CARD, model_card(self.classes, recipe, self.scores, self.seen))

    def __repr__(self) -> str:
        """Return what it is in a line."""
        return (
            f"Segmenter({', '.join(self.classes)}; recipe {self.recipe.name}, {self.network.backbone.name}, "
            f"{self.device})"
        )

    def _repr_html_(self) -> str:
        """Return a table for a notebook: what the segmenter is and what each value of a mask means."""
        names = ", ".join(map(str, self.recipe.inference.scales))
        rows = [(name, value) for value, name in enumerate(("background", *self.classes))]
        caption = f"segmenter of recipe {self.recipe.name} on {self.network.backbone.name}, scales {names} pixels"
        return html_table(caption, ("class", "value"), rows)


def model_card(classes: tuple[str, ...], recipe: Recipe, scores: MaskScores | None = None, seen: int = 0) -> str:
    """Return a model card: what the segmenter is, its classes, how to load it, its recipe.

    Args:
        classes: names of the foreground classes.
        recipe: that it was trained by.
        scores: of the run's predictions.
        seen: how many of the scored photos it was trained on.
    """
    head = {"library_name": "tag2mask", "pipeline_tag": "image-segmentation", "tags": ["weakly-supervised"]}
    scores = scores or MaskScores()
    rows = "\n".join(
        f"| {index} | {_cell(name)} | {number(scores.iou.get(name))} |"
        for index, name in enumerate(["background", *classes])
    )
    tiled = ""
    if recipe.tiles:
        tiled = (
            f"\nIt was trained on tiles of {recipe.tiles.side} pixels. `predict` cuts photos into such tiles and joins "
            "what it finds in them.\n"
        )
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---

# A segmenter of {len(classes)} classes

It gives a class to every pixel of a photo. tag2mask {version("tag2mask")} trained it from image-level labels alone, by
the recipe below.
{_measured(scores, seen)}
{tiled}
## How to load it

```python
import tag2mask as t2m

model = t2m.Segmenter.from_pretrained("FOLDER")    # the folder of this file, or its name on the hub
mask = model.predict("photo.jpg")                  # uint8 H x W, the numbers below
```

## Classes

| number | class | IoU, % |
|---|---|---|
{rows}

## Recipe

```yaml
{yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)}```
"""


def _measured(scores: MaskScores, seen: int) -> str:
    """Return a sentence on the mIoU that says which photos it is of."""
    if scores.miou is None:
        return "No scores are known: there were no true masks to compare with, or this copy was made without them."
    miou, count = f"mIoU {number(scores.miou)}%", scores.images
    if seen >= count:
        return f"{miou} on the {count} photos it was trained on. Expect a lower score on new photos."
    if seen:
        return f"{miou} on {count} photos, {seen} of which it was trained on. Expect a lower score on new photos."
    return f"{miou} on {count} photos that it was not trained on."


def _read(photo: Photo, draft: int | None, levels: Levels | None) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return a photo's pixels, a file's perhaps at reduced size, and its height and width."""
    if isinstance(photo, (str, Path)):
        return read_photo(photo, draft, levels), photo_size(photo)
    pixels = as_photo(photo, levels)
    return pixels, (pixels.shape[0], pixels.shape[1])


def _read_config(folder: Path) -> tuple[Recipe, Levels | None]:
    file = folder / _CONFIG
    values = read_json(file) if file.is_file() else None
    if not isinstance(values, dict) or not isinstance(values.get("recipe"), dict):
        raise RunError(f"{file} is not a segmenter of tag2mask: it has no recipe; export the run again")
    try:
        levels = TypeAdapter(Levels | None).validate_python(values.get("levels"))
    except ValidationError:
        raise RunError(f"{file} is damaged: its levels are not two numbers; export the run again") from None
    return parse_recipe(values["recipe"], str(file)), levels


def _without_paths(recipe: Recipe) -> Recipe:
    """Return a recipe that says nothing of this machine's folders: weights from a file are named alone."""
    parts = [recipe.backbone, recipe.segmenter.backbone]
    plain = [part and part.model_copy(update={"weights": Path(part.weights).name}) for part in parts]
    segmenter = recipe.segmenter.model_copy(update={"backbone": plain[1]})
    return recipe.model_copy(update={"backbone": plain[0], "segmenter": segmenter})


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
