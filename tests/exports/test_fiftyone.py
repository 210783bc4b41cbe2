"""A FiftyOne dataset: its files, and what FiftyOne's own importer reads from them where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tag2mask as t2m


@pytest.fixture
def dataset(awkward, tmp_path):
    return t2m.export(
        "fiftyone", awkward.folder, tmp_path / "deep/dataset",
        classes=awkward.root / "classes.txt", photos=awkward.root / "photos",
    )  # fmt: skip


def test_samples_lead_to_photos_and_grey_masks(dataset, awkward):
    samples = json.loads((dataset / "samples.json").read_text())["samples"]
    assert len(samples) == len(awkward.masks)
    for sample in samples:
        photo = dataset / sample["filepath"]
        (name,) = [name for name in awkward.masks if photo.samefile(awkward.root / f"photos/{name}.JPG")]
        assert sample["prediction"]["_cls"] == "Segmentation"
        with Image.open(dataset / sample["prediction"]["mask_path"]) as mask:
            assert mask.mode == "L"  # of a palette FiftyOne would read the colours
            assert (np.asarray(mask) == awkward.masks[name]).all()
    metadata = json.loads((dataset / "metadata.json").read_text())
    assert "version" not in metadata  # FiftyOne then takes the plain layout
    names = dict(enumerate(("background", *awkward.classes))) | {255: "uncertain"}
    assert metadata["info"]["default_mask_targets"] == {str(value): name for value, name in names.items()}


def test_a_second_export_does_not_mix_with_the_first(refused, dataset, awkward):
    before = {file: file.read_bytes() for file in dataset.rglob("*") if file.is_file()}
    refused("fiftyone", awkward.folder, "--out", dataset, *awkward.options, says="not empty; delete it")
    assert {file: file.read_bytes() for file in dataset.rglob("*") if file.is_file()} == before


def test_fiftyone_reads_it(dataset, awkward):
    importers = pytest.importorskip("fiftyone.utils.data.importers", reason="needs the package fiftyone")
    assert importers.FiftyOneDatasetImporter(str(dataset))._is_legacy_format_data()
    importer = importers.LegacyFiftyOneDatasetImporter(str(dataset))
    importer.setup()
    found = {Path(sample.filepath).stem: sample.prediction.get_mask() for sample in importer}
    assert found.keys() == {Path(name).name for name in awkward.masks}
    for name, mask in awkward.masks.items():
        assert (found[Path(name).name] == mask).all()
