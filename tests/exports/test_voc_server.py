"""The tar for the PASCAL VOC server: its layout, its PNG files, and what the server would not take."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

import tag2mask as t2m
from tag2mask.data import voc_palette, write_mask
from tag2mask.data.readers.voc import VOC_CLASSES

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
IDS = ("2008_000001", "2008_000004", "2008_000007")


@pytest.fixture
def masks(tmp_path):
    """Three masks with all of VOC's indices, a list of them, and their photos."""
    for number, name in enumerate(IDS):
        mask = np.random.default_rng(number).integers(0, 21, (30 + number, 40)).astype(np.uint8)
        write_mask(tmp_path / f"masks/{name}.png", mask)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", mask.shape[::-1]).save(tmp_path / f"photos/{name}.jpg")
    (tmp_path / "test.txt").write_text("".join(f"{name}\n" for name in IDS))
    (tmp_path / "voc.txt").write_text("".join(f"{name}\n" for name in VOC_CLASSES))
    return tmp_path / "masks"


def members(file):
    """Return the images of a tar by their path in it."""
    with tarfile.open(file) as tar:
        return {entry.name: Image.open(io.BytesIO(tar.extractfile(entry).read())) for entry in tar}


def test_what_the_server_takes(command, masks, tmp_path):
    options = ("--split", tmp_path / "test.txt", "--photos", tmp_path / "photos", "--classes", tmp_path / "voc.txt")
    assert command("export", "voc-server", masks, "--out", tmp_path / "out.tar", *options).code == 0
    found = members(tmp_path / "out.tar")
    assert list(found) == [f"{FOLDER}/{name}.png" for name in IDS]
    for name in IDS:
        image = found[f"{FOLDER}/{name}.png"]
        assert (image.format, image.mode) == ("PNG", "P")
        assert np.array(image.getpalette()).tolist() == voc_palette().ravel().tolist()
        assert (np.array(image) == np.array(Image.open(masks / f"{name}.png"))).all()


def test_other_kinds_of_png_become_8_bit_palette(masks, tmp_path):
    """A grey one, one of colours, and one of a bit a pixel."""
    values = np.random.default_rng(0).integers(0, 2, (30, 40)).astype(np.uint8)
    Image.fromarray(values).save(masks / f"{IDS[0]}.png")
    Image.fromarray(voc_palette()[values]).save(masks / f"{IDS[1]}.png")
    Image.fromarray(values == 1).save(masks / f"{IDS[2]}.png")
    raw = t2m.export("voc-server", masks, tmp_path / "out.tar")
    with tarfile.open(raw) as tar:
        for entry in tar:
            header = tar.extractfile(entry).read(26)
            assert header[24:26] == b"\x08\x03"  # bit depth 8, colour type 3: palette
    for image in members(raw).values():
        assert (np.array(image) == values).all()


def test_a_run_of_other_classes(refused, finished_run, tmp_path):
    refused("voc-server", finished_run, "--out", tmp_path / "out.tar", says="disc, square")


@pytest.mark.parametrize(("value", "says"), [(255, "has pixels of 255"), (21, "class index 21")])
def test_values_that_the_server_does_not_take(refused, masks, tmp_path, value, says):
    mask = np.zeros((30, 40), np.uint8)
    mask[3, 4] = value
    write_mask(masks / f"{IDS[2]}.png", mask)
    assert IDS[2] in refused("voc-server", masks, "--out", tmp_path / "out.tar", says=says)


def test_a_missing_mask_a_wrong_size_a_folder_and_colours_that_are_none(refused, masks, tmp_path):
    options = ("--out", tmp_path / "out.tar", "--split", tmp_path / "test.txt", "--photos", tmp_path / "photos")
    (masks / f"{IDS[1]}.png").rename(tmp_path / "away.png")
    refused("voc-server", masks, *options, says=f"{tmp_path}/test.txt: no mask for 1 of the entries")
    refused("voc-server", masks, *options, says=IDS[1])
    write_mask(masks / f"{IDS[1]}.png", np.zeros((40, 30), np.uint8))
    refused("voc-server", masks, *options, says=f"{IDS[1]}.png: 40 x 30 pixels")
    Image.new("RGB", (40, 31), (1, 2, 3)).save(masks / f"{IDS[1]}.png")
    refused("voc-server", masks, *options, says="not in the VOC palette")
    (masks / f"{IDS[1]}.png").unlink()
    write_mask(masks / f"sub/{IDS[1]}.png", np.zeros((31, 40), np.uint8))
    refused("voc-server", masks, "--out", tmp_path / "out.tar", says="lies in a sub-folder")
