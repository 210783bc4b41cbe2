"""Small data sets, and the real photos where they are at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import make_photo, make_text

from tag2mask.data import write_mask

SHARED = Path(__file__).parents[3] / "shared/data"


@pytest.fixture
def real_photos() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real photos (shared/data beside the checkout) are not on this machine")
    return SHARED


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three photos with ``labels.csv``."""
    for name in ("a.jpg", "b.png", "more/c.JPG"):
        make_photo(tmp_path / "pets" / name)
    make_text(tmp_path / "pets/labels.csv", "image,labels\na.jpg,cat\nb,dog cat\nmore/c.JPG,dog\n")
    return tmp_path / "pets"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC2012 in a VOCdevkit: three photos, XML for all, masks for two, and a list of two."""
    root = tmp_path / "VOCdevkit/VOC2012"
    objects = {
        "2007_000001": ["dog", "person"],
        "2007_000002": ["aeroplane"],
        "2007_000003": ["tvmonitor", "dog"],
    }
    for name, tags in objects.items():
        make_photo(root / f"JPEGImages/{name}.jpg")
        nodes = "".join(f"<object><name>{tag}</name><difficult>1</difficult></object>" for tag in tags)
        make_text(root / f"Annotations/{name}.xml", f"<annotation>{nodes}</annotation>")
    mask = np.zeros((8, 12), np.uint8)
    mask[:4, :4], mask[4, :] = 12, 255
    write_mask(root / "SegmentationClass/2007_000001.png", mask)
    mask[:4, :4] = 1
    write_mask(root / "SegmentationClassAug/2007_000002.png", mask)
    make_text(root / "ImageSets/Segmentation/train.txt", "2007_000001\n2007_000002\n")
    make_text(root / "ImageSets/Main/dog_val.txt", "2007_000003  1\n")
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO data set of two 20 x 16 photos with the annotations given; ``changes`` replace keys."""

    def make(*annotations: dict[str, Any], **changes: Any) -> Path:
        for name in ("one.jpg", "two.jpg"):
            make_photo(tmp_path / "coco/val2017" / name, 20, 16)
        sizes = {"width": 20, "height": 16}
        data: dict[str, Any] = {
            "images": [
                {"id": 7, "file_name": "one.jpg", **sizes},
                {"id": 9, "file_name": "two.jpg", **sizes},
            ],
            "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "traffic light"}],
            "annotations": [{"id": number, **item} for number, item in enumerate(annotations)],
        }
        return make_text(tmp_path / "coco/annotations/instances_val2017.json", json.dumps(data | changes))

    return make
