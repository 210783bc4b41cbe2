"""What is kept of photos from one refinement to the next counts only as long as it is right."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.data import Sample
from tag2mask.networks import kept as module
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.kept import Kept, KeptFeatures, remove_others

SIDE = 64


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    return Sample("in/a", tmp_path / "a.png")


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return Backbone("resnet18", ["layer1", "layer4"], output_stride=16, weights="random").eval()


@pytest.fixture
def seen(monkeypatch):
    """Note each photo that goes through the backbone."""
    names, see = [], KeptFeatures._see
    monkeypatch.setattr(
        KeptFeatures,
        "_see",
        lambda self, sample, side, mirrored: names.append(sample.name) or see(self, sample, side, mirrored),
    )
    return names


def test_a_photo_is_seen_once(tmp_path, photo, backbone, seen):
    first = KeptFeatures(tmp_path / "kept", backbone).maps(photo, SIDE)
    again = KeptFeatures(tmp_path / "kept", backbone).maps(photo, SIDE)
    assert seen == ["in/a"]
    assert list(again) == list(backbone.layers)
    pixels = module.resize(module.as_tensor(photo.read())[None].float(), (SIDE, SIDE), antialias=True)
    with torch.inference_mode():
        wanted = backbone(pixels)
    for layer in backbone.layers:
        assert torch.equal(first[layer], again[layer])
        assert torch.allclose(again[layer], wanted[layer], rtol=2e-3, atol=2e-3)


def test_what_changes_is_seen_again(tmp_path, photo, backbone, seen):
    def look(backbone=backbone, side=SIDE):
        KeptFeatures(tmp_path / "kept", backbone).maps(photo, side)
        count = len(seen)
        seen.clear()
        return count

    assert look() == 1
    assert look() == 0
    assert look(side=SIDE // 2) == 1
    os.utime(photo.image, ns=(1, 1))
    assert look() == 1
    torch.manual_seed(1)
    assert look(Backbone("resnet18", ["layer1", "layer4"], output_stride=16, weights="random").eval()) == 1
    assert look() == 1
    file = tmp_path / f"kept/{SIDE}/in/a.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    assert look() == 1
    assert look() == 0


def test_no_more_is_kept_than_may_be(tmp_path, photo):
    one = {"x": torch.zeros(1000)}
    Kept(tmp_path / "kept", "", most=1000).write(photo, one)
    assert Kept(tmp_path / "kept", "").read(photo) is None
    Kept(tmp_path / "kept", "", most=5000).write(photo, one)
    assert Kept(tmp_path / "kept", "").read(photo) is not None
    assert Kept(tmp_path / "kept", "", most=5000).room < 1000


def test_what_is_of_no_photo_is_removed(tmp_path, photo):
    kept = Kept(tmp_path / "kept/64", "")
    for name in ("in/a", "in/b.c", "d"):
        kept.write(Sample(name, photo.image), {"x": torch.zeros(1)})
    (tmp_path / "kept/64/in/half").touch()
    remove_others(tmp_path / "kept", {"in/a", "in/b.c"})
    left = {file.name for file in (tmp_path / "kept").rglob("*") if file.is_file()}
    assert left == {"a.safetensors", "b.c.safetensors"}


def test_a_mirror_image_is_seen_too(tmp_path, photo, backbone, seen):
    both = KeptFeatures(tmp_path / "kept", backbone)
    of_mirror, again, straight = (both.maps(photo, SIDE, mirrored) for mirrored in (True, True, False))
    assert seen == ["in/a", "in/a"]
    pixels = module.resize(module.as_tensor(photo.read())[None].float(), (SIDE, SIDE), antialias=True).flip(-1)
    with torch.inference_mode():
        wanted = backbone(pixels)
    for layer in backbone.layers:
        assert torch.equal(of_mirror[layer], again[layer])
        assert torch.allclose(of_mirror[layer], wanted[layer], rtol=2e-3, atol=2e-3)
        assert torch.equal(both.maps(photo, SIDE)[layer], straight[layer])
