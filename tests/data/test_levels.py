"""Photos of 16 bits: all of their bits are read, and a set's are scaled by the set's own range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_data import deep_png, deep_tiff, make_photo, make_text
from PIL import Image

from tag2mask.data import ImageSet, Sample, load, photo_size, read_photo, summary
from tag2mask.data.decode import is_deep, levels_of_counts, read_deep
from tag2mask.data.levels import levels_of

TWELVE = np.random.default_rng(0).integers(0, 4096, (23, 31, 4)).astype(np.uint16)
FILES = {
    "grey.png": (deep_png(TWELVE[..., :1]), TWELVE[..., 0]),
    "rgb.png": (deep_png(TWELVE[..., :3]), TWELVE[..., :3]),
    "rgba.png": (deep_png(TWELVE), TWELVE[..., :3]),
    "little.tif": (deep_tiff(TWELVE[..., :3]), TWELVE[..., :3]),
    "big.tif": (deep_tiff(TWELVE[..., :3], ">"), TWELVE[..., :3]),
    "deflated.tif": (deep_tiff(TWELVE[..., :3], "<", True), TWELVE[..., :3]),
    "deflated_big.tif": (deep_tiff(TWELVE[..., :3], ">", True), TWELVE[..., :3]),
}


@pytest.fixture(params=FILES)
def deep(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray]:
    content, values = FILES[request.param]
    (tmp_path / request.param).write_bytes(content)
    return tmp_path / request.param, values


def test_all_bits_are_read(deep: tuple[Path, np.ndarray]) -> None:
    path, values = deep
    assert is_deep(path)
    assert photo_size(path) == (23, 31)
    assert np.array_equal(read_deep(path), values)


def test_levels_become_0_and_255(deep: tuple[Path, np.ndarray]) -> None:
    path, values = deep
    wanted = np.clip(np.rint((values.astype(float) - 500) * (255 / 3000)), 0, 255)
    photo = read_photo(path, levels=(500, 3500)).astype(float)
    if path.name == "rgba.png":  # laid over white
        alpha = (TWELVE[..., 3:] >> 8) / 255
        assert np.abs(photo - (wanted * alpha + 255 * (1 - alpha))).max() <= 1
    else:
        assert np.array_equal(photo, wanted if wanted.ndim == 3 else np.repeat(wanted[..., None], 3, 2))


def test_a_photo_alone_has_its_own_range(deep: tuple[Path, np.ndarray]) -> None:
    path, values = deep
    low, high = np.percentile(values, (0.1, 99.9))
    levels = levels_of([path])
    assert levels == pytest.approx((low, high), abs=30)
    assert np.array_equal(read_photo(path), read_photo(path, levels=levels))


def test_grey_with_transparency_has_its_high_bytes(tmp_path: Path) -> None:
    path = tmp_path / "la.png"
    values = np.stack([TWELVE[..., 0], np.full_like(TWELVE[..., 0], 65535)], -1)
    path.write_bytes(deep_png(values))
    photo = read_photo(path, levels=(0, 4095))
    assert np.abs(photo[..., 0] - (values[..., 0] >> 8 << 8) * (255 / 4095)).max() <= 0.5


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_levels_change_no_photo_of_8_bits(tmp_path: Path, suffix: str) -> None:
    path = make_photo(tmp_path / f"a.{suffix}")
    assert not is_deep(path)
    assert levels_of([path]) is None
    assert np.array_equal(read_photo(path, levels=(100, 200)), read_photo(path))


@pytest.mark.parametrize("value", [0, 700, 65535])
def test_a_photo_of_one_value(tmp_path: Path, value: int) -> None:
    Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").max() == 0


def test_rare_values_do_not_count() -> None:
    counts = np.bincount(np.r_[np.repeat(np.arange(100, 200), 100), 0, 65535], minlength=2**16)
    assert levels_of_counts(counts) == (100, 199)


def deep_set(folder: Path) -> Path:
    """A folder of one class a sub-folder: 16-bit photos of little and of much light, and one of 8 bits."""
    for name, light in (("dark/a", 400), ("dark/b", 500), ("light/a", 3800), ("light/b", 4000)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.tile(light + np.arange(12, dtype=np.uint16), (8, 1))
        Image.fromarray(pixels).save(folder / f"{name}.png")
    make_photo(folder / "light/c.png")
    return folder


def test_a_set_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    data = load(deep_set(tmp_path / "set"))
    assert data.levels == (400, 4011)
    assert {sample.levels for sample in data} == {(400, 4011)}
    assert [round(float(sample.read().mean())) for sample in data][:4] == [0, 7, 240, 255]
    assert np.array_equal(data[4].read(), read_photo(data[4].image))
    assert summary(data).endswith("16-bit photos: the values 400 to 4011 become 0 to 255")
    assert data.split(0.5)[1].levels == data[:1].levels == data.labelled().levels == (400, 4011)
    assert data.with_levels((0, 65535)).levels == (0, 65535)


def test_a_set_of_8_bits_has_no_levels(pets: Path) -> None:
    data = load(pets)
    assert data.levels is None
    assert "16-bit" not in summary(data)


def test_a_set_made_in_python(tmp_path: Path) -> None:
    root = deep_set(tmp_path / "set")
    samples = [Sample("a", root / "dark/a.png", (1,)), Sample("b", root / "light/a.png", (2,))]
    assert ImageSet(("dark", "light"), tuple(samples)).levels is None
    assert ImageSet(("dark", "light"), tuple(samples)).with_levels().levels == (400, 3811)
    made = ImageSet.from_samples([(sample.image, "thing") for sample in samples])
    assert made.levels == (400, 3811)


def test_unreadable_photos_do_not_count(tmp_path: Path) -> None:
    root = deep_set(tmp_path / "set")
    whole = (root / "dark/a.png").read_bytes()
    (root / "dark/a.png").write_bytes(whole[:45])
    make_text(root / "dark/b.png", "no photo")
    assert levels_of(sorted(root.rglob("*.png"))) == (3800, 4011)
