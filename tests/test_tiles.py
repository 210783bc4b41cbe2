"""Photos in overlapping squares: they cover the photo, seams do not show, bad sizes are refused."""

from __future__ import annotations

import random
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from made_shapes import draw_shapes
from PIL import Image

import tag2mask as t2m
from tag2mask import inference
from tag2mask.config import TilesConfig, load_recipe, with_tile
from tag2mask.data import Sample, write_mask
from tag2mask.errors import RecipeError
from tag2mask.inference import average, forward, mask_at, most_likely, probabilities_of
from tag2mask.methods.cam import Cam
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.patterns.orientation import evidence_maps
from tag2mask.resize import resize, resize_part
from tag2mask.runs import estimate as estimating
from tag2mask.runs.estimate import estimate_mask
from tag2mask.tiles import CRF_SIDE, Stitch, bands, tiles_of
from tag2mask.training.datasets import MaskedPhotos, choose_tiles
from tag2mask.training.segmenter import train_segmenter

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


@pytest.mark.parametrize("length", [5, 16, 64, 65, 1000])
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


def drawn_mask():
    """Return a mask of 400 x 400 pixels: class 1 in the first tile, a speck of class 2 in another, 255 in a third."""
    mask = np.zeros((400, 400), np.uint8)
    mask[10:60, 10:60], mask[10, 390], mask[390, 10] = 1, 2, 255
    return mask


def test_a_tile_has_the_tags_that_its_mask_shows():
    how = TilesConfig(side=100, overlap=0)
    chosen = {
        (tile.top, tile.left): shown.tolist()
        for tile, shown in choose_tiles(drawn_mask(), (1, 2, 3), 4, how, random.Random(0))
    }
    assert len(chosen) == 16
    assert chosen[0, 0] == [1, 0, -1, 0]  # 3 is a tag that the mask lacks, 4 is none of the photo's
    assert chosen[100, 100] == [0, 0, -1, 0]
    assert chosen[0, 300] == [0, -1, -1, 0]
    assert chosen[300, 0] == [-1, -1, -1, 0]


def test_tiles_with_objects_are_not_lost_where_few_are_drawn():
    how = TilesConfig(side=50, overlap=10, per_photo=8)
    for seed in range(5):
        chosen = list(choose_tiles(drawn_mask(), (1, 2), 2, how, random.Random(seed)))
        assert len(chosen) == 8
        shown = torch.stack([shown for _, shown in chosen])
        assert (shown[:, 0] == 1).sum() >= 4
        assert (shown[:, 1] != 0).any()
        assert (shown[:, 0] == 0).any()
    again = [tile for tile, _ in choose_tiles(drawn_mask(), (1, 2), 2, how, random.Random(4))]
    assert again == [tile for tile, _ in chosen]
    assert choose_tiles(np.zeros((400, 400), np.uint8), (), 2, how, random.Random(0))


def test_cam_of_a_photo_has_one_maximum_however_many_tiles():
    """A tile without the object must not get the whole share of the peak."""

    class Fixed(Cam):
        def see(self, network, images, labels):
            return (images[:, :1] / 255,) * 2

    tiles = tiles_of((64, 128), TilesConfig(side=64, overlap=0))
    images = [torch.full((1, 3, 4, 4), level) for level in (51.0, 255.0)]
    scores, activation = Fixed().look_at_tiles(
        None, (64, 128), [([t], i) for t, i in zip(tiles, images, strict=True)], [1]
    )
    assert scores.shape == activation.shape == (1, 4, 8)
    torch.testing.assert_close(scores[0, 0], torch.tensor([0.2] * 4 + [1.0] * 4))


def test_the_centre_of_a_photo_is_not_that_of_its_tiles():
    activation = torch.zeros(2, 5, 5)
    places = torch.tensor([[-1.0, 0.0, -1.0, 0.0], [-0.5, 0.5, -0.5, 0.5]])
    corner, middle = evidence_maps(activation, activation, places)[:, 2]
    assert corner.flatten().argmax() == 24
    assert middle.flatten().argmax() == 12
    torch.testing.assert_close(
        evidence_maps(activation, activation)[0, 2], evidence_maps(*torch.zeros(2, 1, 5, 5))[0, 2]
    )


def test_a_run_in_tiles_from_tags_to_masks(command, shapes_folder, recipe_file, tmp_path):
    tiles = ("--set", "tiles.side=64", "--set", "tiles.overlap=16", "--set", "tiles.per_photo=2")
    split = ("--split", "train", "--eval-split", "val")
    done = command("run", shapes_folder, "--out", tmp_path / "run", "--recipe", recipe_file, *split, *tiles)
    assert done.code == 0
    assert "tiles: 64 px, overlapping by 16 or more, 4 per photo" in done.out
    model = t2m.load_segmenter(tmp_path / "run")
    assert model.recipe.tiles.side == 64
    photo = next((shapes_folder / "photos").iterdir())
    assert (model.predict(photo) == model.predict(photo, tile=64, overlap=16)).all()
    patterns = t2m.ClassPatterns.load(tmp_path / "run/patterns.safetensors")
    assert patterns.tiling == model.recipe.tiles
    sample, mask = next(iter(patterns.transform(t2m.load(shapes_folder))))
    assert mask.shape == sample.read().shape[:2]
    with pytest.raises(RecipeError, match="sec, dsrg and em need whole photos"):
        load_recipe("fast", ["segmenter.method=sec", "segmenter.crop=1", "tiles={side: 64, overlap: 8}"])


def test_tiles_of_frozen_features_are_seen_once(shapes_folder, tmp_path, monkeypatch):
    """The tiles of a photo come one after the other: it is decoded once."""
    data = t2m.load(shapes_folder)
    photos = MaskedPhotos(
        data.samples, shapes_folder / "masks", 2, 64, 1, flip=0, tiles=TilesConfig(side=64, overlap=8)
    )
    assert len(photos) == 4 * len(data)
    read, seen = type(data.samples[0]).read, []
    monkeypatch.setattr(type(data.samples[0]), "read", lambda self, *how: seen.append(self.name) or read(self, *how))
    for index in range(len(photos)):
        _, (pixels, mask, shown) = photos[index]
        assert pixels.shape == (3, 64, 64)
        assert all((mask == label).any() for label in (1, 2) if shown[label - 1] == 1)
    assert seen == [sample.name for sample in data.samples]


def test_unreadable_photos_and_masks_are_said_in_tiles_too(shapes, tmp_path):
    data = t2m.load(shapes)
    (shapes / "masks/p00.png").write_bytes(b"no mask")
    photos = MaskedPhotos(data.samples, shapes / "masks", 2, 64, 1, tiles=TilesConfig(side=64, overlap=8))
    assert "p00.png" in photos[0][1]
    assert not isinstance(photos[1][1], str)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A segmenter with a head for the tags that has learnt shapes in large photos by tiles, from true masks."""
    folder = tmp_path_factory.mktemp("large")
    samples = []
    for seed in range(6):
        photo, mask = large_photo(seed)
        Image.fromarray(photo).save(folder / f"{seed}.png")
        write_mask(folder / f"masks/{seed}.png", mask)
        samples.append(Sample(str(seed), folder / f"{seed}.png", labels=(1, 2)))
    recipe = load_recipe("fast", ["segmenter.size=128", "segmenter.epochs=8", "tiles.side=128", "tiles.overlap=48"])
    network = SegmentationNetwork("tf_efficientnet_lite0", ["disc", "square"], tags=True)
    train_segmenter(
        network, samples, folder / "masks", recipe.segmenter, seed=0, workers=0, tiles=recipe.tiles,
        checkpoint=folder / "checkpoint.pt",
    )  # fmt: skip
    return t2m.Segmenter(network, load_recipe(recipe, ["inference.scales=[128]", "inference.crf=null"]))


def large_photo(seed):
    """Return a photo of 300 x 400 pixels with a shape in every second of its fields of 100 x 100, and its mask."""
    fields = [
        [draw_shapes((1 + (row + seed) % 2,) * ((row + column) % 2), 100, 100, 100 * seed + 4 * row + column)
         for column in range(4)]
        for row in range(3)
    ]  # fmt: skip
    photo, mask = (np.vstack([np.hstack([field[kind] for field in row]) for row in fields]) for kind in (0, 1))
    return photo, mask


def test_the_mask_is_the_same_wherever_tiles_begin(model):
    photo, mask = large_photo(9)
    whole = model.predict(photo)
    assert (whole == mask).mean() > 0.97
    for down, right in ((16, 24), (7, 31), (40, 3)):
        assert (model.predict(photo[down:, right:]) == whole[down:, right:]).mean() > 0.99


def test_one_tile_is_a_photo(model):
    photo, _ = large_photo(9)
    [whole] = forward(model.network, [photo[:128, :128]], [128, 96])
    [tiled] = forward(model.network, [photo[:128, :128]], [128, 96], TilesConfig(side=128, overlap=48))
    for one, other in zip(whole, tiled, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


class Tagging(torch.nn.Module):
    """Sees a class where a tile is bright: its logits are the same everywhere, its tag is of the tile."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def backbone(self, images):
        return images.mean((1, 2, 3))

    def decode_apart(self, levels):
        return torch.ones(len(levels), 2, 4, 4), (levels - 128)[:, None]


def test_a_tag_of_one_tile_is_one_of_the_photo():
    """Were it decided tile by tile, the class would end at a seam."""
    photo = np.zeros((64, 128, 3), np.uint8)
    for level, wanted in ((0, -128 + 1), (255, 1)):
        photo[:, 64:] = level
        [[logits]] = forward(Tagging(), [photo], [8], TilesConfig(side=64, overlap=0))
        torch.testing.assert_close(logits[1], torch.full((4, 8), float(wanted)))
        torch.testing.assert_close(logits[0], torch.ones(4, 8))


@pytest.mark.parametrize("size", [(2100, 1300), (500, 2600), (900, 1000)])
def test_the_crf_sees_a_large_photo_in_parts(monkeypatch, size):
    """So memory does not grow with the photo; without the CRF's doing the mask is that of the whole."""
    seen = []

    def same(photo, probabilities, side=None, **how):
        assert side is None or side >= max(photo.shape)
        seen.append(photo.shape[:2])
        return probabilities

    monkeypatch.setattr(inference, "dense_crf", same)
    monkeypatch.setattr(estimating, "dense_crf", same)
    recipe = load_recipe("fast", ["tiles.side=448"])
    photo = np.zeros((*size, 3), np.uint8)
    logits = [3 * torch.randn(3, *(length // 20 for length in size))]
    mask = mask_at(logits, photo, size, recipe.inference, [1, 2], recipe.tiles)
    assert (mask == most_likely(logits, size, [1, 2])).mean() > 0.9999
    assert max(max(shape) for shape in seen) <= CRF_SIDE
    seen.clear()
    scores = logits[0][1:].numpy()
    tiled = estimate_mask(photo, scores, [1, 2], recipe)
    assert max(max(shape) for shape in seen) <= CRF_SIDE
    whole = estimate_mask(photo, scores, [1, 2], load_recipe("fast", ["crf.side=4096"]))
    assert (tiled == whole).mean() > 0.9999
