"""Settings that do nothing are told of, each in a line; those that do something are not."""

from __future__ import annotations

import pytest

from tag2mask import api
from tag2mask.config import Recipe, load_recipe
from tag2mask.errors import UserError
from tag2mask.methods import load_method, method_settings
from tag2mask.methods.base import SOME_READ
from tag2mask.names import method_names
from tag2mask.runs.idle import RULES, idle_in_prediction, idle_settings

UNREAD = "does nothing: the method {} does not read it"


@pytest.mark.parametrize(
    ("method", "setting", "says"),
    [
        ("cam", "proxy.threshold=1", UNREAD.format("cam")),
        ("cam", "patterns.images_per_class=9", UNREAD.format("cam")),
        ("cam", "patterns={contrast: 0.3}", UNREAD.format("cam")),
        ("cam", "patterns.size=96", ""),
        ("cam", "proxy.cam_thresholds=[0.1, 0.3]", ""),
        ("gradcam", "patterns.layers=[C41]", ""),
        ("gradcam", "patterns.layers=[C42, C41]", "the method gradcam looks at the first layer alone, C42"),
        ("ddt", "patterns.layers=[C41, C42]", "the method ddt looks at the first layer alone, C41"),
        ("ddt", "proxy.peak_share=0.25", UNREAD.format("ddt")),
        ("ddt", "proxy.cam_weight=1", UNREAD.format("ddt")),
        ("ddt", "proxy.threshold=1", ""),
        ("patterns", "patterns.layers=[C41, C42]", ""),
        ("patterns", "proxy.cam_weight=1", ""),
        ("patterns", "proxy.cam_thresholds=[0.1, 0.3]", UNREAD.format("patterns")),
        ("patterns", "patterns.layer_weights=[2]", "does nothing: patterns.layers names one layer"),
        ("sec", "segmenter.label_stride=2", "does nothing: sec, dsrg and em compare at every position"),
        ("sec", "proxy.sharpness=2", "does nothing: proxy.crf is none"),
        ("dsrg", "crf.steps=5", "does nothing: proxy.crf is none"),
        ("dsrg", "segmenter.tag_weight=1", ""),
        ("patterns", "classifier.crop=0.5", "does nothing: classifier.train is head"),
        ("patterns", "classifier.size=64", ""),
        ("patterns", "segmenter.backbone_learning_rate=1e-4", ""),
        ("patterns", "inference.background_weight=0.7", ""),
    ],
)
def test_one_setting(method, setting, says):
    lines = idle_settings(load_recipe("demo", method_settings(method, [setting])), [setting])
    assert len(lines) == bool(says)
    assert all(line.startswith(setting.partition("=")[0]) and says in line for line in lines)


def test_settings_that_others_decide_on():
    trained = {"classifier.train": "all", "classifier.crop": 0.5, "classifier.backbone_learning_rate": 1e-4}
    assert idle_settings(load_recipe("demo", trained), trained) == []
    frozen = {"classifier.train_from": "last", "segmenter.train_from": "last"}
    given = {**trained, **frozen, "segmenter.backbone_learning_rate": 1e-4}
    rates = [f"{part}.backbone_learning_rate" for part in ("classifier", "segmenter")]
    assert [line.split()[0] for line in idle_settings(load_recipe("demo", given), given)] == rates
    retrained = ["segmenter.label_stride=2", "segmenter.retrain=1"]  # retraining is plain
    assert idle_settings(load_recipe("demo", method_settings("sec", retrained)), retrained) == []


def test_the_table_names_parameters_of_recipes():
    def values_of(key):
        values = Recipe().model_dump()
        for part in key.split("."):
            values = values[part]
        return values

    for key in (*SOME_READ, *(key for _, keys, _ in RULES for key in keys)):
        values_of(key)
    assert {key for name in method_names() for key in load_method(name).options} == set(SOME_READ)


def test_the_command_warns_once_a_setting(command, shapes_folder, recipe_file, tmp_path):
    given = ("--set", "proxy.threshold=1", "--set", "classifier.crop=0.5", "--set", "seed=0", "--until", "classify")
    said = command("run", shapes_folder, "--out", tmp_path / "out", "--recipe", recipe_file, "--method", "cam", *given)
    assert said.code == 0
    assert [line.split("  ")[1] for line in said.err.splitlines() if "does nothing" in line] == [
        "proxy.threshold does nothing: the method cam does not read it",
        "classifier.crop does nothing: classifier.train is head: the backbone stays as loaded, each photo is seen once",
    ]


def test_python_warns_too(finished_run, shapes_folder, tmp_path, caplog):
    assert idle_in_prediction({"inference": {"crf": None}, "workers": 0}) == []
    api.predict_photos(
        finished_run, shapes_folder / "photos/p00.jpg", tmp_path / "masks", settings=["segmenter.epochs=3"]
    )
    assert "segmenter.epochs does nothing: the segmenter is trained already" in caplog.text
    with pytest.raises(UserError, match="holds another run"):
        api.run(shapes_folder, finished_run, "demo", method="ddt", settings={"proxy.peak_share": 0.25})
    assert caplog.text.count("proxy.peak_share does nothing: the method ddt does not read it") == 1
