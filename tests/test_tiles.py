"""Photos in overlapping squares: they cover the photo, seams do not show, bad sizes are refused."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask import inference
from tag2mask.config import TilesConfig, load_recipe, with_tile
from tag2mask.errors import RecipeError
from tag2mask.inference import average, probabilities_of
from tag2mask.resize import resize, resize_part
from tag2mask.tiles import Stitch, bands, tiles_of

SIZES = [(300, 1000), (97, 96), (40, 40), (96, 31), (500, 341)]


@pytest.mark.parametrize("overlap", [0, 1, 13, 95])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_cover_a_photo_and_overlap(size, overlap):
    tiles = tiles_of(size, TilesConfig(side=96, overlap=overlap))
    covered = np.zeros(size, int)
    for tile in tiles:
        part = tile.cut(covered)
        assert part.shape == (tile.side, tile.side) == (min(96, *size),) * 2
        part += 1
    assert covered.min() == 1
    tops = sorted({tile.top for tile in tiles})
    least = overlap * tiles[0].side // 96
    assert all(after - before <= tiles[0].side - least for before, after in pairwise(tops))


@pytest.mark.parametrize("size", SIZES)
def test_a_smooth_map_is_stitched_as_it_was(size):
    """Tiles of a ramp join to the ramp, but for the half position at a border where nothing is known beyond."""
    tiles = tiles_of(size, TilesConfig(side=96, overlap=24))
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    ramp, whole = torch.stack([rows, columns]), Stitch(size)
    for tile in tiles:
        part = torch.stack([tile.cut(one) for one in ramp])
        whole.add(tile, resize(part[None], (12, 12), antialias=True)[0])
    found = resize(whole.map()[None], size)[0]
    inside = (slice(None), *(slice(16, -16) for _ in size))
    torch.testing.assert_close(found[inside], ramp[inside], rtol=0, atol=2.0)


def test_a_part_of_a_map_is_resized_alone():
    maps = torch.randn(3, 7, 9)
    rows, columns = slice(11, 30), slice(2, 21)
    wanted = resize(maps[None], (40, 50))[0, :, rows, columns]
    torch.testing.assert_close(resize_part(maps, (40, 50), rows, columns), wanted)
    logits = [maps, torch.randn(3, 20, 20)]
    whole = probabilities_of(logits, (400, 500))
    part = probabilities_of(logits, (400, 500), window=(slice(110, 300), slice(20, 210)))
    np.testing.assert_allclose(part, whole[:, 110:300, 20:210], rtol=1e-4, atol=1e-6)


def test_many_rows_of_logits_are_brought_to_the_photos_width_some_at_a_time(monkeypatch):
    logits = [torch.randn(3, 70, 10)]
    wanted = torch.cat([strip for _, strip in average(logits, (140, 21))])
    monkeypatch.setattr(inference, "_ROWS", 4)
    monkeypatch.setattr(inference, "_STRIP", 21 * 3 * 5)
    torch.testing.assert_close(torch.cat([strip for _, strip in average(logits, (140, 21))]), wanted)


@pytest.mark.parametrize("length", [5, 64, 65, 1000])
def test_bands_keep_every_pixel_once(length):
    kept = np.zeros(length, int)
    for seen, part in bands(length, 64, 16):
        assert seen.start <= part.start < part.stop <= seen.stop
        kept[part] += 1
    assert (kept == 1).all()


def test_a_recipes_tiles_can_be_changed():
    plain = load_recipe("fast")
    assert with_tile(plain, None, None) == plain
    tiled = with_tile(plain, 448, 50)
    assert (tiled.tiles.side, tiled.tiles.overlap) == (448, 50)
    assert with_tile(tiled, None, 20).tiles.overlap == 20
    assert with_tile(tiled, 224, None).tiles.overlap == 32
    assert with_tile(tiled, 0, None).tiles is None
    with pytest.raises(RecipeError, match="must be less than the side of a tile, 96"):
        with_tile(plain, 96, 96)
    with pytest.raises(RecipeError, match="needs a tile"):
        with_tile(plain, None, 64)


def test_predict_in_tiles(command, finished_run, shapes_folder, tmp_path):
    told = command("predict", finished_run, shapes_folder / "photos", "--out", tmp_path, "--tile", 64, "--overlap", 16)
    assert told.code == 0
    assert len(list(tmp_path.glob("*.png"))) == 14
    for tile, overlap, said in (
        (300, 64, "tiles of 300 px are larger than the photos (largest 96 x"),
        (64, 64, "less"),
    ):
        refused = command(
            "predict", finished_run, shapes_folder / "photos", "--out", tmp_path / "none", "--tile", tile,
            "--overlap", overlap,
        )  # fmt: skip
        assert refused.code == 2
        assert said in refused.err
        assert not (tmp_path / "none").exists()


def test_a_run_of_photos_too_small_is_refused(command, shapes, recipe_file, tmp_path):
    run = ("run", shapes, "--out", tmp_path / "run", "--recipe", recipe_file)
    refused = command(*run, "--set", "tiles.side=448")
    assert refused.code == 2
    assert "tiles of 448 px are larger than the photos (largest 96 x 80); choose a smaller tiles.side" in refused.err
    for photo in (shapes / "photos").iterdir():
        Image.new("RGB", (10, 10)).save(photo)
    shutil.rmtree(shapes / "masks")
    refused = command(*run)
    assert refused.code == 2
    assert "the photos are too small: the largest, of 10 x 10 pixels" in refused.err
    assert not (tmp_path / "run").exists()
