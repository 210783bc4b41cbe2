"""Recipes: what ships, what is refused and how, and YAML there and back."""

from __future__ import annotations

import pytest
import yaml

from tag2mask.config import Recipe, load_recipe, recipe_yaml
from tag2mask.errors import RecipeError
from tag2mask.names import recipe_names


def refused(reason, name="fast", settings=()):
    with pytest.raises(RecipeError, match=reason) as error:
        load_recipe(name, settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_is_named_as_its_file(name):
    assert load_recipe(name).name == name


def test_the_recipes_that_commands_use_are_there():
    assert {"fast", "demo"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_yaml_there_and_back(name, tmp_path):
    recipe = load_recipe(name, ["seed=7", "segmenter.learning_rate=3.0e-05", "crf.gaussian=[2, 5]"])
    file = tmp_path / "mine.yaml"
    file.write_text(recipe_yaml(recipe), "utf-8")
    assert load_recipe(file) == recipe
    assert yaml.safe_load(file.read_text("utf-8")) == recipe.model_dump(mode="json")


def test_every_parameter_is_written_out():
    values = yaml.safe_load(recipe_yaml(load_recipe("fast")))
    assert set(values) == set(Recipe.model_fields)
    assert set(values["inference"]) == {"scales", "crf", "background_weight", "fill_specks", "compile"}


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("segmentr.epochs=5", "segmenter"),
        ("segmenter.epoch=5", "epochs"),
        ("proxy.treshold=1", "threshold"),
        ("sed=1", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(setting, nearest):
    message = refused("unknown key", settings=[setting])
    assert message.endswith(f"did you mean '{nearest}'?")


def test_an_unknown_key_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("segmenter: {ephocs: 3}\n")
    message = refused("unknown key 'segmenter.ephocs'; did you mean 'epochs'", file)
    assert str(file) in message


@pytest.mark.parametrize(
    "setting",
    [
        "segmenter.epochs=0",
        "segmenter.epochs=many",
        "segmenter.epochs=1.5",
        "segmenter.head=heavy",
        "segmenter.crop=1.5",
        "segmenter.retrain=-1",
        "patterns.output_stride=12",
        "patterns.layers=[]",
        "proxy.conflict=both",
        "proxy.sharpness=0",
        "inference.scales=[328, -1]",
        "crf.bilateral=[80, 13]",
        "classifier.holdout=0",
        "workers=-1",
        "classifier=3",
    ],
)
def test_a_bad_value_names_its_key(setting):
    key = setting.partition("=")[0]
    assert f"'{key}" in refused("recipe fast: ", settings=[setting])


def test_settings_are_yaml_and_the_last_one_counts():
    recipe = load_recipe("fast", ["seed=1", "patterns.layers=[C41, last]", "inference.crf=null", "seed = 2"])
    assert recipe.seed == 2
    assert recipe.patterns.layers == ["C41", "last"]
    assert recipe.inference.crf is None
    assert recipe.classifier == load_recipe("fast").classifier


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("segmenter.epochs", "key=value"),
        ("seed.deep=3", "'seed'"),
        ("segmenter.epochs.deep=3", "'epochs' holds no parameters"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_a_setting_that_is_none(setting, reason):
    refused(reason, settings=[setting])


def test_no_such_recipe_names_the_nearest():
    assert "did you mean 'fast'?" in refused("no recipe or file 'fats'", "fats")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"segmenter: [1", "not valid YAML"),
        (b"- seed\n", "must be a YAML mapping"),
        (b"", "must be a YAML mapping"),
        (b"name: caf\xe9\n", "not valid YAML"),
        (b"seed: \x00\n", "not valid YAML"),
        (b"{1: 2}\n", "1"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, reason):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert str(file) in refused(reason, file)


def test_a_recipe_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("fast").seed = 3


def test_an_unknown_key_in_a_list_is_named_with_the_nearest():
    with pytest.raises(RecipeError, match=r"unknown key 'patterns\.views\.0\.sise'.*size"):
        load_recipe("fast", ["patterns.views=[{sise: 656}]"])
