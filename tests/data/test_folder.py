"""Any folder of photos, as newcomers have them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_data import make_photo, make_text
from PIL import Image

from tag2mask.data import ImageSet, load, load_folder, photos_in, summary, write_mask
from tag2mask.errors import DataError


def labels_of(image_set: ImageSet) -> dict[str, tuple[int, ...]]:
    return {sample.name: sample.labels for sample in image_set.samples}


def fails(path: Path, reason: str, **options: str | Path | bool) -> str:
    with pytest.raises(DataError, match=reason) as error:
        load_folder(path, **options)  # type: ignore[arg-type]
    message = str(error.value)
    assert "\n" not in message
    assert ";" in message
    return message


def test_table_in_the_folder(pets: Path) -> None:
    image_set = load_folder(pets)
    assert image_set.classes == ("cat", "dog")
    assert labels_of(image_set) == {"a": (1,), "b": (1, 2), "more/c": (2,)}
    assert [sample.image for sample in image_set.samples] == [
        pets / "a.jpg",
        pets / "b.png",
        pets / "more/c.JPG",
    ]
    assert image_set.labels_from == str(pets / "labels.csv")
    assert image_set.skipped == ()
    assert all(image_set.truth(sample) is None for sample in image_set.samples)


def test_table_given(pets: Path, tmp_path: Path) -> None:
    table = make_text(tmp_path / "other.json", '{"a": ["bird"], "b": ["bird"], "c": ["background"]}')
    assert labels_of(load_folder(pets, labels=table)) == {"a": (1,), "b": (1,), "more/c": ()}
    shutil.move(table, pets / "other.json")
    assert load_folder(pets, labels="other.json").classes == ("bird",)


def test_class_folders(tmp_path: Path) -> None:
    for name in ("dog/1.jpg", "cat/1.jpg", "cat/old/2.bmp", "background/3.tif"):
        make_photo(tmp_path / name)
    image_set = load_folder(tmp_path)
    assert image_set.classes == ("cat", "dog")
    assert labels_of(image_set) == {"background/3": (), "cat/1": (1,), "cat/old/2": (1,), "dog/1": (2,)}
    assert image_set.labels_from == "class folders"


def test_class_list_fixes_the_order(pets: Path) -> None:
    make_text(pets / "classes.txt", "background\ndog\nhot dog\ncat\n")
    image_set = load_folder(pets)
    assert image_set.classes == ("dog", "hot dog", "cat")
    assert labels_of(image_set)["b"] == (1, 3)


@pytest.mark.parametrize("folder", ["photos", "images"])
def test_photos_and_masks_apart(tmp_path: Path, folder: str) -> None:
    make_photo(tmp_path / folder / "a.jpg")
    make_photo(tmp_path / "elsewhere/b.jpg")
    make_text(tmp_path / "tags.csv", f"image,labels\n{folder}/a.jpg,cat\n")
    mask = np.ones((8, 12), np.uint8)
    write_mask(tmp_path / "masks/a.png", mask)
    image_set = load_folder(tmp_path)
    assert labels_of(image_set) == {"a": (1,)}
    assert np.array_equal(image_set.truth(image_set.samples[0]), mask)


def test_masks_are_no_photos(pets: Path) -> None:
    write_mask(pets / "masks/more/c.png", np.zeros((8, 12), np.uint8))
    write_mask(pets / "masks/c.png", np.zeros((8, 12), np.uint8))
    image_set = load_folder(pets)
    assert [sample.mask is not None for sample in image_set.samples] == [False, False, True]
    assert image_set.skipped == (f"{pets / 'masks/c.png'}: a mask of no photo; give it its photo's name",)


@pytest.mark.parametrize("place", ["val.txt", "splits/val.txt"])
def test_split_keeps_the_classes_of_all(pets: Path, place: str) -> None:
    make_text(pets / place, "c.JPG\n\n")
    image_set = load_folder(pets, split="val")
    assert image_set.classes == ("cat", "dog")
    assert labels_of(image_set) == {"more/c": (2,)}
    assert labels_of(load_folder(pets, split=pets / place)) == {"more/c": (2,)}


def test_photos_outside_of_the_split_need_no_tags(pets: Path) -> None:
    make_photo(pets / "untagged.webp")
    make_text(pets / "val.txt", "a\nb\na\n")
    assert list(labels_of(load_folder(pets, split="val"))) == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"no photo"])
def test_unreadable_photos_are_left_out(pets: Path, content: bytes) -> None:
    (pets / "a.jpg").write_bytes(content)
    image_set = load_folder(pets)
    assert list(labels_of(image_set)) == ["b", "more/c"]
    assert len(image_set.skipped) == 1
    assert str(pets / "a.jpg") in image_set.skipped[0]
    fails(pets, "a.jpg: the photo cannot be read", strict=True)


def test_no_readable_photo(pets: Path) -> None:
    for name in ("a.jpg", "b.png", "more/c.JPG"):
        (pets / name).write_bytes(b"")
    fails(pets, "none of the 3 photos can be used")


def test_missing_and_empty_folder(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "no such photo or folder")
    fails(tmp_path, "no photos in this folder")


def test_photos_without_tags(pets: Path) -> None:
    make_photo(pets / "d.jpg")
    fails(pets, "labels.csv: no tags for 1 of the photos: 'd'; .*'background'")
    make_text(pets / "labels.csv", "image,labels\na.jpg,cat\nb,\nc,dog\nd,dog\n")
    fails(pets, "no tags for 1 of the photos: 'b'")


def test_no_tags_at_all(pets: Path) -> None:
    (pets / "labels.csv").unlink()
    fails(pets, "no tags for 2 of the photos: 'a', 'b'; write labels.csv")


def test_tags_for_no_photo(pets: Path) -> None:
    (pets / "b.png").unlink()
    fails(pets, "labels.csv: no photo for 1 of the entries: 'b'")


def test_background_only(pets: Path) -> None:
    make_text(pets / "labels.csv", "image,labels\na,background\nb,background\nc,background\n")
    fails(pets, "no class except background")


def test_one_name_twice(pets: Path) -> None:
    make_photo(pets / "a.png")
    fails(pets, "a.jpg and a.png have the same name")


def test_missing_table_and_split(pets: Path) -> None:
    make_text(pets / "train.txt", "a\n")
    fails(pets, "no such tag table", labels="lables.csv")
    fails(pets, "no such split.*'train'", split="trian")


def test_wrong_split(pets: Path) -> None:
    make_text(pets / "val.txt", "a\nnobody\n../cows/x.png\n")
    fails(pets, "val.txt: no photo for 2 of the entries: 'nobody'", split="val")
    make_text(pets / "val.txt", "\n \n")
    fails(pets, "val.txt: the list is empty", split="val")


def test_wrong_class_list(pets: Path) -> None:
    make_text(pets / "classes.txt", "cat\ndogs\n")
    fails(pets, "tag 'dog' is not among .*classes.txt; did you mean 'dogs'")
    make_text(pets / "classes.txt", "cat\ndog\ncat\n")
    fails(pets, "classes.txt: class 'cat' occurs twice")


def test_links_in_circles(pets: Path) -> None:
    try:
        (pets / "more/loop").symlink_to(pets, target_is_directory=True)
        (pets / "gone.jpg").symlink_to(pets / "nowhere.jpg")
    except OSError:
        pytest.skip("this system makes no links")
    make_text(pets / "labels.csv", "image,labels\na,cat\nb,cat\nc,dog\ngone,dog\n")
    image_set = load_folder(pets)
    assert list(labels_of(image_set)) == ["a", "b", "more/c"]
    assert "gone.jpg: no such file" in image_set.skipped[0]


def test_linked_photos(pets: Path, tmp_path: Path) -> None:
    try:
        (tmp_path / "linked").symlink_to(pets, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    assert len(load_folder(tmp_path / "linked")) == 3


def test_hidden_files_are_passed_over(pets: Path) -> None:
    make_photo(pets / ".thumbs/a.jpg")
    (pets / "._a.jpg").write_bytes(b"")
    assert len(load_folder(pets)) == 3


def test_photos_in(pets: Path) -> None:
    samples = photos_in(pets)
    assert [(sample.name, sample.image) for sample in samples] == [
        ("a", pets / "a.jpg"),
        ("b", pets / "b.png"),
        ("more/c", pets / "more/c.JPG"),
    ]
    assert [(sample.name, sample.labels) for sample in photos_in(pets / "more/c.JPG")] == [("c", ())]
    with pytest.raises(DataError, match="no such photo or folder"):
        photos_in(pets / "nowhere")


def test_load_finds_a_folder(pets: Path) -> None:
    assert load(pets) == load_folder(pets)
    assert load(str(pets), labels="labels.csv", split=None) == load_folder(pets)


def test_masks_whose_suffix_is_in_capitals(pets: Path) -> None:
    write_mask(pets / "masks/a.PNG", np.ones((8, 12), np.uint8))
    write_mask(pets / "masks/more/c.Png", np.ones((8, 12), np.uint8))
    write_mask(pets / "masks/x.PNG", np.ones((8, 12), np.uint8))
    image_set = load_folder(pets)
    masks = [sample.mask for sample in image_set]
    assert masks == [pets / "masks/a.PNG", None, pets / "masks/more/c.Png"]
    assert image_set.skipped == (f"{pets / 'masks/x.PNG'}: a mask of no photo; give it its photo's name",)


def test_masks_of_a_format_that_loses_values_are_told(pets: Path) -> None:
    mask = make_photo(pets / "masks/a.JPG")
    assert load_folder(pets).skipped == (f"{mask}: .jpg is not read as a mask; save it as PNG",)


def test_masks_in_formats_that_keep_values_are_read(pets: Path) -> None:
    values = np.full((8, 12), 2, np.uint8)
    for name in ("a.bmp", "b.TIF"):
        (pets / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(pets / "masks" / name)
    image_set = load_folder(pets)
    assert [None if sample.mask is None else sample.mask.name for sample in image_set] == ["a.bmp", "b.TIF", None]
    assert np.array_equal(image_set.truth(image_set[1]), values)
    write_mask(pets / "masks/a.png", values)
    fails(pets, "a.bmp and a.png have the same name; rename one of them")


def test_images_that_are_not_read_are_told(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo = make_text(pets / "more/d.HEIC", "of a telephone")
    note = f"{photo}: .heic is not read; save the photo as JPEG or PNG"
    assert load_folder(pets).skipped == (note,)
    assert len(photos_in(pets)) == 3
    assert f"skipped: 1 images, the first is {note}" in caplog.text


# --- Folders as people have them ---


@pytest.mark.parametrize("name", ["tags.tsv", "labels.tsv"])
def test_a_table_of_tabs_is_found(tmp_path: Path, name: str) -> None:
    make_photo(tmp_path / "a.jpg")
    make_text(tmp_path / name, "image\tlabels\na.jpg\thot dog,cup\n")
    assert load_folder(tmp_path).classes == ("cup", "hot dog")


def test_every_suffix_of_a_format_that_is_read(tmp_path: Path) -> None:
    formats = {"a.jfif": "JPEG", "b.JPE": "JPEG", "c.gif": "GIF", "d.JPEG": "JPEG"}
    for name, kind in formats.items():
        (tmp_path / "dog").mkdir(exist_ok=True)
        Image.new("RGB", (12, 8), (9, 99, 199)).save(tmp_path / "dog" / name, format=kind)
    assert labels_of(load_folder(tmp_path)) == {f"dog/{name[0]}": (1,) for name in formats}
    assert all(sample.read().shape == (8, 12, 3) for sample in photos_in(tmp_path))


def test_a_class_folder_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    make_photo(tmp_path / "dog/1.jpg")
    for number in range(7):
        make_text(tmp_path / f"owl/{number}.heic", "of a telephone")
    make_text(tmp_path / "dog/x.dng", "raw")
    lines = summary(load_folder(tmp_path)).splitlines()
    assert lines[-4:] == [
        "left out: 8",
        f"  7, such as {tmp_path / 'owl/0.heic'}: .heic is not read; save the photo as JPEG or PNG",
        f"  {tmp_path / 'dog/x.dng'}: .dng is not read; save the photo as JPEG or PNG",
        "no class from 'owl': no photo in these folders can be read",
    ]
    (tmp_path / "dog/1.jpg").unlink()
    fails(tmp_path, "no photos in this folder that can be read .8 that cannot; .*x.dng")


def test_train_and_val_are_no_classes(tmp_path: Path) -> None:
    for name in ("train/dog/1.jpg", "train/cat/1.jpg", "Val/dog/2.jpg"):
        make_photo(tmp_path / name)
    image_set = load_folder(tmp_path)
    assert image_set.classes == ("cat", "dog")
    assert labels_of(image_set) == {"Val/dog/2": (2,), "train/cat/1": (1,), "train/dog/1": (2,)}
    assert image_set.remarks == (
        "the folders Val, train are parts of the data, not classes; --split names one of them",
    )
    assert load_folder(tmp_path, split="train").classes == ("cat", "dog")
    assert list(labels_of(load_folder(tmp_path, split="train"))) == ["train/cat/1", "train/dog/1"]
    make_text(tmp_path / "train.txt", "2\n")
    assert list(labels_of(load_folder(tmp_path, split="train"))) == ["Val/dog/2"]
    fails(tmp_path, "no such split", split="test")


def test_folders_of_yolo_and_roboflow_are_no_classes(tmp_path: Path) -> None:
    for name in ("images/train/1.jpg", "images/val/2.jpg"):
        make_photo(tmp_path / name)
    fails(
        tmp_path, "folders train, val are parts of a data set, not classes: no tags for 2 photos, as 'train/1'; write"
    )
    make_text(tmp_path / "labels.csv", "image,labels\ntrain/1.jpg,dog\n2.jpg,cat\n")
    assert list(labels_of(load_folder(tmp_path, split="val"))) == ["val/2"]
    make_text(tmp_path / "labels.csv", "").unlink()
    make_text(tmp_path / "_classes.csv", "filename, dog, cat\n1.jpg, 1, 0\n2.jpg, 0, 1\n")
    assert labels_of(load_folder(tmp_path)) == {"train/1": (2,), "val/2": (1,)}


def test_train_beside_other_class_folders_is_a_class(tmp_path: Path) -> None:
    for name in ("train/1.jpg", "bus/1.jpg"):
        make_photo(tmp_path / name)
    assert load_folder(tmp_path).classes == ("bus", "train")


def test_run_folders_are_no_photos(pets: Path) -> None:
    make_photo(pets / "runs/mine/predictions/a.png")
    make_text(pets / "runs/mine/config.yaml", "tag2mask: 0.1.0\ndata: {path: x}\n")
    assert len(load_folder(pets)) == 3
    fails(pets / "runs/mine", "this is the folder of a run")
    make_photo(pets / "camera/d.png")
    make_text(pets / "camera/config.yaml", "exposure: 3\n")
    fails(pets, "no tags for 1 of the photos: 'camera/d'")


def test_classes_that_differ_in_case_only_are_said(pets: Path) -> None:
    make_text(pets / "labels.csv", "image,labels\na,Dog\nb,dog;Background\nc,BACKGROUND\n")
    image_set = load_folder(pets)
    assert image_set.classes == ("Dog", "dog")
    assert labels_of(image_set) == {"a": (1,), "b": (2,), "more/c": ()}
    assert "classes that differ in case only: 'Dog' (1), 'dog' (1)" in summary(image_set)


def test_class_names_are_compared_with_composed_accents(tmp_path: Path) -> None:
    for name in ("caf\u00e9/1.jpg", "cafe\u0301/2.jpg", "Background/3.jpg"):
        make_photo(tmp_path / name)
    make_text(tmp_path / "classes.txt", "_background_\ncafe\u0301\n")
    image_set = load_folder(tmp_path)
    assert image_set.classes == ("caf\u00e9",)
    assert sorted(labels_of(image_set).values()) == [(), (1,), (1,)]


def test_a_turned_photo_whose_mask_is_not(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "dog").mkdir()
    Image.new("RGB", (12, 8)).save(tmp_path / "dog/1.jpg", exif=exif)
    write_mask(tmp_path / "masks/dog/1.png", np.zeros((8, 12), np.uint8))
    image_set = load_folder(tmp_path)
    with pytest.raises(DataError, match=r"has 8 x 12 pixels .*, its photo 1.jpg 12 x 8: the photo's EXIF orientation"):
        image_set.truth(image_set[0])
