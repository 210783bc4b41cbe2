"""The image set itself: truth, counts, the summary, and whether it can be learnt from."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from made_data import make_photo

from tag2mask.data import ImageSet, Sample, keep_truth, load, summary, trainable, write_mask
from tag2mask.errors import DataError


def made_set(labels: list[tuple[int, ...]], classes: tuple[str, ...] = ("cat", "dog"), skipped: int = 0) -> ImageSet:
    samples = tuple(Sample(str(n), Path(f"{n}.jpg"), row) for n, row in enumerate(labels))
    return ImageSet(classes, samples, tuple(f"x{n}.jpg: cannot be read" for n in range(skipped)), labels_from="t.csv")


@pytest.mark.parametrize(("labels", "said"), [([(1,), (1,), (2,)], r"'dog' \(1\)"), ([(), ()], "no photo has a class")])
def test_a_class_with_one_photo(labels: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(DataError, match=f"t.csv: too few photos.*: {said}; give") as error:
        trainable(made_set(labels))
    assert "\n" not in str(error.value)


def test_two_photos_of_each_class_are_enough() -> None:
    data = made_set([(1, 2), (1, 2)])
    assert trainable(data) is data


def test_a_class_without_a_photo_is_left_out(tmp_path: Path) -> None:
    """Its pixels become background, and the classes after it move up, in mask files and in drawn truth."""
    photos = [make_photo(tmp_path / f"{name}.png") for name in "ab"]
    mask = np.zeros((8, 12), np.uint8)
    mask[0], mask[1], mask[2] = 1, 2, 255
    write_mask(tmp_path / "m.png", mask)
    wanted = [[0] * 12, [1] * 12, [255] * 12]
    samples = (Sample("a", photos[0], (2,), tmp_path / "m.png"), Sample("b", photos[1], (2,)))
    data = trainable(ImageSet(("cat", "dog"), samples, draw_truth=lambda _: mask, labels_from="t.csv"))
    assert data.classes == ("dog",)
    assert [sample.labels for sample in data] == [(1,), (1,)]
    assert data.remarks == ("left out, since no photo has them: 'cat' (1 of 2 classes)",)
    assert [data.truth(sample)[:3].tolist() for sample in data] == [wanted, wanted]
    assert data.remarks[0] in summary(data)
    kept = keep_truth(data, tmp_path / "truth")
    assert kept.truth(kept[1])[:3].tolist() == wanted
    write_mask(tmp_path / "m.png", np.full((8, 12), 3, np.uint8))
    with pytest.raises(DataError, match="class index 3, but there are 2 classes"):
        data.truth(data[0])


def test_classes_can_be_put_in_another_order(tmp_path: Path) -> None:
    sample = Sample("a", make_photo(tmp_path / "a.png"), (1, 3), tmp_path / "m.png")
    write_mask(tmp_path / "m.png", np.arange(96, dtype=np.uint8).reshape(8, 12) % 4)
    data = ImageSet(("cat", "dog", "owl"), (sample,)).with_classes(("owl", "cat", "dog")).with_classes(("owl", "dog"))
    assert (data.classes, data[0].labels) == (("owl", "dog"), (1,))
    assert data.truth(data[0])[0, :4].tolist() == [0, 0, 2, 1]
    with pytest.raises(DataError, match="'dgo' is not among the classes; did you mean 'dog'"):
        data.with_classes(["dgo"])


def test_summary() -> None:
    text = summary(made_set([(1,), (1, 2), ()], skipped=5))
    assert text.splitlines() == [
        "3 photos of 2 classes, tags from t.csv",
        "1 with one tag, 1 with several, 1 with none (background only)",
        "photos per class:",
        "  cat  2  dog  1",
        "left out: 5",
        "  5, such as x0.jpg: cannot be read",
    ]


@pytest.mark.parametrize("length", [1, 10, 33, 197])
def test_summary_fits_80_columns(length: int) -> None:
    classes = tuple(f"{n:03}" + "x" * length for n in range(30))
    lines = summary(made_set([(1,), (2,)] * 500, classes)).splitlines()
    assert all(len(line) <= 80 for line in lines) or length == 197
    assert all("".join(lines).count(name) == 1 for name in classes)


def test_truth_of_another_size(tmp_path: Path) -> None:
    sample = Sample("a", make_photo(tmp_path / "a.png"), (1,), tmp_path / "m.png")
    write_mask(tmp_path / "m.png", np.zeros((12, 8), np.uint8))
    with pytest.raises(DataError, match=r"m.png: the mask has 12 x 8 .* its photo a.png 8 x 12; save"):
        ImageSet(("cat",), (sample,)).truth(sample)


def test_truth_of_an_unknown_class(tmp_path: Path) -> None:
    sample = Sample("a", make_photo(tmp_path / "a.png"), (1,), tmp_path / "m.png")
    write_mask(tmp_path / "m.png", np.full((8, 12), 255, np.uint8))
    assert (ImageSet(("cat",), (sample,)).truth(sample) == 255).all()
    write_mask(tmp_path / "m.png", np.full((8, 12), 2, np.uint8))
    with pytest.raises(DataError, match=r"class index 2, but there are 1 classes; use"):
        ImageSet(("cat",), (sample,)).truth(sample)


def test_the_set_can_be_sent_to_workers() -> None:
    image_set = made_set([(1,)])
    assert pickle.loads(pickle.dumps(image_set)) == image_set


def test_load_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file; check the path"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="neither a folder of photos nor a COCO JSON"):
        load(tmp_path / "notes.txt")


# --- A sequence of photos ---


def test_iteration_and_indexing() -> None:
    data = made_set([(1,), (2,), (1, 2)])
    assert [sample.name for sample in data] == ["0", "1", "2"]
    assert data[0].name == "0"
    assert data[-1].labels == (1, 2)
    part = data[1:]
    assert isinstance(part, ImageSet)
    assert (part.classes, part.labels_from, [sample.name for sample in part]) == (data.classes, "t.csv", ["1", "2"])
    with pytest.raises(IndexError):
        data[3]


def test_text_becomes_paths_and_labels_are_put_in_order() -> None:
    sample = Sample("a", "a.jpg", [np.int64(2), 1, 2], "a.png")  # type: ignore[arg-type]
    assert sample == Sample("a", Path("a.jpg"), (1, 2), Path("a.png"))
    assert all(type(label) is int for label in sample.labels)
    made = ImageSet(["cat", "dog"], [sample])  # type: ignore[arg-type]
    assert (made.classes, made.samples) == (("cat", "dog"), (sample,))


def test_a_subset_knows_no_origin(pets: Path) -> None:
    assert load(pets).origin
    assert load(pets)[:2].origin is None


# --- What is refused when a set is made ---


@pytest.mark.parametrize(("label", "said"), [(0, "label 0"), (-1, "label -1"), (3, "label 3")])
def test_labels_start_at_1(label: int, said: str) -> None:
    with pytest.raises(DataError, match=rf"photo '1' has the {said}, but labels start at 1 .* give 'cat' the number 1"):
        made_set([(1,), (1, label)])


@pytest.mark.parametrize("labels", ["dog", ["dog"], [1.0], 1, [None]])
def test_labels_are_numbers(labels: object) -> None:
    with pytest.raises(DataError, match=r"photo 'a': labels are a list of class numbers, .* use ImageSet.from_samples"):
        Sample("a", Path("a.jpg"), labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("dog", "classes are a list of names"),
        ((), "no class except background"),
        (("dog", "dog"), "'dog' occurs twice"),
        (("dog", ""), "'' cannot be the name of a class"),
        (("dog", 3), "3 is not the name of a class"),
        (("background", "dog"), "'background' is always 0; remove it"),
        (tuple(map(str, range(255))), "255 classes"),
    ],
)
def test_wrong_classes(classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        ImageSet(classes, ())
    assert "\n" not in str(error.value)


def test_no_photos() -> None:
    empty = made_set([])
    assert len(empty) == 0
    assert empty.images_per_class() == {"cat": 0, "dog": 0}
    with pytest.raises(DataError, match=r"^t.csv: the image set has no photos; give it some$"):
        trainable(empty)


# --- Lists of photos and tags ---


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [make_photo(tmp_path / name) for name in ("x/a.jpg", "x/b.jpg", "y/a.jpg")]


def test_from_samples(photos: list[Path]) -> None:
    data = ImageSet.from_samples([(photos[0], ["dog"]), (str(photos[1]), "cat"), (photos[2], [])])
    assert data.classes == ("cat", "dog")
    assert [(s.name, s.image, s.labels) for s in data] == [
        ("x/a", photos[0], (2,)), ("x/b", photos[1], (1,)), ("y/a", photos[2], ()),
    ]  # fmt: skip
    ordered = ImageSet.from_samples([(photos[0], ["dog", "dog"]), (photos[1], ["background"])], ["dog", "cow", "cat"])
    assert [(s.name, s.labels) for s in ordered] == [("a", (1,)), ("b", ())]


def test_from_samples_with_masks(photos: list[Path], tmp_path: Path) -> None:
    rows = [(photo, ["dog"]) for photo in photos]
    write_mask(tmp_path / "masks/x/b.PNG", np.ones((8, 12), np.uint8))
    mask = tmp_path / "masks/x/b.PNG"
    assert [s.mask for s in ImageSet.from_samples(rows, masks=tmp_path / "masks")] == [None, mask, None]
    data = ImageSet.from_samples(rows, masks=[None, None, str(mask)])
    assert [s.mask for s in data] == [None, None, mask]
    assert (data.truth(data[2]) == 1).all()
    for masks, said in (
        ([None], "1 masks for 3 photos"),
        ([None, None, "x.png"], "x.png: no such mask"),
        ("nowhere", "nowhere: no such folder of masks"),
    ):
        with pytest.raises(DataError, match=said):
            ImageSet.from_samples(rows, masks=masks)


def test_from_samples_refuses(photos: list[Path], tmp_path: Path) -> None:
    make_photo(tmp_path / "x/a.png")
    for rows, classes, said in (
        ([], None, "no photos were given"),
        ([(photos[0], ["dgo"])], ["dog"], "tag 'dgo' is not among the classes; did you mean 'dog'"),
        ([(photos[0], [0])], ["dog"], "tags are names of classes, not 0"),
        ([(photos[0], "dog"), (tmp_path / "x/a.png", "dog")], None, "two photos have the name 'a'"),
        ([(photos[0], "dog"), (photos[0], "cat")], None, "two photos have the name 'a'"),
        ([(tmp_path / "z.jpg", "dog")], None, "z.jpg: no such file"),
    ):
        with pytest.raises(DataError, match=said):
            ImageSet.from_samples(rows, classes)  # type: ignore[arg-type]


def test_from_samples_leaves_unreadable_photos_out(photos: list[Path]) -> None:
    photos[1].write_bytes(b"no photo")
    rows = [(photo, ["dog"]) for photo in photos]
    data = ImageSet.from_samples(rows)
    assert [s.name for s in data] == ["x/a", "y/a"]
    assert len(data.skipped) == 1
    with pytest.raises(DataError, match=r"b.jpg: the photo cannot be read"):
        ImageSet.from_samples(rows, strict=True)


# --- Truth ---


def test_drawn_truth_is_checked_and_not_kept_where_labels_are_of_no_file(tmp_path: Path) -> None:
    sample = Sample("a", make_photo(tmp_path / "a.png"), (1,))
    for value in (1, 0):
        data = ImageSet(("cat",), (sample,), draw_truth=lambda _, value=value: np.full((8, 12), value, np.uint8))
        assert (keep_truth(data, tmp_path / "truth").truth(sample) == value).all()
    wrong = ImageSet(("cat",), (sample,), draw_truth=lambda _: np.full((8, 12), 2, np.uint8))
    with pytest.raises(DataError, match=r"a.png: class index 2, but there are 1 classes"):
        wrong.truth(sample)
    small = ImageSet(("cat",), (sample,), draw_truth=lambda _: np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"a.png: the drawn truth has 4 x 4 pixels"):
        small.truth(sample)


# --- The summary's remarks ---


def test_tags_that_nothing_tells_apart_are_said() -> None:
    said = "'cat', 'dog' are on the same photos, so that nothing tells them apart"
    assert said in summary(made_set([(1, 2), (1, 2), (1, 2), ()]))
    assert said not in summary(made_set([(1, 2), (1, 2), (1, 2), (1,)]))
    assert said in summary(made_set([(1, 2), (1, 2)]))
    assert said not in summary(made_set([(1, 2)]))


def test_a_tag_of_two_words_in_a_table_without_separators_is_said(tmp_path: Path) -> None:
    for name in "abcd":
        make_photo(tmp_path / f"{name}.jpg")
    rows = "".join(f"{name},traffic light\n" for name in "abc")
    (tmp_path / "labels.csv").write_text(f"image,labels\n{rows}d,dog\n")
    assert "if this is one tag, separate tags by ; in the table" in summary(load(tmp_path))
    (tmp_path / "labels.csv").write_text(f"image,labels\n{rows}d,dog;\n")
    assert load(tmp_path).classes == ("dog", "traffic light")
