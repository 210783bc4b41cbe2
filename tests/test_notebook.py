"""What a notebook shows of a run, an image set, a segmenter and class patterns."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

import tag2mask as t2m
from tag2mask.api import Result
from tag2mask.runs.folder import read_metrics
from tag2mask.scoring import RunScores


class Cells(HTMLParser):
    """The texts of a table by row, and a check that every element is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.caption = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] == "caption":
            self.caption += data
        else:
            self.rows[-1][-1] += data


def cells(thing):
    parser = Cells()
    parser.feed(thing._repr_html_())
    parser.close()
    assert parser.open == []
    return parser


def test_an_image_set(shapes_folder):
    shown = cells(t2m.load(shapes_folder))
    assert shown.caption.startswith("14 photos of 2 classes, tags from ")
    assert shown.rows == [["class", "photos"], ["disc", "9"], ["square", "9"]]


def test_names_are_escaped_and_long_tables_cut():
    names = tuple(f"<b>{number}</b>&" for number in range(40))
    data = t2m.ImageSet(names, (t2m.Sample("a", Path("a.jpg"), (1,)),), ("x.jpg: cannot be read",))
    shown = cells(data)
    assert shown.caption == "1 photos of 40 classes, tags from Python, 1 left out"
    assert shown.rows[1] == ["<b>0</b>&", "1"]
    assert len(shown.rows) == 32
    assert shown.rows[-1] == ["and 10 more", ""]
    assert "<b>" not in data._repr_html_()


def test_the_result_of_a_run(finished_run):
    scores = read_metrics(finished_run)
    shown = cells(Result(finished_run, RunScores.model_validate(scores)))
    assert shown.rows[0] == ["class", "proxy", "retrain", "prediction"]
    assert shown.rows[1] == ["mIoU", *(f"{scores[name]['miou']:.1f}" for name in shown.rows[0][1:])]
    assert [row[0] for row in shown.rows[2:]] == ["background", "disc", "square"]


def test_a_run_without_truth_shows_its_time(tmp_path):
    scores = {"proxy": {"miou": None, "iou": None, "images": 0}, "seconds": {"classify": 3.25}}
    assert cells(Result(tmp_path, RunScores.model_validate(scores))).rows == [["stage", "seconds"], ["classify", "3.2"]]
    assert cells(Result(tmp_path, RunScores())).rows == [["stage", "seconds"]]


def test_a_segmenter(finished_run):
    shown = cells(t2m.load_segmenter(finished_run))
    assert shown.caption == "segmenter of recipe tiny on test_resnet, scales 64 pixels"
    assert shown.rows == [["class", "value"], ["background", "0"], ["disc", "1"], ["square", "2"]]


def test_class_patterns(finished_run):
    patterns = t2m.ClassPatterns.load(finished_run / "patterns.safetensors")
    shown = cells(patterns)
    assert shown.caption == "class patterns of test_resnet, layer C41"
    about = patterns.about()
    assert shown.rows[1] == [
        "disc", f"{100 * about['disc']['explained']:.1f}%", f"{about['disc']['confidence']:.2f}",
        *(f"{about['disc'][kind]:+.2f}" for kind in ("activation", "norm", "centre")),
    ]  # fmt: skip
    assert cells(t2m.ClassPatterns("resnet18")).caption.endswith("not fitted")


@pytest.mark.parametrize("value", [float("nan"), 1.25, None, "x"])
def test_cells_of_all_kinds(value):
    from tag2mask.notebook import html_table

    assert html_table("", ["a"], [[value]]).count("<td") == 1
