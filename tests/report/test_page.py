"""The report page: its figures, its pictures, its escaping, and how it behaves in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tracemalloc
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import PROGRAM, Browser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tag2mask.config import Recipe, load_recipe
from tag2mask.data import ImageSet, Sample, load, read_mask, write_mask
from tag2mask.demo.scenes import make_scene
from tag2mask.errors import DataError
from tag2mask.methods import method_settings
from tag2mask.metrics import confusion_matrix
from tag2mask.report import PhotoSet, page, save_page
from tag2mask.report.colours import class_colours
from tag2mask.report.confidence import Confidence
from tag2mask.report.page import choose, mask_thumbnail, photo_thumbnail
from tag2mask.report.survey import Doubt, Tally, doubt_of, regions, survey
from tag2mask.runs.folder import read_metrics, resume_run
from tag2mask.runs.tasks import photo_sets

EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
BAD_NAMES = (
    "<script>pwned = 1</script>",
    "</script><img src=x onerror='pwned = 1'>",
    "\"'><svg onload=pwned=1>",
    "two\nlines & {{ 7 * 7 }} {% raw %}",
    "ж漢字🐕‍🦺 \u202etxt",
    "bytes \udcff\udc80",
)
BAD_CLASSES = ("<b onclick='pwned=1'>cat</b>", "</script><script>pwned=1</script>", "\"quoted\" & 'single' 犬")


class Parsed(HTMLParser):
    """A page's elements, each with its tag, attributes and own text; fails where tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs), []))
        if tag not in EMPTY:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data):
        for index in self._open:
            self.elements[index][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    def rows(self, section: str) -> list[list[str]]:
        """Return the cells of the tables in a section, by the section's id."""
        start = next(i for i, (_, attributes, _) in enumerate(self.elements) if attributes.get("id") == section)
        cells: list[list[str]] = []
        for tag, attributes, text in self.elements[start + 1 :]:
            if tag == "section" or (tag == "details" and "id" in attributes):
                break
            if tag == "tr":
                cells.append([])
            elif tag in ("td", "th"):
                cells[-1].append(" ".join("".join(text).split()))
        return cells

    @property
    def photos(self) -> list[dict]:
        return self.data["photos"]

    @property
    def data(self) -> dict:
        return json.loads(next(text for attributes, text in self.all("script") if attributes.get("id") == "data"))


def parsed(run: Path) -> Parsed:
    return Parsed((run / "report/index.html").read_text("utf-8"))


def decoded(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.split(",")[1])))


def make_set(folder: Path, names, classes=("cat", "dog"), *, size=(30, 40), truth=False, **kinds) -> PhotoSet:
    """Write photos that carry the first class, and a mask of each kind, as ``kinds`` gives them for a number."""
    samples = []
    for number, name in enumerate(names):
        image = folder / "photos" / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1], (40 * number % 256, 90, 120)).save(image)
        if truth:
            write_mask(folder / "truth" / f"{number}.png", np.ones(size, np.uint8))
        samples.append(Sample(name, image, (1,), folder / "truth" / f"{number}.png" if truth else None))
        for kind, draw in kinds.items():
            write_mask(folder / kind / f"{number}.png", draw(number))
            (folder / kind / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / kind / f"{number}.png", folder / kind / f"{name}.png")
    return PhotoSet("training", ImageSet(tuple(classes), tuple(samples)), {kind: folder / kind for kind in kinds})


def half(value: int, size=(30, 40)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = value
    return mask


# Figures


@pytest.mark.parametrize(
    ("labels", "masks", "pixels", "missing"),
    [
        ([1], {"proxy": [1, 1, 0, 255], "prediction": [1, 0, 0, 1]}, 1 / 3, ()),
        ([1, 2], {"proxy": [1, 1, 0, 255], "prediction": [1, 1, 0, 0], "truth": [2, 2, 2, 2]}, 0, (2,)),
        ([1], {"proxy": [1, 0, 0, 0], "prediction": [1, 1, 0, 0]}, 0.5, ()),
        ([1], {"proxy": [255, 255, 255, 255], "prediction": [1, 1, 0, 0]}, None, ()),
        ([1, 2], {"proxy": [1, 1, 0, 255]}, 0.25, (2,)),
        ([2], {"prediction": [1, 0, 0, 1], "truth": [1, 1, 0, 255]}, 1 / 2, (2,)),
        ([2], {"prediction": [1, 0, 0, 0], "truth": [255, 255, 255, 255]}, None, (2,)),
        ([2, 1], {"prediction": [1, 0, 0, 0]}, None, (2,)),
        ([], {"prediction": [1, 0, 0, 0]}, None, ()),
        ([], {"proxy": [0, 0, 0, 0], "prediction": [0, 0, 0, 0]}, 0, ()),
    ],
)
def test_doubt(labels, masks, pixels, missing):
    doubt = doubt_of(labels, {kind: np.array([values], np.uint8) for kind, values in masks.items()})
    assert doubt.pixels == (pixels if pixels is None else pytest.approx(pixels))
    assert doubt.missing == missing


@pytest.mark.parametrize(
    ("missing", "values", "lowest", "needs_look"),
    [((), (), None, False), ((2,), (), None, True), ((), (0.9, 0.49), 0.49, True), ((), (0.5,), 0.5, False)],
)
def test_the_lowest_confidence_says_whether_a_photo_needs_a_look(missing, values, lowest, needs_look):
    doubt = Doubt(0.9, missing, tuple(Confidence(1, value, 0.1) for value in values))
    assert (doubt.lowest, doubt.needs_look) == (lowest, needs_look)


def test_sums_by_hand():
    tally = Tally(2, ("proxy", "prediction"))
    for labels, masks in (
        ([1], {"proxy": [1, 1, 0, 255], "prediction": [1, 0, 0, 0], "truth": [1, 1, 0, 0]}),
        ([1, 2], {"proxy": [1, 0, 2, 2], "prediction": [1, 1, 0, 0], "truth": [2, 2, 0, 255]}),
        ([], {"proxy": [0, 0, 0, 0], "prediction": [0, 0, 0, 0]}),
    ):
        arrays = {kind: np.array([values], np.uint8) for kind, values in masks.items()}
        tally.add(labels, arrays, doubt_of(labels, arrays))
    assert tally.photos.tolist() == [3, 2, 1]
    assert tally.missing.tolist() == [1, 0, 1]
    assert tally.mean(tally.uncertain) == pytest.approx([25 / 3, 12.5, 0])
    assert tally.mean(tally.cover["proxy"]) == pytest.approx([(50 + 75) / 3, (50 + 25) / 2, 50])
    assert tally.mean(tally.cover["prediction"]) == pytest.approx([(25 + 50) / 3, (25 + 50) / 2, 0])
    assert tally.agreement.tolist() == [[5 + 0, 1, 0], [1, 2, 0], [2, 0, 0]]
    assert tally.confusion.tolist() == [[3, 0, 0], [1, 1, 0], [0, 2, 0]]
    assert np.isnan(Tally(2, ()).mean(np.zeros(3))).all()


def sure(name: str, *values: float) -> dict[str, list[Confidence]]:
    return {name: [Confidence(1, value, 0.5) for value in values]}


def test_the_lowest_confidence_comes_first_and_photos_without_a_mask_not_at_all(tmp_path):
    photos = make_set(
        tmp_path, "abcd", proxy=lambda n: half(1), prediction=lambda n: [half(1), half(0), half(255), half(2)][n]
    )
    shutil.rmtree(tmp_path / "prediction")
    for name, value in (("a", 1), ("b", 0), ("c", 1)):
        write_mask(tmp_path / "prediction" / f"{name}.png", half(value))
    (tmp_path / "proxy/d.png").unlink()
    tally, ranked = survey(photos, sure("a", 0.7) | sure("c", 0.9, 0.6) | sure("d", 0.1))
    assert [(sample.name, doubt.lowest) for sample, doubt in ranked] == [("b", None), ("c", 0.6), ("a", 0.7)]
    assert tally.photos[0] == 3


@pytest.mark.parametrize("wrong", [half(3), half(1, (30, 41))])
def test_a_mask_of_another_run_or_size_is_refused(tmp_path, wrong):
    photos = make_set(tmp_path, "ab", proxy=lambda n: half(1), prediction=lambda n: wrong if n else half(1))
    with pytest.raises(DataError, match=r"prediction/b\.png: not a mask of this run's photo"):
        survey(photos, {})


@given(st.lists(st.integers(), max_size=40), st.integers(0, 50))
def test_what_is_shown_of_many(items, count):
    items = list(enumerate(items))
    count = min(count, len(items))
    chosen = choose(items, count)
    assert len(chosen) == count
    assert chosen == sorted(set(chosen))
    assert chosen[: count // 2] == items[: count // 2]
    if count == len(items):
        assert chosen == items


def test_names_stand_on_their_regions():
    rows, columns = np.indices((120, 200))
    ring = np.hypot(rows - 60, columns - 100)
    mask = np.where((ring < 55) & (ring > 30), 4, 0).astype(np.uint8)
    mask[:, :8] = 9
    mask[0, 199] = 2
    found = regions(mask)
    assert [(value, share) for value, share, *_ in found] == [
        (4, round(100 * float((mask == 4).mean()), 1)), (9, 4.0), (2, 0.0),
    ]  # fmt: skip
    assert len(found[2]) == 2
    for value, _, x, y in found[:2]:
        assert mask[round(y * 120 / 100), round(x * 200 / 100)] == value


# Pictures


def test_a_photo_s_thumbnail_keeps_its_shape_and_is_small():
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3)).astype(np.uint8)
    content, size = photo_thumbnail(noise)
    assert size == (240, 160)
    assert Image.open(BytesIO(content)).size == size
    assert len(content) <= page.PHOTO_BYTES
    assert photo_thumbnail(noise[:50, :20])[1] == (20, 50)


def test_a_mask_s_thumbnail_has_its_classes_colours():
    mask = np.zeros((100, 200), np.uint8)
    mask[:50, :100], mask[50:, :100], mask[50:, 100:] = 3, 200, 255
    content = mask_thumbnail(mask, (100, 50))
    pixels = np.asarray(Image.open(BytesIO(content)).convert("RGBA"))
    assert pixels.shape == (50, 100, 4)
    assert (pixels[25:, :, 3] == 255).all()
    assert pixels[10, 60, 3] == 0
    assert pixels[10, 10, :3].tolist() == class_colours()[3].tolist()
    assert pixels[40, 10, :3].tolist() == class_colours()[200].tolist()
    striped = pixels[25:, 50:, 0]
    assert set(np.unique(striped)) == {160, 255}
    assert 0.4 < (striped == 255).mean() < 0.6
    assert len(content) < 500


def test_colours_differ():
    assert len({tuple(colour) for colour in class_colours()[:255].tolist()}) == 255


def test_a_thousand_photos_stay_below_15_megabytes():
    sizes = []
    for number in range(6):
        scene = make_scene(number)
        photo, size = photo_thumbnail(scene.photo)
        mask = base64.b64encode(mask_thumbnail(scene.mask, size))
        sizes.append(len(base64.b64encode(photo)) + 3 * len(mask) + 700)
    assert 1000 * np.mean(sizes) < 15e6


def test_memory_does_not_grow_with_the_photos(tmp_path, monkeypatch):
    monkeypatch.setattr("tag2mask.threads.cores", lambda: 1)
    size = (400, 600)
    photos = make_set(tmp_path, [f"p{n}" for n in range(8)], size=size, proxy=lambda n: half(1, size))
    peaks = []
    for count in (2, 8):
        few = PhotoSet("training", photos.data.with_samples(photos.data.samples[:count]), photos.folders)
        tracemalloc.start()
        save_page(tmp_path, [few], Recipe(), {}, [{}])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + size[0] * size[1] * 3


# The page


def test_the_page_of_a_run_tells_its_figures(finished_run, shapes_folder):
    html, metrics = parsed(finished_run), read_metrics(finished_run)
    kinds = ("prediction", "retrain", "proxy")
    classes, details, confusion = html.rows("classes"), html.rows("details"), html.rows("confusion")
    assert details[1][:4] == ["mean (mIoU)", *(f"{metrics[kind]['miou']:.1f}" for kind in kinds)]
    best = sorted(("disc", "square"), key=lambda name: -metrics["prediction"]["iou"][name])
    for row, name in zip(details[2:], ("background", *best), strict=True):
        assert row[:4] == [name, *(f"{metrics[kind]['iou'][name]:.1f}" for kind in kinds)]
    assert classes[1][:2] == ["mean (mIoU)", f"{metrics['prediction']['miou']:.1f}"]
    assert [row[0][: len(name)] for row, name in zip(classes[3:], best, strict=True)] == best
    assert f"{metrics['prediction']['miou']:.1f}% mIoU" in " ".join(text for _, text in html.all("li"))
    files = [f"{name}.png" for name in (shapes_folder / "val.txt").read_text().split()]
    truth, predictions = shapes_folder / "masks", finished_run / "predictions"
    matrix = sum(confusion_matrix(read_mask(truth / file), read_mask(predictions / file), 3) for file in files)
    assert confusion[1][:2] == ["background", f"{100 * matrix[0, 0] / matrix[0].sum():.1f}"]
    assert confusion[2][:3] == ["disc", *(f"{100 * matrix[1, c] / matrix[1].sum():.1f}" for c in (1, 0))]
    pattern = metrics["patterns"][best[0]]
    assert classes[3][3] == str(sum(best[0] in line for line in trained_tags(shapes_folder)))
    assert details[3][-2] == f"{100 * pattern['confidence']:.1f}"
    assert details[3][-1] == f"{100 * pattern['explained']:.1f}"
    assert "name: tiny" in next(text for _, text in html.all("pre"))


def trained_tags(folder):
    train = (folder / "train.txt").read_text().split()
    return [line for line in (folder / "tags.csv").read_text().splitlines() if line.split(".")[0] in train]


def test_the_gallery_of_a_run(finished_run, shapes_folder):
    html = parsed(finished_run)
    for split, name, folders in (
        ("train", "training", {"proxy": "proxy", "prediction": "retrain"}),
        ("val", "evaluation", {"prediction": "predictions"}),
    ):
        samples = {sample.name: sample for sample in load(shapes_folder, split=split).samples}
        shown = [photo for photo in html.photos if photo["set"] == name]
        assert {photo["name"] for photo in shown} == set(samples)
        order = [min(confidence for _, confidence in photo["confidences"]) for photo in shown]
        assert order == sorted(order)
        assert [photo["look"] for photo in shown] == [confidence < 0.5 for confidence in order]
        for photo in shown:
            masks = {k: read_mask(finished_run / folder / f"{photo['name']}.png") for k, folder in folders.items()}
            masks["truth"] = read_mask(samples[photo["name"]].mask)
            assert [mask["kind"] for mask in photo["masks"]] == list(masks)
            assert [label for label, _ in photo["confidences"]] == photo["tags"]
            assert decoded(photo["photo"]).size == tuple(photo["size"])
            for mask in photo["masks"]:
                assert decoded(mask["image"]).size == tuple(photo["size"])
                found = {value: share for value, share, *_ in mask["regions"]}
                values, counts = np.unique(masks[mask["kind"]], return_counts=True)
                wanted = zip(values.tolist(), counts / counts.sum(), strict=True)
                assert found == {v: pytest.approx(100 * share, abs=0.051) for v, share in wanted if v}


def test_structure(finished_run):
    html = parsed(finished_run)
    assert html.elements[0][:2] == ("html", {"lang": "en"})
    assert len(html.all("h1")) == len(html.all("title")) == len(html.all("main")) == 1
    levels = [int(tag[1]) for tag, *_ in html.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes, _ in html.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes, text in html.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("aria-labelledby", ids[0]) in ids
        if tag == "a":
            assert attributes["href"][0] == "#"
            assert attributes["href"][1:] in ids
        if tag == "th" and "scope" not in attributes:
            raise AssertionError("".join(text))
        if tag in ("a", "button", "summary", "h1", "h2", "h3", "option"):
            assert "".join(text).strip()
    assert all("alt" in attributes for attributes, _ in html.all("img"))


def test_nothing_is_asked_for_and_no_other_script_may_run(finished_run):
    text = (finished_run / "report/index.html").read_text("utf-8")
    html = Parsed(text)
    assert not any(name in ("src", "srcset", "action") for _, attributes, _ in html.elements for name in attributes)
    assert not html.all("link") + html.all("iframe") + html.all("object")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    policy = next(a["content"] for a, _ in html.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    (script,) = [text for attributes, text in html.all("script") if "type" not in attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}';" in policy


@pytest.fixture
def bad_names(tmp_path):
    """A page of photos and classes whose names are HTML, JavaScript and worse."""
    photos = make_set(
        tmp_path / "<i>run", BAD_NAMES, BAD_CLASSES,
        proxy=lambda n: half(1 + n % 3), prediction=lambda n: half(2),
    )  # fmt: skip
    data = ImageSet(
        BAD_CLASSES, photos.data.samples, ("<u>left out</u>",), labels_from="<s>tags</s>.csv", remarks=("<em>!",)
    )
    evidence = {"confidence": 0.7, "explained": 0.1}
    metrics = {
        "patterns": {name: evidence for name in BAD_CLASSES},
        "proxy": {"miou": 50.0, "iou": dict.fromkeys(("background", *BAD_CLASSES), 50.0), "images": 6},
    }
    save_page(tmp_path / "<i>run", [PhotoSet("training", data, photos.folders)], Recipe(name="<q>"), metrics, [{}])
    return tmp_path / "<i>run"


def test_names_are_escaped(bad_names):
    html = parsed(bad_names)
    assert len(html.all("script")) == 2
    for tag in ("i", "b", "svg", "img", "u", "s", "q"):
        assert not html.all(tag)
    assert html.all("h1")[0][1] == "<i>run"
    assert {photo["name"] for photo in html.photos} == set(BAD_NAMES)
    assert html.data["names"] == ["background", *BAD_CLASSES]
    assert [row[0] for row in html.rows("details")[1:]] == ["mean (mIoU)", "background", *BAD_CLASSES]
    assert "'<i>run'" in html.all("code")[-1][1]
    assert [text for attributes, text in html.all("option") if attributes["value"].isdigit()] == list(BAD_CLASSES)
    assert "<u>left out</u>" in [text for _, text in html.all("li")]
    assert "<em>!" in [text for _, text in html.all("p")]
    assert all("perhaps the background" in row[0] for row in html.rows("classes")[3:])


def test_without_truth_and_evaluation_photos(tmp_path):
    photos = make_set(tmp_path, "abc", proxy=lambda n: half(1), prediction=lambda n: half(n))
    save_page(tmp_path, [photos], Recipe(), {"proxy": {"miou": None, "iou": None, "images": 0}}, [{}])
    html = parsed(tmp_path)
    text = " ".join("".join(html.elements[0][2]).split())
    assert "No true masks were given, so there is no score" in text
    assert "evaluation" not in text
    assert "scores" not in [attributes.get("id") for _, attributes, _ in html.elements]
    assert [photo["name"] for photo in html.photos] == ["a", "c", "b"]  # b alone shows the tag
    assert html.data["kinds"] == {"proxy": "Proxy mask", "prediction": "Prediction"}


def test_where_the_masks_of_a_run_lie(a_run):
    run = resume_run(a_run)
    training, evaluation = photo_sets(run)
    assert training.folders == {"proxy": a_run / "proxy", "prediction": a_run / "retrain"}
    assert (training.data, evaluation.data) == (run.train, run.evaluation)
    config = yaml.safe_load((a_run / "config.yaml").read_text())
    config["recipe"]["segmenter"]["retrain"] = 2
    (a_run / "config.yaml").write_text(yaml.safe_dump(config))
    assert photo_sets(resume_run(a_run))[0].folders["prediction"] == a_run / "retrain-2"
    config["data"]["eval_split"] = None
    (a_run / "config.yaml").write_text(yaml.safe_dump(config))
    (photos,) = photo_sets(resume_run(a_run))
    assert photos.folders == {"proxy": a_run / "proxy", "prediction": a_run / "predictions"}


def test_without_retraining_there_is_no_prediction_of_the_training_photos(tmp_path):
    photos = make_set(tmp_path, "ab", proxy=lambda n: half(255 if n else 1))
    save_page(tmp_path, [photos], Recipe(), {}, [sure("a", 0.8) | sure("b", 0.0)])
    html = parsed(tmp_path)
    assert [(photo["name"], photo["confidences"]) for photo in html.photos] == [("b", [[1, 0.0]]), ("a", [[1, 0.8]])]
    assert html.rows("classes")[1] == ["cat", "2", "1"]
    assert html.rows("details")[1] == ["cat", "25.0", "25.0"]


def test_methods_to_compare_are_named(tmp_path):
    photos = make_set(tmp_path, "ab", proxy=lambda n: half(1))
    for method, says in (("patterns", "varies most"), ("cam", "(CAM)"), ("ddt", "DDT"), ("sec", "method SEC")):
        save_page(tmp_path, [photos], load_recipe("fast", method_settings(method)), {}, [{}])
        assert says in (tmp_path / "report/index.html").read_text("utf-8")


def test_of_many_photos_a_part_is_shown_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_PHOTOS", 4)
    photos = make_set(tmp_path, "abcdefgh", proxy=lambda n: half(1))
    save_page(tmp_path, [photos], Recipe(), {}, [sure("g", 0.1) | sure("h", 0.2)])
    html = parsed(tmp_path)
    assert [photo["name"] for photo in html.photos] == ["g", "h", "a", "d"]
    notes = [" ".join(text.split()) for attributes, text in html.all("p") if attributes.get("class") == "note"]
    assert (
        "Shown are 4 of 8 training photos: half of them the most doubtful, half spread evenly over the rest." in notes
    )


def test_an_unreadable_photo_is_reported_and_left_out_unless_strict(tmp_path, caplog):
    photos = make_set(tmp_path, "ab", proxy=lambda n: half(1))
    photos.data.samples[0].image.write_bytes(b"no photo")
    save_page(tmp_path, [photos], Recipe(), {}, [{}])
    assert [photo["name"] for photo in parsed(tmp_path).photos] == ["b"]
    assert "0.png" in caplog.text
    with pytest.raises(DataError, match=r"0\.png"):
        save_page(tmp_path, [photos], Recipe(), {}, [{}], strict=True)


def test_a_damaged_mask_ends_the_report_in_one_line(command, a_run):
    before = (a_run / "report/index.html").read_bytes()
    write_mask(a_run / "retrain/p00.png", np.zeros((5, 6), np.uint8))
    said = command("report", a_run)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith(
        f"tag2mask: {a_run / 'retrain/p00.png'}: not a mask of this run's photo"
    )
    assert (a_run / "report/index.html").read_bytes() == before


# In a browser


@pytest.fixture(scope="module")
def browser():
    if PROGRAM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    opened = Browser()
    yield opened
    opened.close()


def errors(browser: Browser) -> list[dict]:
    said = browser.said("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return [one for one in said if one.get("entry", {}).get("level") != "info"]  # such as of a focus


def names(browser: Browser) -> list[str]:
    return browser.run("[...document.querySelectorAll('#cards h3')].map((e) => e.textContent)")


def test_filters_order_and_views(browser, finished_run):
    browser.open(finished_run / "report/index.html")
    photos = parsed(finished_run).photos
    training = [photo for photo in photos if photo["set"] == "training"]
    assert names(browser) == [photo["name"] for photo in training]
    assert browser.run("document.querySelector('#count').textContent") == "11 of 11 photos"

    browser.click("a[data-class='2']")
    squares = [photo["name"] for photo in training if 2 in photo["tags"]]
    assert set(names(browser)) >= set(squares)
    assert len(names(browser)) < 11
    browser.click("[name=look]")
    assert set(names(browser)) == {photo["name"] for photo in training if photo["look"]} & set(names(browser))

    browser.run("document.querySelector('#tools').reset()")
    browser.click("[name=set][value=evaluation]")
    assert sorted(names(browser)) == sorted(photo["name"] for photo in photos if photo["set"] == "evaluation")
    browser.run("(() => { const e = document.querySelector('[name=order]'); e.value = 'name';"
                " e.dispatchEvent(new Event('input', {bubbles: true})); })()")  # fmt: skip
    assert names(browser) == ["p04", "p09", "p13"]

    tiles = "[...document.querySelectorAll('article:first-child .tile')]"
    visible = f"{tiles}.filter((tile) => tile.offsetWidth).map((tile) => tile.dataset.kind)"
    assert browser.run(visible) == ["photo", "prediction", "truth"]
    browser.click("[name=view][value=truth]")
    assert browser.run(visible) == ["truth"]
    browser.press("ArrowLeft")
    assert browser.run(visible) == ["prediction"]

    opacity = "Number(getComputedStyle(document.querySelector('.mask')).opacity)"
    assert browser.run(opacity) == pytest.approx(0.7)
    browser.run("document.querySelector('[name=strength]').focus()")
    browser.press("ArrowLeft")
    assert browser.run(opacity) == pytest.approx(0.65)
    assert browser.run("document.querySelector('output').textContent") == "65%"
    assert errors(browser) == []


def test_the_head_of_the_page_and_the_commands(browser, finished_run):
    page = parsed(finished_run)
    browser.open(finished_run / "report/index.html", 390, 844)
    first = [page.photos[place] for place in page.data["first"]]
    assert len(first) == 3  # every evaluation photo, the least doubtful first
    lowest = [min(confidence for _, confidence in photo["confidences"]) for photo in first]
    assert lowest == sorted(lowest, reverse=True)
    pictures = "[...document.querySelectorAll('.strip button')].map((e) => e.title)"
    assert browser.run(pictures) == [photo["name"] for photo in first]
    assert browser.run("document.querySelector('.strip').getBoundingClientRect().top") < 844
    assert browser.run("document.querySelector('nav ul').scrollWidth <= document.querySelector('nav ul').clientWidth")
    browser.click(".strip button:nth-child(2)")
    assert browser.run("document.querySelector('dialog[open] h2').textContent") == first[1]["name"]
    browser.press("Escape")
    score = "document.querySelector('#classes td.bar').getBoundingClientRect()"
    assert browser.run(f"{score}.right") < 390  # the score is on a phone's screen
    assert browser.run(f"{score}.width") > 80
    needed = [photo for photo in page.photos if photo["look"]]
    assert needed
    browser.click(f".answer a[data-look={needed[0]['set']}]")
    assert set(names(browser)) == {photo["name"] for photo in needed if photo["set"] == needed[0]["set"]}
    badges = "document.querySelector('article .badges').textContent"
    assert browser.run(badges).startswith(
        "tag missing: " if needed[0]["missing"] else page.data["names"][needed[0]["tags"][0]]
    )
    browser.click("#export [data-copy]")
    assert browser.run("document.querySelector('#export code').closest('section').id") == "export"
    assert errors(browser) == []


def test_the_photos_that_need_a_look_are_counted(tmp_path):
    photos = make_set(
        tmp_path, "abcd", proxy=lambda n: half(1), prediction=lambda n: [half(1), half(0), half(1)[::-1], half(1)][n]
    )
    save_page(tmp_path, [photos], Recipe(), {}, [sure("a", 0.5) | sure("b", 0.0) | sure("c", 0.3) | sure("d", 0.9)])
    html = parsed(tmp_path)
    said = " ".join(" ".join(text.split()) for _, text in (*html.all("a"), *html.all("li")))
    assert "2 of 4 photos need a look" in said
    assert "1 photo misses a tag: no pixel of the mask shows it." in said
    assert "1 photo shows all tags, but with a confidence below 0.5." in said
    assert re.search(rf"{Recipe().name}, \d{{4}}-\d\d-\d\d – tag2mask report$", html.all("title")[0][1])


def test_two_sets_of_one_folder_give_one_notice(tmp_path):
    photos = make_set(tmp_path, "ab", proxy=lambda n: half(1))
    data = ImageSet(("cat", "dog"), photos.data.samples, remarks=("2 photos have no tag",))
    other = PhotoSet("evaluation", data, {"prediction": tmp_path / "proxy"})
    save_page(tmp_path, [PhotoSet("training", data, photos.folders), other], Recipe(), {}, [{}, {}])
    assert [text for _, text in parsed(tmp_path).all("p")].count("2 photos have no tag") == 1


def test_enlarging_with_the_keyboard(browser, finished_run):
    browser.open(finished_run / "report/index.html")
    order = names(browser)
    title = "document.querySelector('dialog[open] h2')?.textContent"
    browser.run("document.querySelector('article:nth-child(2) button').focus()")
    browser.press("Enter")
    assert browser.run(title) == order[1]
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert browser.run(title) == order[3]
    browser.press("ArrowLeft")
    assert browser.run(title) == order[2]
    assert browser.run("document.querySelector('.between span').textContent") == "3 of 11"
    browser.press("Escape")
    assert browser.run(title) is None
    assert browser.run("document.activeElement.textContent") == order[1]
    assert errors(browser) == []


def test_nothing_is_fetched(browser, finished_run):
    browser.open(finished_run / "report/index.html")
    browser.click("article:nth-child(1) .tile-row")
    browser.run("document.querySelector('dialog').open")
    addresses = [said["request"]["url"] for said in browser.said("Network.requestWillBeSent")]
    assert [address for address in addresses if not address.startswith("data:")] == [
        (finished_run / "report/index.html").as_uri()
    ]
    assert errors(browser) == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_it_fits_and_can_be_read(browser, finished_run, width, dark):
    browser.open(finished_run / "report/index.html", width, 800, dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("[...document.images].every((e) => e.alt || e.className === 'under')")
    paper, ink, soft = (luminance(browser, part) for part in ("--paper", "--ink", "--soft"))
    assert (paper < 0.1) == dark
    assert contrast(paper, ink) > 7
    assert contrast(paper, soft) > 4.5
    assert contrast(luminance(browser, "--surface"), luminance(browser, "--accent")) > 4.5
    assert contrast(luminance(browser, "--accent"), paper) > 4.5
    assert errors(browser) == []


def luminance(browser: Browser, variable: str) -> float:
    """Return the relative luminance of a colour of the page (WCAG 2.2)."""
    colour = browser.run(f"getComputedStyle(document.documentElement).getPropertyValue('{variable}').trim()")
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    values = np.frombuffer(bytes.fromhex(digits), np.uint8) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: float, second: float) -> float:
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def test_bad_names_do_nothing_in_a_browser(browser, bad_names):
    browser.open(bad_names / "report/index.html")
    assert {name for name in names(browser) if not name.startswith("bytes")} == set(BAD_NAMES[:-1])
    browser.click("article:first-child h3 button")
    assert browser.run("typeof pwned") == "undefined"
    assert browser.run("document.scripts.length") == 2
    assert errors(browser) == []
