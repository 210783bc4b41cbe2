"""VOCdevkit: labels from XML, masks and a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_data import make_photo, make_text

from tag2mask.data import ImageSet, load, load_voc, summary, trainable
from tag2mask.data.readers.voc import VOC_CLASSES
from tag2mask.errors import DataError


def labels_of(image_set: ImageSet) -> dict[str, tuple[int, ...]]:
    return {sample.name: sample.labels for sample in image_set.samples}


def test_xml_is_read_first(voc: Path) -> None:
    image_set = load_voc(voc)
    assert image_set.classes == VOC_CLASSES
    assert labels_of(image_set) == {"2007_000001": (12, 15), "2007_000002": (1,), "2007_000003": (12, 20)}
    assert image_set.labels_from == str(voc / "Annotations")
    assert image_set == load_voc(voc, labels="xml")


def test_masks(voc: Path) -> None:
    image_set = load_voc(voc, labels="masks")
    assert labels_of(image_set) == {"2007_000001": (12,), "2007_000002": (1,)}
    assert image_set.labels_from == str(voc / "SegmentationClass")
    assert [sample.mask for sample in image_set.samples] == [
        voc / "SegmentationClass/2007_000001.png",
        voc / "SegmentationClassAug/2007_000002.png",
    ]
    truth = image_set.truth(image_set.samples[1])
    assert truth is not None
    assert (truth[0, 0], truth[4, 0], truth[7, 0]) == (1, 255, 0)


def test_table(voc: Path) -> None:
    table = make_text(voc / "labels.csv", "image,labels\n2007_000001.jpg,cat\n2007_000002,background\n")
    image_set = load_voc(voc)
    assert labels_of(image_set) == {"2007_000001": (8,), "2007_000002": ()}
    assert image_set.labels_from == str(table)
    assert image_set.skipped == (f"{voc / 'JPEGImages/2007_000003.jpg'}: no labels in {table}",)
    assert len(load_voc(voc, labels="xml")) == 3


@pytest.mark.parametrize("above", [0, 1, 2])
def test_any_folder_above(voc: Path, above: int) -> None:
    path = (voc, *voc.parents)[above]
    assert labels_of(load(path, split="train")) == {"2007_000001": (12, 15), "2007_000002": (1,)}


def test_splits(voc: Path, tmp_path: Path) -> None:
    assert list(labels_of(load_voc(voc, split="dog_val"))) == ["2007_000003"]
    lines = "/JPEGImages/2007_000002.jpg /SegmentationClassAug/2007_000002.png\n2007_000001.jpg\n"
    file = make_text(tmp_path / "train_aug.txt", lines)
    assert list(labels_of(load_voc(voc, split=file))) == ["2007_000001", "2007_000002"]


@pytest.mark.parametrize(
    ("folder", "split", "remarks"),
    [
        ("VOC2012", "train", ("train of VOC 2012 has 1464 photos as published, here are 2",)),
        (
            "VOC2012",
            "ImageSets/Segmentation/train.txt",
            ("train of VOC 2012 has 1464 photos as published, here are 2",),
        ),
        ("VOC2012", "dog_val", ()),
        ("VOC2012", None, ()),
        ("VOC2007", "train", ()),
    ],
)
def test_other_counts_than_published(
    voc: Path, monkeypatch: pytest.MonkeyPatch, folder: str, split: str | None, remarks: tuple[str, ...]
) -> None:
    root = voc.rename(voc.with_name(folder))
    monkeypatch.chdir(root)
    image_set = load_voc(root, split=split)
    assert image_set.remarks == remarks
    assert summary(image_set).endswith("\n".join(remarks))


def fails(path: Path, reason: str, **options: str | Path | bool) -> None:
    with pytest.raises(DataError, match=reason) as error:
        load_voc(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert ";" in str(error.value)


def test_what_is_wrong(voc: Path, tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "no JPEGImages")
    fails(voc, "no such split.*'train'", split="trian")
    fails(voc, "SegmentationClass: no tags for 1 of the photos: '2007_000003'", labels="masks", split="dog_val")
    fails(voc, "no such tag table", labels="xlm")
    fails(voc, "no photo for 1", split=make_text(tmp_path / "s.txt", "2008_000001\n"))
    table = make_text(tmp_path / "t.csv", "image,labels\n2007_000001,televison\n")
    fails(voc, "tag 'televison' .*VOC's classes", labels=table)


def test_wrong_xml(voc: Path) -> None:
    make_text(voc / "Annotations/2007_000001.xml", "<annotation><object><name>dgo</name></object></annotation>")
    fails(voc, "2007_000001.xml: tag 'dgo'.*did you mean 'dog'")
    make_text(voc / "Annotations/2007_000001.xml", "<annotation>")
    fails(voc, "2007_000001.xml: not valid XML")


def test_unreadable(voc: Path) -> None:
    (voc / "JPEGImages/2007_000001.jpg").write_bytes(b"\xff\xd8")
    image_set = load_voc(voc)
    assert len(image_set) == 2
    assert "2007_000001.jpg: the photo cannot be read" in image_set.skipped[0]
    fails(voc, "cannot be read", strict=True)


def test_no_labels_at_all(tmp_path: Path) -> None:
    make_photo(tmp_path / "JPEGImages/a.jpg")
    fails(tmp_path, "no labels for any photo")


def test_the_real_photos(real_photos: Path) -> None:
    root = real_photos / "voc2012"
    train, val = load(root, split="train"), load(root, split="val")
    assert (len(train), len(val)) == (1166, 725)
    assert train.images_per_class()["boat"] == 25
    assert train.images_per_class()["person"] == 261
    assert train.skipped == ()
    assert labels_of(load(root, labels="masks", split="val")) == labels_of(val)
    truth = val.truth(val.samples[0])
    assert truth is not None
    assert set(truth.ravel().tolist()) - {0, 255} == set(val.samples[0].labels)


def test_ids_with_dots(voc: Path) -> None:
    """``a.v2`` without a suffix is not the photo ``a``."""
    for name in ("a", "a.v2"):
        make_photo(voc / f"JPEGImages/{name}.jpg")
        make_text(voc / f"Annotations/{name}.xml", "<annotation><object><name>cat</name></object></annotation>")
    for number, line in enumerate(("a.v2", "a.v2.jpg", "JPEGImages\\a.v2.JPG")):
        make_text(voc / f"ImageSets/Segmentation/list{number}.txt", f"{line}\r\n")
    assert list(labels_of(load_voc(voc, split="list0"))) == ["a.v2"]
    assert list(labels_of(load_voc(voc, split="list1"))) == ["a.v2"]
    assert list(labels_of(load_voc(voc, split="list2"))) == ["a.v2"]


def test_masks_whose_suffix_is_in_capitals(voc: Path) -> None:
    mask = voc / "SegmentationClass/2007_000001.png"
    mask.rename(mask.with_suffix(".PNG"))
    assert load_voc(voc).samples[0].mask == mask.with_suffix(".PNG")


def test_ids_that_end_as_files_do(voc: Path) -> None:
    make_photo(voc / "JPEGImages/scan.tif.jpg")
    make_text(voc / "Annotations/scan.tif.xml", "<annotation><object><name>cat</name></object></annotation>")
    make_text(voc / "ImageSets/Segmentation/scans.txt", "scan.tif  1\n/VOC2012/JPEGImages/2007_000001.jpg  -1\n")
    assert list(labels_of(load_voc(voc, split="scans"))) == ["2007_000001", "scan.tif"]


def test_classes_of_a_subset_are_those_that_its_photos_show(voc: Path) -> None:
    """A run on some photos of VOC needs no photo of each of the 20 classes."""
    make_photo(voc / "JPEGImages/more.jpg")
    make_text(voc / "Annotations/more.xml", "<annotation><object><name>dog</name></object></annotation>")
    make_text(voc / "ImageSets/Segmentation/dogs.txt", "2007_000001\n2007_000003\nmore\n")
    (voc / "Annotations/2007_000001.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    (voc / "Annotations/2007_000003.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    data = trainable(load_voc(voc, split="dogs"))
    assert (data.classes, data.images_per_class()) == (("dog",), {"dog": 3})
    truth = data.truth(data[0])
    assert truth is not None
    assert sorted(set(truth.ravel().tolist())) == [0, 1, 255]
    assert data.remarks[-1].endswith("(19 of 20 classes)")
