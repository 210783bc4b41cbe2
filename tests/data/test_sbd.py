"""SBD's .mat files to masks, the list trainaug, and the command that does both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_data import make_photo, make_text
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from tag2mask.data import load, read_mask, voc_palette, write_mask
from tag2mask.data.sbd import convert_sbd, read_sbd, write_trainaug
from tag2mask.errors import DataError

MASK = np.zeros((8, 12), np.uint8)
MASK[2:6, 3:9] = 15
MASK[0, :] = 20


def make_mat(path: Path, mask: np.ndarray = MASK, **options: object) -> Path:
    """Write a file as SBD's are: a struct with boundaries (20 sparse matrices), the mask and its classes."""
    boundaries = np.empty((20, 1), object)
    for index in range(20):
        boundaries[index, 0] = csc_matrix(index + 1 == MASK)
    present = np.setdiff1d(mask, 0)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    truth = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
    savemat(path, {"GTcls": truth}, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    """Three files of SBD, as its archive unpacks: one is of VOC's train, one of VOC's val, one of neither."""
    for name in ("2007_000001", "2007_000003", "2008_000004"):
        make_mat(tmp_path / f"benchmark_RELEASE/dataset/cls/{name}.mat", do_compression=True)
    return tmp_path / "benchmark_RELEASE"


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (1, 1), (1, 3), (2, 2), (375, 500)])
def test_a_file_of_sbd_is_read_as_scipy_does(tmp_path: Path, compressed: bool, size: tuple[int, int]) -> None:
    wanted = np.random.default_rng(0).integers(0, 21, size, np.uint8)
    file = make_mat(tmp_path / "a.mat", wanted, do_compression=compressed)
    mask = read_sbd(file)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, wanted)
    assert np.array_equal(mask, loadmat(file)["GTcls"][0]["Segmentation"][0])


def test_other_variables_are_passed_over(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"a": np.eye(3), "GTcls": {"z": 1.5, "Segmentation": MASK}, "b": "text"})
    assert np.array_equal(read_sbd(tmp_path / "a.mat"), MASK)


@pytest.mark.parametrize("above", ["", "dataset", ".."])
def test_masks_are_palette_pngs(sbd: Path, tmp_path: Path, above: str) -> None:
    assert convert_sbd(sbd / above, tmp_path / "masks") == (3, 3)
    assert len(list((tmp_path / "masks").iterdir())) == 3
    file = tmp_path / "masks/2007_000003.png"
    assert np.array_equal(read_mask(file), MASK)
    with Image.open(file) as image:
        assert image.mode == "P"
        assert image.getpalette() == voc_palette().ravel().tolist()


def test_masks_that_are_there_stay(sbd: Path, tmp_path: Path) -> None:
    finer = np.full((8, 12), 15, np.uint8)
    write_mask(tmp_path / "masks/2007_000001.png", finer)
    assert convert_sbd(sbd, tmp_path / "masks") == (3, 3)
    assert np.array_equal(read_mask(tmp_path / "masks/2007_000001.png"), finer)


def test_corrupt_files_are_reported_and_skipped(sbd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = sbd / "dataset/cls/2007_000003.mat"
    broken.write_bytes(broken.read_bytes()[:200])
    assert convert_sbd(sbd, tmp_path / "masks") == (2, 3)
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert str(broken) in said[0]
    with pytest.raises(DataError, match=r"2007_000003\.mat: corrupt"):
        convert_sbd(sbd, tmp_path / "others", strict=True)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.full((4, 4), 21, np.uint8), "class index 21"),
        (np.zeros((4, 4), np.int32), "uint8 H x W"),
        (np.zeros((4, 4, 3), np.uint8), "uint8 H x W"),
        (np.zeros((0, 4), np.uint8), "uint8 H x W"),
    ],
)
def test_masks_that_are_none_of_sbds(tmp_path: Path, mask: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_sbd(make_mat(tmp_path / "a.mat", mask))


@pytest.mark.parametrize("content", [{"GTcls": "text"}, {"GTcls": np.zeros(3)}, {"GTinst": {"Segmentation": MASK}}])
def test_other_mat_files(tmp_path: Path, content: dict[str, object]) -> None:
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=r"no GTcls\.Segmentation"):
        read_sbd(tmp_path / "a.mat")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    file, compressed = tmp_path / "damaged.mat", data.draw(st.booleans())
    original = tmp_path / f"{compressed}.mat"
    if not original.exists():
        make_mat(original, do_compression=compressed)
    whole = bytearray(original.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(0, 255))
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    problem = f"{file}: "
    try:
        assert read_sbd(file).ndim == 2
    except DataError as error:
        problem = str(error)
    assert problem.startswith(f"{file}: ")
    assert "\n" not in problem


def test_trainaug_is_sbd_and_train_without_val(sbd: Path, voc: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_text(voc / "ImageSets/Segmentation/val.txt", "2007_000003\n")
    file, count = write_trainaug(sbd, voc.parent)
    assert file == voc / "ImageSets/Segmentation/trainaug.txt"
    assert file.read_text().split() == ["2007_000001", "2007_000002", "2008_000004"]
    assert count == 3
    assert "trainaug of VOC 2012 has 10582 photos as published, here are 3" in caplog.text


def test_the_command_makes_a_split_that_loads(sbd: Path, voc: Path, command) -> None:  # type: ignore[no-untyped-def]
    make_text(voc / "ImageSets/Segmentation/val.txt", "2007_000003\n")
    make_photo(voc / "JPEGImages/2008_000004.jpg")
    make_text(voc / "Annotations/2008_000004.xml", "<a><object><name>person</name></object></a>")
    arguments = ("data", "sbd", sbd, "--out", voc / "SegmentationClassAug", "--voc", voc)
    said = command(*arguments)
    assert said.code == 0
    assert "3 photos are listed in" in said.out
    assert "3 of 3 masks are in" in said.out
    train = load(voc, split="trainaug")
    truths = {sample.name: train.truth(sample) for sample in train.samples}
    assert list(truths) == ["2007_000001", "2007_000002", "2008_000004"]
    assert np.array_equal(truths["2008_000004"], MASK)
    assert truths["2007_000001"][0, 0] == 12  # VOC's own mask comes before SBD's
    assert command(*arguments).code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nowhere",), "no cls/*.mat"),
        (("benchmark_RELEASE", "--voc", "nowhere"), "no JPEGImages"),
        (("benchmark_RELEASE", "--voc", "VOCdevkit"), "val.txt: cannot be read"),
    ],
)
def test_what_is_not_there(sbd: Path, voc: Path, tmp_path: Path, monkeypatch, command, arguments, reason) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    said = command("data", "sbd", *arguments, "--out", "masks")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert reason in said.err
    assert not (tmp_path / "masks").exists()
    assert not (voc / "ImageSets/Segmentation/trainaug.txt").exists()
