"""The public face: names, types, runs of image sets, and a segmenter that takes photos of every kind."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

import tag2mask as t2m
from tag2mask.config import CrfConfig
from tag2mask.data import read_mask, read_photo
from tag2mask.errors import DataError, NotFittedError, RecipeError, RunError, WeightsError
from tag2mask.inference import mask_of
from tag2mask.runs.folder import read_metrics, resume_run
from tag2mask.scoring import RunScores

# --- Names and types ----------------------------------------------------------------------------------------------


def test_every_name_is_listed_and_found():
    assert set(t2m.__all__) == {*t2m._HOMES, "__version__"}
    assert set(t2m.__all__) <= set(dir(t2m))
    for name in t2m.__all__:
        assert getattr(t2m, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        t2m.runn  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    script = "import sys, tag2mask; dir(tag2mask); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_type_checkers_are_told_that_the_package_has_types():
    """What they then say of ``user_script.py``, mypy's own call says."""
    assert resources.files("tag2mask").joinpath("py.typed").is_file()


# --- Scores -------------------------------------------------------------------------------------------------------


def test_typed_scores_are_what_metrics_json_holds(finished_run):
    values = read_metrics(finished_run)
    scores = RunScores.model_validate(values)
    assert scores.prediction.miou == values["prediction"]["miou"]
    assert scores.proxy.iou["disc"] == values["proxy"]["iou"]["disc"]
    assert scores.classifier.map == values["classifier"]["map"]
    assert scores.patterns["disc"].explained == values["patterns"]["disc"]["explained"]
    assert scores.seconds == values["seconds"]
    assert list(scores.masks) == ["proxy", "retrain", "prediction"]


def test_scores_of_what_was_not_measured():
    nothing = {"miou": None, "iou": None, "images": 0}
    scores = RunScores.model_validate({"proxy": nothing, "classifier": None, "others": [1]})
    assert (scores.proxy.miou, scores.proxy.iou, scores.retrain.miou, scores.classifier.map) == (None, {}, None, None)
    assert scores.masks == {}


def test_evaluate_gives_typed_scores(a_run, shapes_folder, tmp_path):
    before = read_metrics(a_run)
    assert t2m.evaluate(a_run).prediction.model_dump() == before["prediction"]
    assert read_metrics(a_run) == before
    scores = t2m.evaluate(shapes_folder / "masks", shapes_folder / "masks", csv_file=tmp_path / "a.csv")
    assert scores.miou == 100
    assert (tmp_path / "a.csv").read_text().splitlines()[-1] == "mIoU,100.0"
    with pytest.raises(DataError, match="has its own photos and classes"):
        t2m.evaluate(a_run, split="val.txt")


# --- Runs ---------------------------------------------------------------------------------------------------------

QUICK = {"segmenter.epochs": 1, "segmenter.retrain": 0, "segmenter.size": 32, "classifier.epochs": 5}


def test_a_run_of_two_image_sets(shapes_folder, recipe_file, tmp_path, command):
    data = t2m.load(shapes_folder)
    train, others = data.with_samples(data.samples[::2]), data.with_samples(data.samples[1::2])
    recipe = t2m.load_recipe(recipe_file)
    result = t2m.run(train, tmp_path / "run", recipe, eval_data=others, settings=QUICK, method="cam")
    assert {file.stem for file in (tmp_path / "run/predictions").iterdir()} == {s.name for s in others.samples}
    assert result.scores.prediction.images == 7
    kept = resume_run(tmp_path / "run").recipe
    assert (kept.segmenter.epochs, kept.segmenter.retrain, kept.proxy.method) == (1, 0, "cam")
    before = (tmp_path / "run/segmenter.safetensors").read_bytes()
    again = t2m.run(train, tmp_path / "run", recipe, eval_data=others, settings=QUICK, method="cam")
    assert again.scores.prediction == result.scores.prediction
    assert (tmp_path / "run/segmenter.safetensors").read_bytes() == before
    for arguments in (("estimate", tmp_path / "run"), ("evaluate", tmp_path / "run"), ("report", tmp_path / "run")):
        said = command(*arguments)
        assert said.code == 2
        assert "its photos were passed in Python" in said.err
        assert len(said.err.splitlines()) == 1
    out = tmp_path / "masks.json"
    said = command("export", "coco", tmp_path / "run", "--out", out)
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "--photos" in said.err
    assert command("export", "coco", tmp_path / "run", "--out", out, "--photos", shapes_folder / "photos").code == 0


def test_image_sets_of_one_folder_are_known_to_the_commands(shapes_folder, recipe_file, tmp_path, command):
    train, others = (t2m.load(shapes_folder, split=split) for split in ("train", "val"))
    result = t2m.run(train, tmp_path / "run", recipe_file, eval_data=others, settings=QUICK)
    assert result.scores.prediction.images == 3
    assert command("evaluate", tmp_path / "run").code == 0


def test_an_evaluation_set_of_other_classes_is_refused(shapes_folder, recipe_file, tmp_path):
    data = t2m.load(shapes_folder)
    others = t2m.ImageSet(("square", "disc"), data.samples)
    with pytest.raises(DataError, match="give both sets the same"):
        t2m.run(data.with_samples(data.samples), tmp_path / "run", recipe_file, eval_data=others)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"labels": "tags.csv"}, "labels goes with data that is a path"),
        ({"split": "train"}, "split goes with data that is a path"),
        ({"eval_split": "val"}, "give eval_data"),
        ({"settings": ["segmenter.epoch=3"]}, "unknown key 'segmenter.epoch'"),
        ({"settings": {"segmenter.epochs": "three"}}, "segmenter.epochs"),
        ({"settings": "epochs"}, "--set epochs: write it as key=value"),
        ({"method": "camm"}, "did you mean 'cam'"),
    ],
)
@pytest.mark.parametrize("made", [True, False], ids=["recipe object", "recipe file"])
def test_what_does_nothing_is_refused_and_nothing_written(shapes_folder, recipe_file, tmp_path, given, reason, made):
    data = t2m.load(shapes_folder)
    recipe = t2m.load_recipe(recipe_file) if made else recipe_file
    with pytest.raises(t2m.UserError, match=reason):
        t2m.run(data.with_samples(data.samples), tmp_path / "run", recipe, **given)
    assert not (tmp_path / "run").exists()


def test_two_ways_to_name_the_photos_to_score(shapes_folder, recipe_file, tmp_path):
    data = t2m.load(shapes_folder)
    with pytest.raises(DataError, match="leave one out"):
        t2m.run(data, tmp_path / "run", recipe_file, eval_split="val", eval_data=data)


# --- Segmenters ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(finished_run):
    """A run's segmenter, whose head is drawn anew: so short a training gives background alone."""
    loaded = t2m.load_segmenter(finished_run, device="cpu")
    torch.manual_seed(0)
    torch.nn.init.normal_(loaded.network.head.decode[-1].weight)
    return loaded


@pytest.fixture(scope="module")
def photo(shapes_folder):
    return shapes_folder / "photos/p04.jpg"


@pytest.fixture(scope="module")
def pixels(photo):
    return read_photo(photo)


def test_a_segmenter_says_what_it_is(model):
    assert model.classes == ("disc", "square")
    assert model.device == torch.device("cpu")
    assert model.to("cpu") is model
    assert repr(model) == "Segmenter(disc, square; recipe tiny, test_resnet, cpu)"


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_no_such_device(finished_run, device):
    with pytest.raises(RunError, match=f"torch cannot use the device '{device}' here") as raised:
        t2m.load_segmenter(finished_run, device=device)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("crf", [False, True])
def test_predict_gives_the_masks_that_the_command_writes(model, shapes_folder, tmp_path, crf):
    """A large JPEG too, which the command decodes at reduced size where there is no CRF."""
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(noise).resize((720, 540)).save(tmp_path / "photos/large.jpg")
    turned = Image.open(shapes_folder / "photos/p04.jpg")
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "photos/turned.jpg", exif=exif)
    recipe = t2m.load_recipe(model.recipe, {"inference.crf": CrfConfig().model_dump() if crf else None})
    chosen = t2m.Segmenter(model.network, recipe)
    chosen.save_pretrained(tmp_path / "model")
    assert t2m.predict_photos(tmp_path / "model", tmp_path / "photos", tmp_path / "masks") == (2, 2)
    files = sorted((tmp_path / "photos").iterdir())
    for file, mask in zip(files, chosen.predict(files), strict=True):
        np.testing.assert_array_equal(mask, read_mask(tmp_path / f"masks/{file.stem}.png"))
        np.testing.assert_array_equal(mask, chosen.predict(str(file)))


def test_photos_of_every_kind_give_one_mask(model, photo, pixels):
    mask = model.predict(photo)
    assert len(np.unique(mask)) > 1
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    reversed_twice = np.ascontiguousarray(pixels[:, ::-1])[:, ::-1]  # of negative strides
    kinds = [str(photo), Image.open(photo), Image.fromarray(pixels), pixels, np.dstack([pixels, alpha]), reversed_twice]
    for same in model.predict(kinds):
        np.testing.assert_array_equal(same, mask)
    assert model.predict([]) == []
    assert isinstance(model.predict([pixels]), list)


def test_grey_photos_of_every_kind_give_one_mask(model, pixels):
    grey = pixels[..., 0]
    mask = model.predict(np.dstack([grey] * 3))
    palette = Image.fromarray(grey).convert("P")
    wide = grey.astype(np.uint16) * 257
    scaling = t2m.Segmenter(model.network, model.recipe, levels=(0, 65535))
    kinds = [grey, grey[..., None], Image.fromarray(grey), palette, wide, wide[..., None], np.dstack([wide] * 3)]
    for same in scaling.predict([*kinds, Image.fromarray(wide), np.dstack([wide] * 3 + [np.full_like(wide, 65535)])]):
        np.testing.assert_array_equal(same, mask)


def test_images_are_turned_and_transparency_is_white(model, pixels):
    turned = Image.fromarray(pixels)
    turned.getexif()[274] = 6
    np.testing.assert_array_equal(model.predict(turned), model.predict(np.rot90(pixels, -1)))
    clear = np.dstack([pixels, np.zeros_like(pixels[..., 0])])
    white = np.full_like(pixels, 255)
    for see_through in (clear, Image.fromarray(clear)):
        np.testing.assert_array_equal(model.predict(see_through), model.predict(white))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (np.zeros((4, 5, 3)), "float64 array 4 x 5 x 3; give uint8, 0 to 255, or uint16 (of 0 to 1"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((4, 5, 3), int), "int64"),
        (np.zeros((4, 5), bool), "bool"),
        (np.zeros((3, 4, 5), np.uint8), "array 3 x 4 x 5; give height x width x 3"),
        (np.zeros((2, 4, 5, 3), np.uint8), "several photos as a list"),
        (np.zeros((0, 5, 3), np.uint8), "array 0 x 5 x 3"),
        (np.zeros(5, np.uint8), "array 5;"),
        (torch.zeros(3, 4, 5), "not Tensor"),
        (None, "not NoneType"),
        (Image.fromarray(np.zeros((4, 5), np.float32)), "floating-point"),
        (Image.fromarray(np.full((4, 5), -1, np.int32)), "outside 0 to 65535"),
        ("nowhere.jpg", "no such file"),
    ],
)
def test_what_is_no_photo_is_refused_in_one_line(model, wrong, reason):
    for call in (model.predict, model.predict_proba, lambda one: model.predict([one])):
        with pytest.raises(DataError) as raised:
            call(wrong)
        assert reason in str(raised.value)
        assert "\n" not in str(raised.value)


def test_probabilities_have_the_mask_as_their_largest(model, photo):
    likely = model.predict_proba(photo)
    assert (likely.dtype, likely.shape) == (np.float32, (3, *model.predict(photo).shape))
    np.testing.assert_allclose(likely.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(likely.argmax(0), model.predict(photo))
    lighter = t2m.Segmenter(model.network, t2m.load_recipe(model.recipe, {"inference.background_weight": 0.5}))
    assert (lighter.predict_proba(photo)[0] < likely[0]).all()


def test_a_photo_of_no_likely_class_has_a_mask_with_the_crf(pixels):
    """Of 30 classes none reaches 0.05."""
    few = pixels[:20, :30]
    likely = np.full((30, 20, 30), 1 / 30, np.float32)
    likely[7, :, :15] += 0.01
    likely[9, :, 15:] += 0.01
    mask = mask_of(few, likely / likely.sum(0), CrfConfig())
    assert mask.shape == (20, 30)
    assert set(np.unique(mask)) <= {7, 9}


def test_a_segmenter_is_saved_and_loaded_as_hugging_face_does(model, pixels, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/README.md").write_text("my own")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/README.md").read_text() == "my own"
    loaded = t2m.Segmenter.from_pretrained(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(loaded.predict(pixels), model.predict(pixels))
    assert loaded.recipe == model.recipe
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "saved/model.safetensors").read_bytes()
    assert "no true masks" in (tmp_path / "again/README.md").read_text()


def test_a_damaged_folder_is_refused(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(WeightsError, match=r"model\.safetensors is corrupt"):
        t2m.Segmenter.from_pretrained(tmp_path)
    file.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(WeightsError, match="no weights file"):
        t2m.Segmenter.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(RunError, match=r"config\.json is not a segmenter"):
        t2m.Segmenter.from_pretrained(tmp_path)
    with pytest.raises(t2m.UserError, match="someone/something cannot be loaded"):
        t2m.Segmenter.from_pretrained("someone/something", local_files_only=True, cache_dir=tmp_path / "cache")


# --- Class patterns -----------------------------------------------------------------------------------------------


def test_patterns_have_the_habits_of_an_estimator(shapes_folder):
    from sklearn.base import clone

    patterns = t2m.ClassPatterns("test_resnet", weights="random", size=64, workers=0, components=3, device="cpu")
    assert patterns.get_params()["size"] == 64
    assert repr(patterns).startswith("ClassPatterns(backbone='test_resnet', layer='C41', weights='random', size=64, ")
    assert patterns.fit(t2m.load(shapes_folder)) is patterns
    copy = clone(patterns)
    assert copy.get_params() == patterns.get_params()
    assert copy.get_params() is not patterns.get_params()
    assert not hasattr(copy, "classes_")
    assert copy.set_params(size=96, seed=3) is copy
    assert (copy.size, copy.seed, patterns.size) == (96, 3, 64)
    with pytest.raises(RecipeError, match="no parameter 'sise'; did you mean 'size'"):
        copy.set_params(sise=3)


@pytest.mark.parametrize(
    "use",
    [
        lambda patterns, data: next(patterns.transform(data)), lambda patterns, data: patterns.about(),
        lambda patterns, data: patterns.score(torch.zeros(1, 3, 64, 64)),
        lambda patterns, data: patterns.save("nowhere.safetensors"), lambda patterns, data: patterns.means_,
    ],
)  # fmt: skip
def test_patterns_that_are_not_fitted_say_so(shapes_folder, use):
    with pytest.raises(NotFittedError, match=r"not fitted; call fit\(data\) first"):
        use(t2m.ClassPatterns("test_resnet"), t2m.load(shapes_folder))


def test_patterns_of_nothing_or_of_other_classes_are_refused(shapes_folder):
    data = t2m.load(shapes_folder)
    patterns = t2m.ClassPatterns("test_resnet", weights="random", size=64, workers=0, device="cpu")
    with pytest.raises(DataError, match="has no photos"):
        patterns.fit(data.with_samples(()))
    with pytest.raises(DataError, match="too few photos"):
        patterns.fit(data.with_samples(data.samples[:6]))
    patterns.fit(data)
    with pytest.raises(DataError, match="the patterns are of the classes disc, square, the photos of square, disc"):
        next(patterns.transform(t2m.ImageSet(("square", "disc"), data.samples)))
