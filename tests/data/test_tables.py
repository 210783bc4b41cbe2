"""Tag tables as people write them, and whatever else may be in such a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_data import make_text

from tag2mask.data import class_names, matching, tables
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
        # European Excel, database tools, Excel's own first line
        ("image;labels\na.jpg;dog,hot dog\n", {"a.jpg": ("dog", "hot dog")}),
        ('image;labels\na.jpg;"dog;hot dog"\n', {"a.jpg": ("dog", "hot dog")}),
        ("sep=;\nimage;labels\na.jpg;dog\n", {"a.jpg": ("dog",)}),
        ("image\tlabels\na.jpg\tdog cat\n", {"a.jpg": ("dog", "cat")}),
        ("image|labels\na.jpg|dog, cat\n", {"a.jpg": ("dog", "cat")}),
        # other names of the columns, row numbers, empty cells at the end
        ("Image,Labels\na.jpg,dog\n", {"a.jpg": ("dog",)}),
        ("filename,label\na.jpg,dog\n", {"a.jpg": ("dog",)}),
        ("Class Name,File Name\nhot dog;cup,a.jpg\n", {"a.jpg": ("hot dog", "cup")}),
        (",image,labels\n0,a.jpg,dog\n1,b.jpg,cat\n", {"a.jpg": ("dog",), "b.jpg": ("cat",)}),
        ("Unnamed: 0,image,labels\n0,a.jpg,dog\n", {"a.jpg": ("dog",)}),
        ("image,labels,\na.jpg,dog,\n", {"a.jpg": ("dog",)}),
        ("image,labels\na.jpg,dog,,\nb.jpg\n", {"a.jpg": ("dog",), "b.jpg": ()}),
        ('image,labels\na.jpg, "hot dog, cup"\n', {"a.jpg": ("hot dog", "cup")}),
        # one column a class
        (
            "image,dog,hot dog\na,1,0\nb,1.0,TRUE\nc,0,\n",
            {"a": ("dog",), "b": ("dog", "hot dog"), "c": ("background",)},
        ),
        ("filename, dog, cat\na.jpg, 0, 1\n", {"a.jpg": ("cat",)}),
        ("dog,image\n1,a\n0,b\n", {"a": ("dog",), "b": ("background",)}),
        # ids and quotes
        ("Nr;image;labels\n10;a;dog\n11;b;cat\n", {"a": ("dog",), "b": ("cat",)}),
        ('image,labels\na,"""dog"", ""hot dog"""\n', {"a": ("dog", "hot dog")}),
        # several rows a photo
        ("image,labels\na,dog\nb,cat\na,cat dog\n", {"a": ("dog", "cat"), "b": ("cat",)}),
        # what programs write into cells
        ("image,labels\na,\"['dog', 'hot dog']\"\nb,['dog']\n", {"a": ("dog", "hot dog"), "b": ("dog",)}),
        ('image,labels\na,"[""dog"", ""driver\'s seat""]"\n', {"a": ("dog", "driver's seat")}),
        ("image,labels\na,['dog' 'cat']\nb,[]\nc,red fox\n", {"a": ("dog", "cat"), "b": (), "c": ("red", "fox")}),
        ("image,labels\na,nan\nb,dog\nc,None\n", {"a": (), "b": ("dog",), "c": ()}),
        # one class written in two ways
        ("image,labels\na,cafe\u0301\nb,caf\u00e9\n", {"a": ("caf\u00e9",), "b": ("caf\u00e9",)}),
        ("image,labels\na,Background\nb,__background__\n", {"a": ("background",), "b": ("background",)}),
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
        ("t.csv", "image,labls\na,dog\n", "unknown columns 'labls'; .* image,labels; did you mean 'labels'"),
        ("t.csv", "image,labels,tags\na,dog,cat\n", "columns .*'tags'.*; a tag table has"),
        ("t.csv", "image,dog,cat\na,1,2\n", "unknown columns 'dog', 'cat'"),
        ("t.csv", "image,dog,cat\n", "unknown columns 'dog', 'cat'"),
        ("t.csv", "image,labels,\na,dog,cat\n", "line 2 has 3 cells, not 2"),
        ("t.csv", "id,image,labels\n1,a,dog\n1,b,dog\n", "unknown columns 'id'"),
        ("t.csv", "index,labels\n0,dog\n", "a tag table has the columns image,labels"),
        ("t.csv", "a.jpg,dog\n", "unknown columns 'a.jpg', 'dog'"),
        ("t.csv", "image labels\na dog\n", "unknown columns 'image labels'"),
        ("t.csv", "image,labels,split\na,dog,x\n", "unknown columns 'split'"),
        ("t.csv", "image\na\n", "columns image,labels"),
        ("t.csv", "image,labels\na,dog,cat\n", "line 2 has 3 cells"),
        ("t.csv", 'image,labels\na,"dog\n', "line 2 is not CSV"),
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
        ("t.json", '[{"image": "a", "breed": ["dog"]}]', "unknown columns 'breed'"),
        ("t.json", "[{}]", "a tag table has the columns image,labels"),
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


def test_several_objects_of_one_photo_in_json(tmp_path: Path) -> None:
    data = [{"file_name": "a", "Tags": ["dog"]}, {"file_name": "a", "Tags": ["cat", "dog"]}]
    assert tables.read_table(make_text(tmp_path / "t.json", json.dumps(data))) == {"a": ("dog", "cat")}


def test_unicode_text_of_excel(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("image\tlabels\r\nä.jpg\tHund\r\n".encode("utf-16"))
    assert tables.read_table(tmp_path / "t.csv") == {"ä.jpg": ("Hund",)}


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
        ("a.JPG", "a"), ("/home/me/a.jpg", "a"), ("../pets/a.jpg", "a"), ("C:\\Users\\me\\x\\c.jpg", "x/c"),
        ("c", "x/c"), ("c.jpg", "x/c"), ("x/c", "x/c"), ("x\\c.jpg", "x/c"), ("pets/x/c.jpg", "x/c"),
    ],
)  # fmt: skip
def test_match(entry: str, name: str) -> None:
    assert matching.match_photos([entry], PHOTOS, Path("t.csv")) == {entry: name}


def test_case_and_accents_count_between_photos_that_differ_in_nothing_else() -> None:
    photos = {name: Path("pets") / f"{name}.JPG" for name in ("a", "A", "x/B", "b")}
    wanted = {"a.jpg": "a", "A.JPG": "A", "b": "b", "pets/x/b.jpg": "x/B"}
    assert matching.match_photos(wanted, photos, "t.csv") == wanted
    assert matching.match_photos(["B.jpg"], photos, "t.csv") == {"B.jpg": "x/B"}
    photos = {name: Path("pets") / f"{name}.JPG" for name in ("aB", "Ab", "x/AB")}
    with pytest.raises(DataError, match="'ab' may be 'aB', 'Ab', 'x/AB'; write its sub-folder too"):
        matching.match_photos(["ab"], photos, "t.csv")


def test_a_part_of_the_data_is_not_taken_for_another() -> None:
    photos = {"1": Path("data/train/1.jpg")}
    for entry in ("train/1.jpg", "old/data/train/1.jpg", "/home/me/1.jpg"):
        assert matching.match_photos([entry], photos, "t.csv") == {entry: "1"}
    with pytest.raises(DataError, match=r"no photo for 1 of the entries: 'test/1.jpg'"):
        matching.match_photos(["test/1.jpg"], photos, "t.csv")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (["d"], "'d' may be 'x/d', 'y/d'; write its sub-folder too"),
        (["a", "a.jpg"], "'a' and 'a.jpg' name the same photo"),
        (["z", "w", "a.png", "v"], "no photo for 4 of the entries: 'z', 'w', 'a.png' and 1 more"),
        (["b.w2"], "did you mean 'b.v2'"),
        (["b.v3"], "add the photos or remove the entries$"),
        (["/etc/z.jpg"], "no photo for 1"),
        (["a.jpg", "old/a.jpg"], "'a.jpg' and 'old/a.jpg' name the same photo"),
        (["", "."], "no photo for 2"),
    ],
)
def test_no_match(entries: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        matching.match_photos(entries, PHOTOS, Path("t.csv"))
    assert str(error.value).startswith("t.csv: ")


@pytest.mark.parametrize(
    ("classes", "reason"),
    [([], "no class"), (["a", "a"], "'a' occurs twice"), ([str(i) for i in range(255)], "holds 254")],
)
def test_classes(classes: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        class_names.class_indices(classes, "t.csv")
