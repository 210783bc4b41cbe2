"""Which reader reads what, and that a reader is one file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_data import make_photo, make_text

from tag2mask.data import load, load_coco, load_folder, load_voc
from tag2mask.data.readers import coco, folder, voc
from tag2mask.data.registry import readers
from tag2mask.errors import DataError
from tag2mask.names import reader_names


def test_each_file_is_a_reader() -> None:
    assert reader_names() == ["coco", "folder", "voc"]
    assert readers() == [voc.READER, coco.READER, folder.READER]
    assert len({reader.order for reader in readers()}) == 3


def test_who_reads_what(pets: Path, voc: Path, coco: Callable[..., Path], tmp_path: Path) -> None:
    assert load(pets) == load_folder(pets)
    assert load(voc) == load(voc.parents[1]) == load_voc(voc)
    json_file = coco({"image_id": 7, "category_id": 18, "segmentation": []})
    assert load(json_file) == load_coco(json_file)
    assert load(json_file).origin == (str(json_file.resolve()), None, None)
    shutil.move(json_file, json_file.with_name("instances.json"))
    shutil.move(tmp_path / "coco/val2017", tmp_path / "coco/images")
    assert load(tmp_path / "coco").labels_from == str(json_file.with_name("instances.json"))


def test_a_tag_table_comes_before_a_coco_json(pets: Path) -> None:
    make_text(pets / "instances.json", json.dumps({"images": [], "annotations": [], "categories": []}))
    assert load(pets).labels_from == str(pets / "labels.csv")
    table = shutil.move(pets / "labels.csv", pets / "mine.csv")
    assert load(pets, labels="mine.csv").labels_from == str(table)
    with pytest.raises(DataError, match=r"instances.json: no class except background"):
        load(pets)


def test_what_no_reader_knows(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "a.jpg")
    for labels in (None, "tags.csv"):
        with pytest.raises(DataError, match=r"a.jpg: neither a folder of photos nor a COCO JSON; give one of these"):
            load(photo, labels)
