"""Names of photos, which are the names of their masks: on this system and on others."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_data import make_photo, make_text

from tag2mask.data import ImageSet, Sample, load, photo_names, summary
from tag2mask.errors import DataError

NOT_ON_WINDOWS = [
    "12:30",
    "a<b",
    "what?",
    "a|b",
    'say "a"',
    "x*",
    "CON",
    "nul",
    "com1.v2",
    "dogs./a",
    "dogs /a",
    "a\tb",
]


def named(*names: str) -> ImageSet:
    return ImageSet(("cat",), tuple(Sample(name, Path("a.jpg"), (1,)) for name in names))


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    return lambda name: monkeypatch.setattr(photo_names, "system", lambda: name)


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../b", "a/", "a//b", "./a", ".", "a\\b", "C:\\a", "a\0", 7, None]
)
@pytest.mark.parametrize("where", ["Linux", "Windows", "Darwin"])
def test_names_stay_in_their_folder(name: str, where: str, on) -> None:
    on(where)
    with pytest.raises(DataError, match="cannot be the name of a photo") as error:
        named(name)
    assert "\n" not in str(error.value)


def test_no_name_occurs_twice() -> None:
    with pytest.raises(DataError, match="two photos have the name 'b'"):
        named("a", "b", "b")


@pytest.mark.parametrize("name", ["a", "cats/0001", "a.b", "a..b", ".hidden", "a b", "console", "com10", "été", "a."])
@pytest.mark.parametrize("where", ["Linux", "Windows", "Darwin"])
def test_plain_names_are_good_everywhere(name: str, where: str, on) -> None:
    on(where)
    assert "stored on Windows" not in summary(named(name, "other"))


@pytest.mark.parametrize("name", NOT_ON_WINDOWS)
def test_names_that_windows_lacks(name: str, on) -> None:
    on("Windows")
    with pytest.raises(DataError, match=r"Windows cannot store files with the names of 1 photos: .* rename"):
        named("a", name)
    for where in ("Linux", "Darwin"):
        on(where)
        assert "masks of 1 photo cannot be stored on Windows" in summary(named("a", name))


@pytest.mark.parametrize("names", [("a", "A"), ("x/Ab", "X/aB"), ("caf\u00e9", "cafe\u0301")])
def test_names_that_differ_in_case_only(names: tuple[str, str], on) -> None:
    for where in ("Windows", "Darwin"):
        on(where)
        with pytest.raises(DataError, match="their masks would be the same file on this system; rename one of them"):
            named("other", *names)
    on("Linux")
    assert "are one file on Windows and macOS" in summary(named("other", *names))


def test_tables_and_lists_of_windows(tmp_path: Path) -> None:
    """Backslashes, line ends and the byte order mark of another system."""
    for name in ("cats/a.jpg", "cats/more/b.jpg"):
        make_photo(tmp_path / "photos" / name)
    table = "\ufeffimage,labels\r\ncats\\a.jpg,cat;dog\r\nphotos\\cats\\more\\b.jpg,dog\r\n"
    (tmp_path / "labels.csv").write_bytes(table.encode())
    (tmp_path / "few.txt").write_bytes("\ufeffcats\\more\\b.jpg\r\n".encode())
    (tmp_path / "classes.txt").write_bytes("\ufeffdog\r\ncat\r\n".encode())
    data = load(tmp_path)
    assert data.classes == ("dog", "cat")
    assert [(sample.name, sample.labels) for sample in data] == [("cats/a", (1, 2)), ("cats/more/b", (1,))]
    assert [sample.name for sample in load(tmp_path, split="few")] == ["cats/more/b"]
    (tmp_path / "labels.csv").unlink()
    make_text(tmp_path / "labels.json", '\ufeff{"cats\\\\a.jpg": ["cat"], ".\\\\cats\\\\more\\\\b": ["dog"]}')
    assert [sample.labels for sample in load(tmp_path)] == [(2,), (1,)]
