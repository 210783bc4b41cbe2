"""CVAT reads COCO files with datumaro: every pixel of a mask comes back, where it is installed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import tag2mask as t2m


def test_cvat_reads_the_same_masks(awkward, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="needs the package datumaro, CVAT's importer")
    plain = tmp_path / "plain"
    for name in ("plain", "nothing"):
        for kind, suffix in (("masks", "png"), ("photos", "JPG")):
            (plain / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(awkward.root / f"{kind}/{name}.{suffix}", plain / kind)
    file = tmp_path / "coco/annotations/instances_default.json"
    t2m.export(
        "coco", plain / "masks", file, classes=awkward.root / "classes.txt", photos=plain / "photos", min_area=1,
    )  # fmt: skip
    shutil.copytree(plain / "photos", tmp_path / "coco/images/default")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "coco"), "coco_instances")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    assert names == list(awkward.classes)
    found = {item.id: np.zeros_like(awkward.masks[item.id]) for item in dataset}
    for item in dataset:
        for shape in (one for one in item.annotations if one.type == datumaro.AnnotationType.mask):
            found[item.id][shape.image.astype(bool)] = shape.label + 1
    assert found.keys() == {"plain", "nothing"}
    for name, mask in found.items():
        assert (mask == np.where(awkward.masks[name] == 255, 0, awkward.masks[name])).all()
