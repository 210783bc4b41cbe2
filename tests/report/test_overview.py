"""The overview picture: its size, its columns, its overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.report import overview
from tag2mask.report.colours import class_colours
from tag2mask.report.overview import OverviewRow, save_overview

CLASSES = ("ball", "fish")


def make_row(height: int = 60, width: int = 80, *, name: str = "a", **masks: np.ndarray) -> OverviewRow:
    return OverviewRow(name, np.full((height, width, 3), 90, np.uint8), **masks)


def make_mask(height: int = 60, width: int = 80, label: int = 1) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[10:40, 10:40] = label
    return mask


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def expected_width(columns: int) -> float:
    inches = 2 * overview.MARGIN + overview.SIDE + columns * (overview.CELL + overview.GAP) - overview.GAP
    return inches * overview.DPI


@pytest.mark.parametrize("columns", [("proxy",), ("truth", "prediction"), ("truth", "proxy", "prediction")])
def test_a_column_for_each_kind_of_mask(tmp_path: Path, columns: tuple[str, ...]) -> None:
    path = tmp_path / "overview.png"
    save_overview([make_row(**{column: make_mask() for column in columns})], CLASSES, path)
    assert picture_size(path)[0] == pytest.approx(expected_width(1 + len(columns)), abs=2)
    assert [file.name for file in tmp_path.iterdir()] == ["overview.png"]


def test_a_row_for_each_photo(tmp_path: Path) -> None:
    heights = []
    for count in (1, 2):
        path = tmp_path / f"{count}.png"
        save_overview([make_row(truth=make_mask(), name="n" * 40)] * count, CLASSES, path)
        heights.append(picture_size(path)[1])
    row = (0.75 * overview.CELL + overview.GAP) * overview.DPI
    assert heights[1] - heights[0] == pytest.approx(row, abs=2)


def test_the_picture_shows_photo_and_overlay_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "overview.png"
    mask = np.full((60, 80), 2, np.uint8)
    save_overview([make_row(truth=mask)], CLASSES, path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    row = round((overview.MARGIN + overview.HEADER + 0.3 * overview.CELL) * overview.DPI)
    first = (overview.MARGIN + overview.SIDE + 0.5 * overview.CELL) * overview.DPI
    second = first + (overview.CELL + overview.GAP) * overview.DPI
    np.testing.assert_allclose(pixels[row, round(first)], 90, atol=1)
    np.testing.assert_allclose(pixels[row, round(second)], overview.overlay(make_row().photo, mask)[0, 0], atol=1)


def test_missing_masks_portraits_and_unknown_classes(tmp_path: Path) -> None:
    rows = [
        make_row(proxy=make_mask(label=255)),
        make_row(90, 60, prediction=make_mask(90, 60, label=7)),
        make_row(1, 300),
    ]
    path = tmp_path / "overview.png"
    save_overview(rows, CLASSES, path)
    assert picture_size(path)[0] == pytest.approx(expected_width(3), abs=2)


def test_photos_alone(tmp_path: Path) -> None:
    path = tmp_path / "overview.png"
    save_overview([make_row()], CLASSES, path)
    assert picture_size(path)[0] == pytest.approx(expected_width(1), abs=2)


def test_overlay_colours() -> None:
    photo = np.full((40, 40, 3), 100, np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[:10], mask[30:] = 2, 255
    shown = overview.overlay(photo, mask)
    assert shown.shape == photo.shape
    assert shown.dtype == np.uint8
    assert shown[0, 0].argmax() == class_colours()[2].argmax()
    assert np.ptp(shown[20]) == 0
    assert len(np.unique(shown[30:])) == 2
    assert np.ptp(shown[30:], axis=2).max() == 0


def test_bad_rows_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        save_overview([], CLASSES, tmp_path / "a.png")
    with pytest.raises(ValueError, match="a: truth"):
        save_overview([make_row(truth=make_mask(50, 80))], CLASSES, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
