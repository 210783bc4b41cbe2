"""Tag tables as people write them, and whatever else may be in such a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_data import make_text

from tag2mask.data import tables
from tag2mask.errors import DataError

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("image,labels\na.jpg,dog\nb.jpg,dog cat\n", {"a.jpg": ("dog",), "b.jpg": ("dog", "cat")}),
        ("image,labels\na,traffic light\n", {"a": ("traffic", "light")}),
        (
            "image,labels\na,traffic light\nb,dog;hot dog\n",
            {"a": ("traffic light",), "b": ("dog", "hot dog")},
        ),
        ("image,labels\na,wine glass | cup\n", {"a": ("wine glass", "cup")}),
        ('image,labels\na,"hot dog, cup"\n', {"a": ("hot dog", "cup")}),
        ("labels,image\ndog,a\n", {"a": ("dog",)}),
        ("\ufeffimage, labels\r\n\r\n a ,  dog  \r\n", {"a": ("dog",)}),
        ("image,labels\na,dog dog;dog\n", {"a": ("dog dog", "dog")}),
        ("image,labels\na,dog dog\n", {"a": ("dog",)}),
        ("image,labels\na,\n", {"a": ()}),
        ("image,labels\nünï.jpg,Katze\n", {"ünï.jpg": ("Katze",)}),
    ],
)
def test_csv(tmp_path: Path, text: str, table: dict[str, tuple[str, ...]]) -> None:
    assert tables.read_table(make_text(tmp_path / "t.csv", text)) == table


@pytest.mark.parametrize(
    "data",
    [
        {"a.jpg": ["hot dog", "cup", "cup"], "b.jpg": []},
        [{"image": "a.jpg", "labels": ["hot dog", "cup"]}, {"labels": [], "image": "b.jpg"}],
    ],
)
def test_json(tmp_path: Path, data: object) -> None:
    table = tables.read_table(make_text(tmp_path / "t.JSON", json.dumps(data)))
    assert table == {"a.jpg": ("hot dog", "cup"), "b.jpg": ()}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "image,label\na,dog\n", "unknown columns 'label'; .* image,labels; did you mean 'labels'"),
        ("t.csv", "a.jpg,dog\n", "unknown columns 'a.jpg', 'dog'"),
        ("t.csv", "image;labels\na;dog\n", "unknown columns 'image;labels'"),
        ("t.csv", "image,labels,split\na,dog,x\n", "unknown columns 'split'"),
        ("t.csv", "image\na\n", "columns image,labels"),
        ("t.csv", "image,labels\na,dog,cat\n", "line 2 has 3 cells"),
        ("t.csv", 'image,labels\na,"dog\n', "line 2 is not CSV"),
        ("t.csv", "image,labels\na,dog\na,cat\n", "'a' has two rows"),
        ("t.csv", "image,labels\n,dog\n", "no photo name"),
        ("t.csv", "image,labels\n", "no rows"),
        ("t.csv", "", "table is empty"),
        ("t.csv", "image,labels\na,d\x07g\n", "cannot be the name of a class"),
        ("t.json", "{", "not valid JSON"),
        ("t.json", "[" * 100_000, "not valid JSON"),
        ("t.json", "[" + "9" * 5000 + "]", "not a tag table|not valid JSON"),
        ("t.json", "3", "not a tag table"),
        ("t.json", '{"a": "dog"}', "must be a list of names"),
        ("t.json", '{"a": ["dog"], "a": ["cat"]}', "'a' occurs twice"),
        ("t.json", '[{"image": "a", "labels": ["dog"]}, {"image": "a", "labels": []}]', "'a' has two rows"),
        ("t.json", '[{"image": "a", "tags": ["dog"]}]', "unknown columns 'tags'"),
        ("t.json", '{"a": ["dog\\n"], "b": ["hot\\ndog"]}', "cannot be the name of a class"),
        ("t.json", "{}", "no rows"),
        ("t.txt", "a dog", "save it as one of these"),
    ],
)
def test_wrong_tables(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = make_text(tmp_path / name, text)
    with pytest.raises(DataError, match=reason) as error:
        tables.read_table(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("image,labels\nä,dog\n".encode("latin-1"))
    with pytest.raises(DataError, match="save the file as UTF-8"):
        tables.read_table(tmp_path / "t.csv")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        tables.read_table(tmp_path / "t.csv")


CELLS = st.text(st.sampled_from('abç ,;|"\n\r\0\t\ufeff'), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["image", "labels", "a", "\ud800", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["image", "labels", "a", ""]), inner),
)


def only_data_errors(path: Path) -> None:
    try:
        table = tables.read_table(path)
    except DataError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert table
        assert all(image and all(tag.strip() == tag != "" for tag in tags) for image, tags in table.items())


@given(st.binary(max_size=60) | st.lists(CELLS, max_size=9).map(lambda cells: ",".join(cells).encode()))
@example(b"\xef\xbb\xbf")
@example(b"a" * 200_000)
@FUZZ
def test_any_csv(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv"
    for header in (b"", b"image,labels\n"):
        path.write_bytes(header + content)
        only_data_errors(path)


@given(JSON.map(lambda data: json.dumps(data).encode()) | st.binary(max_size=40))
@FUZZ
def test_any_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    only_data_errors(path)


@given(st.dictionaries(st.text(min_size=1).map(str.strip).filter(bool), st.just(["dog"]), min_size=1))
@settings(FUZZ, max_examples=50)
def test_json_names_are_kept(tmp_path: Path, data: dict[str, list[str]]) -> None:
    assert list(tables.read_table(make_text(tmp_path / "t.json", json.dumps(data)))) == list(data)


PHOTOS = {name: Path("pets") / f"{name}.jpg" for name in ("a", "b.v2", "x/c", "x/d", "y/d", "é")}


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("a", "a"), ("a.jpg", "a"), ("./a.jpg", "a"), ("pets/a.jpg", "a"),
        ("b.v2", "b.v2"), ("b.v2.jpg", "b.v2"), ("y/d", "y/d"), ("e\u0301", "é"),
        ("c", "x/c"), ("c.jpg", "x/c"), ("x/c", "x/c"), ("x\\c.jpg", "x/c"), ("pets/x/c.jpg", "x/c"),
    ],
)  # fmt: skip
def test_match(entry: str, name: str) -> None:
    assert tables.match_photos([entry], PHOTOS, Path("t.csv")) == {entry: name}


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (["d"], "'d' may be 'x/d', 'y/d'; write the photo's sub-folder too"),
        (["a", "a.jpg"], "'a' and 'a.jpg' are one photo"),
        (["z", "w", "a.png", "v"], "no photo for 4 of the entries: 'z', 'w', 'a.png' and 1 more"),
        (["b.v3"], "did you mean 'b.v2'"),
        (["../pets/a.jpg"], "no photo for 1"),
        (["/etc/a.jpg"], "no photo for 1"),
        (["", "."], "no photo for 2"),
    ],
)
def test_no_match(entries: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        tables.match_photos(entries, PHOTOS, Path("t.csv"))
    assert str(error.value).startswith("t.csv: ")


@pytest.mark.parametrize(
    ("classes", "reason"),
    [([], "no class"), (["a", "a"], "'a' occurs twice"), ([str(i) for i in range(255)], "holds 254")],
)
def test_classes(classes: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        tables.class_indices(classes, "t.csv")
