"""Masks as a FiftyOne dataset."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from tag2mask.exports.annotations import path_from, write
from tag2mask.exports.masks import Masks
from tag2mask.files import whole
from tag2mask.names import IGNORE

FIELD = "prediction"
"""Field of a sample that holds its mask."""


def write_fiftyone(masks: Masks, out: Path) -> None:
    """Write FiftyOne's JSON files and grey masks; the photos stay where they are.

    FiftyOne reads palette PNG files as colours, so the masks are written again. ``metadata.json`` names no version of
    FiftyOne: its importer then takes the plain layout, which every version since 0.8 reads.

    Args:
        masks: what to write.
        out: the folder.
    """
    samples: list[dict[str, Any]] = []
    uncertain = False
    with whole(out) as folder:
        for name, mask in masks.read("FiftyOne"):
            file = f"fields/{FIELD}/{name}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / file, "PNG")
            uncertain = uncertain or bool((mask == IGNORE).any())
            samples.append({
                "filepath": path_from(out, masks.photos[name]),
                "tags": [],
                "metadata": None,
                FIELD: {"_cls": "Segmentation", "mask_path": file},
            })  # fmt: skip
        targets = {str(index): name for index, name in enumerate(("background", *masks.classes))}
        if uncertain:
            targets[str(IGNORE)] = "uncertain"
        info = {
            "description": f"masks exported by tag2mask {version('tag2mask')}",
            "default_classes": list(targets.values()),
            "default_mask_targets": targets,
        }
        write(folder / "samples.json", json.dumps({"samples": samples}, indent=1) + "\n")
        write(folder / "metadata.json", json.dumps({"media_type": "image", "info": info}, indent=1) + "\n")
