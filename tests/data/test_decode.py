"""Photos of every mode, turned, truncated and corrupt; masks to disk and back."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from tag2mask.data import decode, photo_size, read_mask, read_photo, voc_palette, write_mask
from tag2mask.errors import DataError

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def one_line(error: pytest.ExceptionInfo[DataError], path: Path) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert ";" in message
    return message


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_rgb_is_unchanged(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = save(tmp_path / f"x.{suffix}", Image.fromarray(pixels))
    assert np.array_equal(read_photo(path), pixels)
    assert photo_size(path) == (5, 7)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "gif"])
def test_lossy_formats_are_near(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"x.{suffix}", Image.new("RGB", (7, 5), (200, 100, 50)))
    assert np.abs(read_photo(path).astype(int) - (200, 100, 50)).max() <= 4


def test_grey(tmp_path: Path) -> None:
    photo = read_photo(save(tmp_path / "x.png", Image.fromarray(GREY)))
    assert photo.dtype == np.uint8
    assert np.array_equal(photo, np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    wide = GREY.astype(np.uint16) * 257
    photo = read_photo(save(tmp_path / f"x.{suffix}", Image.fromarray(wide)))
    assert np.array_equal(photo[..., 0], GREY)


def test_32_bit_integers_in_16_bit_range_are_scaled(tmp_path: Path) -> None:
    photo = read_photo(save(tmp_path / "x.tif", Image.fromarray(GREY.astype(np.int32) * 257)))
    assert np.array_equal(photo[..., 2], GREY)


@pytest.mark.parametrize("pixels", [np.full((4, 4), -1, np.int32), np.full((4, 4), 0.5, np.float32)])
def test_pixels_of_no_photo_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    path = save(tmp_path / "x.tif", Image.fromarray(pixels))
    with pytest.raises(DataError, match="8 or 16 bits") as error:
        read_photo(path)
    one_line(error, path)


def test_one_bit(tmp_path: Path) -> None:
    photo = read_photo(save(tmp_path / "x.png", Image.fromarray(GREY > 127)))
    assert np.array_equal(photo[..., 0], np.where(GREY > 127, 255, 0))


def test_cmyk(tmp_path: Path) -> None:
    photo = read_photo(save(tmp_path / "x.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100))
    assert (photo[..., 0] > 250).all()
    assert (photo[..., 1:] < 5).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    alpha = Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    image = Image.merge(mode, (Image.new("L", (3, 1), 0),) * (len(mode) - 1) + (alpha,))
    photo = read_photo(save(tmp_path / "x.png", image))
    assert photo[0, :, 0].tolist() == [255, 127, 0]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    plain = read_photo(save(tmp_path / "plain.png", image))
    clear = read_photo(save(tmp_path / "clear.png", image, transparency=1))
    assert plain.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert clear.tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


TURNED = {
    1: "abc def",
    2: "cba fed",
    3: "fed cba",
    4: "def abc",
    5: "ad be cf",
    6: "da eb fc",
    7: "fc eb da",
    8: "cf be ad",
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    letters = np.array([list(b"abc"), list(b"def")], np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    blocks = Image.fromarray(np.kron(letters, np.ones((16, 16), np.uint8))).convert("RGB")
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpg" else {}
    path = save(tmp_path / f"x.{suffix}", blocks, exif=exif, **options)
    photo = read_photo(path)
    wanted = np.array([list(row.encode()) for row in TURNED[orientation].split()])
    assert np.abs(photo[8::16, 8::16, 0] - wanted).max() <= (1 if suffix == "jpg" else 0)
    assert photo_size(path) == photo.shape[:2]


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_broken_exif_is_no_broken_photo(tmp_path: Path, exif: bytes) -> None:
    path = save(tmp_path / "x.jpg", Image.new("RGB", (6, 4)), exif=exif)
    assert read_photo(path).shape == (4, 6, 3)
    assert photo_size(path) == (4, 6)


@given(size=st.tuples(st.integers(1, 300), st.integers(1, 300)), draft=st.integers(1, 300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_draft_is_large_enough(tmp_path: Path, size: tuple[int, int], draft: int) -> None:
    path = save(tmp_path / "x.jpg", Image.new("RGB", size))
    assert min(read_photo(path, draft_size=draft).shape[:2]) >= min(draft, *size)


def test_draft_is_small(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", Image.new("RGB", (1600, 800)))
    assert read_photo(path, draft_size=100).shape == (100, 200, 3)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.png", Image.new("L", (40, 30)))
    monkeypatch.setattr(decode, "MAX_PIXELS", 1199)
    for reader in (read_photo, photo_size, read_mask):
        with pytest.raises(DataError, match="million pixels") as error:
            reader(path)
        one_line(error, path)


def test_a_real_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    whole = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(whole, format="PNG")
    path.write_bytes(whole.getvalue())
    with pytest.raises(DataError, match="million pixels"):
        read_photo(path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"no photo", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_photo(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    for reader in (read_photo, photo_size, read_mask):
        with pytest.raises(DataError, match="cannot be read") as error:
            reader(path)
        one_line(error, path)


def test_missing_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "x.jpg", tmp_path):
        for reader in (read_photo, photo_size, read_mask):
            with pytest.raises(DataError, match="no such file") as error:
                reader(path)
            one_line(error, path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"x.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot be read") as error:
        read_photo(path)
    one_line(error, path)


def encoded(suffix: str) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8))
    if suffix == "png":
        image.putpalette(voc_palette().tobytes())
    whole = io.BytesIO()
    image.save(whole, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix), exif=Image.Exif())
    return whole.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif"])
@given(
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0, 2),
)
@FUZZ
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, suffix: str, damage: list[tuple[float, int]], keep: float
) -> None:
    whole = bytearray(encoded(suffix))
    for place, value in damage:
        whole[int(place * (len(whole) - 1))] ^= value
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(whole[: int(keep * len(whole))])
    for reader in (read_photo, photo_size, read_mask):
        try:
            reader(path)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017


# --- Masks ---


def test_palette_has_the_known_colours() -> None:
    known = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128),
        6: (0, 128, 128), 7: (128, 128, 128), 8: (64, 0, 0), 9: (192, 0, 0), 10: (64, 128, 0),
        11: (192, 128, 0), 12: (64, 0, 128), 13: (192, 0, 128), 14: (64, 128, 128), 15: (192, 128, 128),
        16: (0, 64, 0), 17: (128, 64, 0), 18: (0, 192, 0), 19: (128, 192, 0), 20: (0, 64, 128),
        255: (224, 224, 192),
    }  # fmt: skip
    palette = voc_palette()
    assert palette.dtype == np.uint8
    assert {index: tuple(palette[index].tolist()) for index in known} == known
    assert len(np.unique(palette, axis=0)) == 256


def test_palette_is_that_of_the_real_masks(real_photos: Path) -> None:
    mask = next((real_photos / "voc2012/SegmentationClass").glob("*.png"))
    with Image.open(mask) as image:
        assert image.getpalette() == voc_palette().ravel().tolist()


@given(st.binary(min_size=1, max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_to_disk_and_back(tmp_path: Path, values: bytes) -> None:
    mask = np.frombuffer(values, np.uint8).reshape(1, -1)
    write_mask(tmp_path / "new/folder/m.png", mask)
    assert np.array_equal(read_mask(tmp_path / "new/folder/m.png"), mask)
    assert os.listdir(tmp_path / "new/folder") == ["m.png"]


def test_a_written_mask_has_the_palette(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", GREY)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image.convert("RGB")), voc_palette()[GREY])


def test_masks_in_other_modes(tmp_path: Path) -> None:
    assert np.array_equal(read_mask(save(tmp_path / "grey.png", Image.fromarray(GREY))), GREY)
    assert np.array_equal(read_mask(save(tmp_path / "bit.png", Image.fromarray(GREY > 9))), GREY > 9)
    assert np.array_equal(read_mask(save(tmp_path / "rgb.png", Image.fromarray(voc_palette()[GREY]))), GREY)
    assert np.array_equal(read_mask(save(tmp_path / "wide.png", Image.fromarray(GREY.astype(np.uint16)))), GREY)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((2, 2, 3), 77, np.uint8), r"colour \(77, 77, 77\)"),
        (np.full((2, 2), 256, np.uint16), "8-bit class number"),
        (np.full((2, 2, 2), 9, np.uint8), "8-bit class number"),
    ],
)
def test_masks_of_no_class_are_refused(tmp_path: Path, pixels: np.ndarray, reason: str) -> None:
    path = save(tmp_path / "m.png", Image.fromarray(pixels))
    with pytest.raises(DataError, match=reason) as error:
        read_mask(path)
    one_line(error, path)


def test_jpeg_masks_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", Image.fromarray(GREY), format="JPEG")
    with pytest.raises(DataError, match="no PNG, BMP, TIFF file"):
        read_mask(path)


@pytest.mark.parametrize(
    ("name", "mode"), [("m.bmp", "L"), ("m.BMP", "P"), ("m.tif", "L"), ("m.TIFF", "P"), ("m.png", "1")]
)
def test_masks_in_formats_that_keep_every_value(tmp_path: Path, name: str, mode: str) -> None:
    values = (
        np.array([[0, 1, 1], [0, 0, 1]], np.uint8) if mode == "1" else np.array([[0, 1, 2], [20, 255, 254]], np.uint8)
    )
    image = Image.fromarray(values.astype(bool)) if mode == "1" else Image.fromarray(values)
    if mode == "P":
        image.putpalette(voc_palette().tobytes())
    image.save(tmp_path / name)
    assert read_mask(tmp_path / name).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, "it is a HEIC file, whatever its name says"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 20, "it is an AVIF file, whatever its name says|truncated or corrupt"),
        (b"\n<!DOCTYPE html><p>404", "it is a web page, not a photo: the download failed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS; fetch the file"),
        (b"%PDF-1.7", "it is a PDF"),
        (b"no photo", "no JPEG, PNG, WEBP, BMP, TIFF, GIF"),
    ],
)
def test_what_is_no_photo_is_called_by_its_name(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=f"a.jpg: the photo cannot be read .({said})"):
        read_photo(tmp_path / "a.jpg")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_whatever_its_name(tmp_path: Path) -> None:
    for name in ("a.avif", "b.jpg"):
        path = save(tmp_path / name, Image.new("RGB", (12, 8), (200, 10, 30)), format="AVIF")
        assert np.abs(read_photo(path).astype(int) - (200, 10, 30)).max() < 12
        assert photo_size(path) == (8, 12)


def test_writing_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mask(tmp_path / "m.png", GREY)

    def full_disk(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(DataError, match="No space left") as error:
        write_mask(tmp_path / "m.png", GREY * 0)
    one_line(error, tmp_path / "m.png")
    assert os.listdir(tmp_path) == ["m.png"]
    assert np.array_equal(read_mask(tmp_path / "m.png"), GREY)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_mask(tmp_path / "file/m.png", GREY)


@pytest.mark.parametrize("mask", [GREY.astype(int), GREY[0]])
def test_only_masks_are_written(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 array H x W"):
        write_mask(tmp_path / "m.png", mask)
