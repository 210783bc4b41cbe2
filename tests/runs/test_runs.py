"""The stages and the run folder: whole, resumed, done again; one photo's mask; the Python face."""

from __future__ import annotations

import json
import shutil
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tag2mask as t2m
from tag2mask.config import CrfConfig, load_recipe
from tag2mask.data import load, loading, photo_size, read_mask, read_photo, write_mask
from tag2mask.errors import DataError, RunError
from tag2mask.exports.masks import open_masks
from tag2mask.inference import mask_of, predict_probabilities
from tag2mask.methods import load_method
from tag2mask.metrics import confusion_matrix, iou
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.patterns.estimator import ClassPatterns
from tag2mask.proxy import beyond_peak_share
from tag2mask.runs import estimate, stages, tasks
from tag2mask.runs import plan as planning
from tag2mask.runs.estimate import estimate_mask, load_network
from tag2mask.runs.folder import Run, Source, open_run, read_metrics, resume_run
from tag2mask.runs.stages import STAGES, run_stages
from tag2mask.scoring import score_folders, score_set
from tag2mask.training import loop


def look(run, images, labels):
    """Return scores and class activations by the run's method."""
    return load_method(run.recipe.proxy.method).look(load_network(run), images, labels)


def read(file):
    """Return what a file holds; safetensors' header has no fixed order."""
    if file.suffix == ".safetensors":
        return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}
    return file.read_bytes()


def contents(folder):
    """Return what the files of a run hold, but for metrics.json and the page, which also hold times."""
    timed = ("metrics.json", "index.html")
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in timed)
    return {file.relative_to(folder).as_posix(): read(file) for file in files}


def assert_same_files(first, second):
    first, second = contents(first), contents(second)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def scores(folder):
    return {name: value for name, value in read_metrics(folder).items() if name != "seconds"}


def times(folder):
    written = [*folder.glob("*.safetensors"), *folder.rglob("*.png")]
    return {file: file.stat().st_mtime_ns for file in written if "report" not in file.parts}


def test_what_a_run_writes(finished_run, shapes_folder):
    train = (shapes_folder / "train.txt").read_text().split()
    val = (shapes_folder / "val.txt").read_text().split()
    for folder, names in (("proxy", train), ("retrain", train), ("predictions", val)):
        assert sorted(file.stem for file in (finished_run / folder).iterdir()) == sorted(names)
    stages = ["classifier", "patterns", "segmenter", "segmenter-retrained"]
    assert sorted(file.stem for file in finished_run.glob("*.safetensors")) == stages
    assert (finished_run / "report/overview.png").stat().st_size > 1000
    assert (finished_run / "report/index.html").stat().st_size > 10_000
    left_over = [file.name for file in finished_run.rglob(".*")]
    assert left_over == [".lock"]


def test_what_metrics_json_says(finished_run):
    said = json.loads((finished_run / "metrics.json").read_text())
    assert set(said["seconds"]) >= set(STAGES) - {"plan", "relate", "evaluate", "refine"}
    assert said["classifier"]["images"] == 3
    assert set(said["patterns"]) == {"disc", "square"}
    for name, images in (("proxy", 11), ("retrain", 11), ("prediction", 3)):
        assert set(said[name]["iou"]) == {"background", "disc", "square"}
        assert said[name]["images"] == images
        assert said[name]["miou"] == pytest.approx(np.mean(list(said[name]["iou"].values())), abs=0.01)
    # Far better than background alone (about 28), though its network knows nothing.
    assert said["proxy"]["miou"] > 40


def test_scores_are_those_of_the_masks(finished_run, shapes_folder):
    for name, folder in (("proxy", "proxy"), ("prediction", "predictions")):
        matrix = sum(
            confusion_matrix(read_mask(shapes_folder / f"masks/{file.name}"), read_mask(file), 3)
            for file in (finished_run / folder).iterdir()
        )
        wanted = [round(100 * float(value), 2) for value in iou(matrix)]
        assert list(read_metrics(finished_run)[name]["iou"].values()) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("folder", ["proxy", "retrain", "predictions"])
def test_masks_are_palette_pngs_at_the_photos_size(finished_run, shapes_folder, folder):
    labels = {sample.name: set(sample.labels) for sample in load(shapes_folder).samples}
    for file in (finished_run / folder).iterdir():
        with Image.open(file) as image:
            assert image.mode == "P"
            assert image.size[::-1] == photo_size(shapes_folder / f"photos/{file.stem}.jpg")
        known = {0, 1, 2} if folder == "predictions" else {0, *labels[file.stem]}
        allowed = known | ({255} if folder == "proxy" else set())
        assert set(np.unique(read_mask(file)).tolist()) <= allowed


def test_called_again_it_does_nothing_more(a_run):
    before, said = times(a_run), scores(a_run)
    run_stages(resume_run(a_run))
    assert times(a_run) == before
    assert scores(a_run) == said


@pytest.mark.parametrize(
    "lost",
    [
        ["segmenter-retrained.safetensors", "retrain", "predictions", "report"],
        ["proxy/p00.png", "predictions/p04.png"],
    ],
    ids=["before retrain", "between masks"],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_end(finished_run, a_run, lost):
    for name in lost:
        if (a_run / name).is_dir():
            shutil.rmtree(a_run / name)
        else:
            (a_run / name).unlink()
    run_stages(resume_run(a_run))
    assert_same_files(a_run, finished_run)
    assert scores(a_run) == scores(finished_run)


def test_a_run_killed_in_training_goes_on_to_the_same_end(finished_run, a_run, monkeypatch):
    for name in ("segmenter.safetensors", "segmenter-retrained.safetensors"):
        (a_run / name).unlink()
    for name in ("retrain", "predictions"):
        shutil.rmtree(a_run / name)
    save = loop.save_checkpoint

    def save_and_die(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_stages(resume_run(a_run))
    assert (a_run / ".segmenter.pt").exists()
    assert not (a_run / "segmenter.safetensors").exists()
    run_stages(resume_run(a_run))
    assert_same_files(a_run, finished_run)


def test_a_stage_done_again_writes_its_own_anew(finished_run, a_run):
    before = times(a_run)
    left = stages.redo_stage(resume_run(a_run), "estimate")
    after = times(a_run)
    assert {file.parent.name for file in after if after[file] != before[file]} == {"proxy"}
    assert {file.parent.name for file in after} == {"run", "proxy"}  # what was made from the masks before is gone
    assert sorted(file.name for file in a_run.glob("*.safetensors")) == [
        "classifier.safetensors",
        "patterns.safetensors",
    ]
    assert left == ["segment", "redraw", "retrain", "predict", "evaluate", "report"]
    run_stages(resume_run(a_run))
    assert_same_files(a_run, finished_run)


def test_without_retraining_the_first_segmenter_predicts(a_run, recipe_file, tmp_path):
    source = resume_run(a_run).source
    recipe = load_recipe(recipe_file, ["segmenter.retrain=0"])
    run = open_run(tmp_path / "once", source, recipe)
    for name in ("classifier", "patterns", "segmenter"):
        shutil.copy(a_run / f"{name}.safetensors", run.out)
    run_stages(run)
    assert not (run.out / "retrain").exists()
    assert read_metrics(run.out)["prediction"]["images"] == 3


def test_masks_are_drawn_again_without_retraining(a_run, recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, ["segmenter.retrain=0", "segmenter.redraw=true"])
    run = open_run(tmp_path / "once", resume_run(a_run).source, recipe)
    for name in ("classifier", "patterns", "segmenter"):
        shutil.copy(a_run / f"{name}.safetensors", run.out)
    run_stages(run)
    drawn = {file.name: file.read_bytes() for file in (run.out / "retrain").iterdir()}
    assert drawn == {file.name: file.read_bytes() for file in (a_run / "retrain").iterdir()}
    assert not (run.out / "segmenter-retrained.safetensors").exists()
    assert read_metrics(run.out)["retrain"] == read_metrics(a_run)["retrain"]
    assert stages.stages_to_do(resume_run(run.out)) == []
    next((run.out / "retrain").iterdir()).unlink()
    run_stages(resume_run(run.out))
    assert len(list((run.out / "retrain").iterdir())) == len(drawn)
    assert stages.redo_stage(resume_run(run.out), "redraw") == ["predict", "evaluate", "report"]


def test_without_truth_the_scores_are_null(shapes, recipe_file, tmp_path, finished_run):
    shutil.rmtree(shapes / "masks")
    run = open_run(tmp_path / "run", Source(str(shapes), None, "train", "val"), load_recipe(recipe_file))
    for name in (
        "classifier.safetensors",
        "patterns.safetensors",
        "segmenter.safetensors",
        "segmenter-retrained.safetensors",
    ):
        shutil.copy(finished_run / name, run.out)
    said = run_stages(run)
    assert said["proxy"]["miou"] is None
    assert said["prediction"]["miou"] is None
    assert '"miou": null' in (run.out / "metrics.json").read_text()


def test_the_plan_names_what_is_left_to_do(a_run):
    said = planning.plan(resume_run(a_run))
    assert "11 photos of 2 classes" in said
    assert "evaluation: 3 photos" in said
    assert "classify" not in said
    (a_run / "segmenter-retrained.safetensors").unlink()
    assert "stages: estimate, redraw, retrain, predict" in planning.plan(resume_run(a_run))


def test_the_expected_time_counts_forward_passes(shapes_folder, tmp_path, monkeypatch):
    def seconds(*settings):
        recipe = load_recipe("fast", ["patterns.size=64", "segmenter.size=64", "segmenter.retrain=0", *settings])
        monkeypatch.setattr(planning.time, "monotonic", count().__next__)  # four photos of 64 px take a second
        return planning.estimate_seconds(Run(tmp_path, Source(str(shapes_folder)), recipe))

    by_epochs = seconds("segmenter.epochs=9") - seconds("segmenter.epochs=5")
    assert by_epochs == pytest.approx(14 * 4 * (1 / 4 + 0.01))  # a frozen backbone: the head takes as long again
    by_epochs = seconds("segmenter.train_from=C41", "segmenter.epochs=9") - seconds("segmenter.train_from=C41")
    assert by_epochs == pytest.approx(14 * 3 * (3 / 4 + 0.01))
    by_size = seconds("classifier.size=128") - seconds("classifier.size=64")
    assert by_size == pytest.approx(14 * 2 * 3 / 4)


def made_recipe(**proxy):
    recipe = load_recipe("luo2020-efficientnet-lite0")
    return recipe.model_copy(update={"proxy": recipe.proxy.model_copy(update=proxy)})


@pytest.fixture
def crf_calls(monkeypatch):
    """Replace the CRF by one that says class 1 (its second) everywhere, and count its calls."""
    calls = []

    def everywhere(photo, probabilities, **parameters):
        calls.append((probabilities, parameters))
        likely = np.zeros_like(probabilities)
        likely[1] = 1
        return likely

    monkeypatch.setattr(estimate, "dense_crf", everywhere)
    return calls


PHOTO = np.zeros((4, 6, 3), np.uint8)
SCORES = np.stack([np.full((2, 3), value, np.float32) for value in (1.0, -1.0, 2.0)])


@pytest.mark.parametrize(
    ("crf", "labels", "mask", "calls"),
    [
        ("none", [1], 1, 0),
        ("none", [2], 0, 0),
        ("none", [1, 3], 255, 0),
        ("single", [1, 3], 255, 0),
        ("single", [1, 2], 1, 0),
        ("single", [2], 2, 1),
        ("all", [2], 2, 1),
        ("all", [1, 2], 1, 1),
        ("all", [], 0, 0),
    ],
)
def test_the_crf_refines_the_photos_that_it_is_for(crf_calls, crf, labels, mask, calls):
    assert (estimate_mask(PHOTO, SCORES, labels, made_recipe(crf=crf)) == mask).all()
    assert len(crf_calls) == calls


def test_conflicts_stay_uncertain_or_are_decided_by_the_crf(crf_calls):
    assert (estimate_mask(PHOTO, SCORES, [1, 3], made_recipe(crf="all")) == 255).all()
    assert (estimate_mask(PHOTO, SCORES, [1, 3], made_recipe(crf="all", conflict="strongest")) == 1).all()
    assert (estimate_mask(PHOTO, SCORES, [1, 3], made_recipe(crf="none", conflict="strongest")) == 3).all()


def test_the_crf_gets_the_recipes_parameters(crf_calls):
    estimate_mask(PHOTO, SCORES, [1], made_recipe(threshold=0.5, sharpness=2.0))
    probabilities, parameters = crf_calls[0]
    np.testing.assert_allclose(probabilities[1], 1 / (1 + np.exp(-2 * (1 - 0.5))), rtol=1e-5)
    assert parameters == {"gaussian": (3, 3), "bilateral": (80, 13, 10), "steps": 10, "side": 1024}


def test_a_share_of_the_photos_peak_is_the_threshold():
    ramp = np.tile(np.arange(51, dtype=np.float32), (1, 2, 1))
    photo = np.zeros((2, 51, 3), np.uint8)
    mask = estimate_mask(photo, ramp, [1], made_recipe(crf="none", peak_share=0.5))
    assert (mask == (ramp[0] > 25)).all()
    assert (estimate_mask(photo, ramp, [1], made_recipe(crf="none", peak_share=0.5, threshold=10)) == (ramp > 35)).all()


@pytest.mark.parametrize(("per_skew", "share"), [(0.0, 0.2), (0.1, 0.2 + 0.1 * 1.25), (1.0, 0.65)])
def test_skewed_scores_have_to_come_nearer_to_their_peak(per_skew, share):
    """One position of n is 10, the rest are 0: a skewness of (n - 2) / sqrt(n - 1), here 3.75."""
    scores = np.zeros((1, 1, 17), np.float32)
    scores[0, 0, 2] = 10
    beyond = beyond_peak_share(scores, 0.2, per_skew)
    np.testing.assert_allclose(beyond, scores - 10 * share, rtol=1e-5)


def test_scores_are_the_mean_of_the_layers_and_some_of_the_class_activation(shapes_folder, recipe_file, tmp_path):
    settings = ["patterns.layers=[C41, layer3.0]", "patterns.contrast=0.3", "classifier.epochs=5"]
    run = open_run(tmp_path / "run", Source(str(shapes_folder), None, "val"), load_recipe(recipe_file, settings))
    run_stages(run, "discover")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    deep, shallow = (
        ClassPatterns.load(run.out / name).score(images)
        for name in ("patterns.safetensors", "patterns-layer3.0.safetensors")
    )
    shallow = torch.nn.functional.interpolate(shallow, deep.shape[2:], mode="bilinear", align_corners=False)
    found = look(run, images, [(1,), (2,)])[0]
    torch.testing.assert_close(found, (deep + shallow) / 2, rtol=1e-3, atol=1e-3)
    run.recipe = load_recipe(recipe_file, [*settings, "proxy.cam_weight=2"])
    added = look(run, images, [(1,), (2,)])[0] - found
    assert added.amax((2, 3)) == pytest.approx(2, abs=0.01)
    assert added.amin() >= -1e-4


@pytest.mark.parametrize(("name", "size"), [("vit_small_patch14_dinov2", 56), ("vit_tiny_patch16_dinov3_qkvb", 64)])
def test_self_supervised_transformers_go_through_all_stages(shapes_folder, tmp_path, name, size):
    settings = [f"{part}.size={size}" for part in ("classifier", "patterns", "segmenter")]
    settings += [f"inference.scales=[{size}]", "segmenter.epochs=1", "classifier.epochs=5"]
    settings += ["segmenter.retrain=0", "proxy.crf=none", "inference.crf=null"]
    recipe = load_recipe("dinov2-small", [*settings, f"backbone.name={name}", "backbone.weights=random"])
    run = open_run(tmp_path, Source(str(shapes_folder), None, "val"), recipe)
    run.train = run.train.with_samples(run.train.samples[-6:])
    run_stages(run, "predict")
    assert len([*(tmp_path / "predictions").iterdir()]) == len(run.train)


def test_layers_count_by_their_weights(shapes_folder, recipe_file, tmp_path):
    settings = ["patterns.layers=[layer1, layer2]", "classifier.epochs=5"]
    run = open_run(tmp_path, Source(str(shapes_folder), None, "val"), load_recipe(recipe_file, settings))
    run_stages(run, "discover")
    images = torch.stack([loading.as_tensor(loading.square(read_photo(s.image), 64)) for s in run.train.samples[:2]])

    def scored(weights):
        settings.append(f"patterns.layer_weights={weights}")
        run.recipe = load_recipe(recipe_file, settings)
        return look(run, images, [(1,), (2,)])[0]

    even, first, second = scored([]), scored([1, 1e-9]), scored([1e-9, 1])
    torch.testing.assert_close(scored([3, 1]), 0.75 * first + 0.25 * second)
    torch.testing.assert_close(scored([2, 2]), even)


@pytest.mark.parametrize("method", ["patterns", "cam", "ddt"])
def test_class_activations_are_of_the_scores_size(shapes_folder, recipe_file, tmp_path, method):
    """Also where the layer of the scores is finer than the one that is pooled."""
    settings = ["patterns.layers=[layer1]", "classifier.epochs=5", f"proxy.method={method}"]
    run = open_run(tmp_path, Source(str(shapes_folder), None, "val"), load_recipe(recipe_file, settings))
    run_stages(run, "discover")
    scores, activation = look(run, torch.zeros(1, 3, 64, 64), [(1,)])
    assert scores.shape == activation.shape


def test_the_classifier_settles_conflicts():
    activation = np.zeros_like(SCORES)
    activation[0] = 9
    for weight, wanted in ((0, 3), (1, 1)):
        recipe = made_recipe(crf="none", conflict="strongest", activation_weight=weight)
        assert (estimate_mask(PHOTO, SCORES, [1, 3], recipe, activation) == wanted).all()


def test_the_real_crf_follows_the_photo():
    photo = np.full((40, 40, 3), 60, np.uint8)
    photo[:, 20:] = 220
    scores = np.full((2, 40, 40), -0.5, np.float32)
    scores[:, :, 16:] = 0.5  # four columns too far
    mask = estimate_mask(photo, scores, [2], load_recipe("luo2020-efficientnet-lite0"))
    assert ((mask == 2) == (photo[..., 0] == 220)).mean() > 0.98


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return SegmentationNetwork("test_resnet", ["a", "b"], weights="random").eval()


@pytest.mark.parametrize("size", [(50, 70), (1, 300), (33, 20)])
def test_probabilities_at_the_photos_own_size(segmenter, size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    likely = predict_probabilities(segmenter, photo, [32, 64])
    assert likely.shape == (3, *size)
    np.testing.assert_allclose(likely.sum(0), 1, rtol=1e-4)
    single = [predict_probabilities(segmenter, photo, [side]) for side in (32, 64)]
    np.testing.assert_allclose(likely, np.mean(single, 0), atol=1e-5)


def test_known_labels_rule_the_other_classes_out(segmenter):
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    likely = predict_probabilities(segmenter, photo, [64], labels=[2])
    assert not likely[1].any()
    np.testing.assert_allclose(likely[[0, 2]].sum(0), 1, rtol=1e-4)
    assert (predict_probabilities(segmenter, photo, [64], labels=[])[0] == 1).all()


def test_the_mask_is_the_most_likely_class_before_and_after_a_crf():
    likely = np.zeros((4, 5, 6), np.float32)
    likely[0], likely[3] = 0.3, 0.7
    photo = np.zeros((5, 6, 3), np.uint8)
    assert (mask_of(photo, likely, None) == 3).all()
    assert (mask_of(photo, likely, CrfConfig()) == 3).all()
    only = np.zeros((2, 5, 6), np.float32)
    only[1] = 1
    assert (mask_of(photo, only, CrfConfig()) == 1).all()


def test_folders_of_masks_against_each_other(shapes_folder, tmp_path):
    truth = shapes_folder / "masks"
    perfect = score_folders(truth, truth)
    assert perfect == {"miou": 100.0, "iou": {"background": 100.0, "1": 100.0, "2": 100.0}, "images": 14}
    shutil.copytree(truth, tmp_path / "masks")
    empty = np.zeros_like(read_mask(truth / "p00.png"))
    Image.fromarray(empty).save(tmp_path / "masks/p00.png")
    few = score_folders(tmp_path / "masks", truth, ["p00", "p05"], ["disc", "square"])
    assert few["images"] == 2
    assert few["iou"]["disc"] == 0
    assert few["iou"]["square"] == 100
    assert few["miou"] == pytest.approx((few["iou"]["background"] + 100) / 3, abs=0.01)


def test_the_python_face(finished_run, shapes_folder, recipe_file, a_run):
    model = t2m.load_segmenter(finished_run)
    photo = shapes_folder / "photos/p04.jpg"
    mask = model.predict(photo)
    np.testing.assert_array_equal(mask, read_mask(finished_run / "predictions/p04.png"))
    np.testing.assert_array_equal(mask, model.predict(read_photo(photo)))
    data = t2m.load(shapes_folder, labels="tags.csv")
    assert len(data) == 14
    again = t2m.run(shapes_folder, a_run, recipe_file, split="train", eval_split="val")
    assert again.out == a_run
    assert again.scores.prediction.model_dump() == read_metrics(finished_run)["prediction"]


def test_a_run_of_a_loaded_image_set_is_taken_up_by_its_folder(shapes_folder, recipe_file, tmp_path):
    data = load(shapes_folder, split="train")
    assert data.with_samples(data.samples[:3]).origin is None  # it is not what the folder holds
    result = t2m.run(data, tmp_path / "run", recipe_file, eval_split="val", settings=["segmenter.retrain=0"])
    run = resume_run(result.out)
    assert run.train == data
    assert (len(run.train), len(run.evaluation)) == (11, 3)
    run_stages(run, "evaluate")


def test_an_image_set_made_in_python_runs(shapes_folder, recipe_file, tmp_path):
    data = t2m.load(shapes_folder)
    few = data.with_samples(data.samples[::2])
    settings = ["segmenter.epochs=1", "segmenter.retrain=0", "classifier.epochs=5"]
    result = t2m.run(few, tmp_path / "run", recipe_file, settings=settings)
    assert result.scores.prediction.images == 7
    assert result.scores.classifier.images == 2


def test_the_data_may_lie_in_the_run_folder(shapes, recipe_file):
    recipe, source = load_recipe(recipe_file), Source(str(shapes))
    assert open_run(shapes.parent, source, recipe).train.classes == ("disc", "square")
    (shapes.parent / "config.yaml").unlink()
    (shapes.parent / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="is not empty"):
        open_run(shapes.parent, source, recipe)


def test_no_segmenter_yet(a_run, tmp_path):
    (a_run / "segmenter-retrained.safetensors").unlink()
    with pytest.raises(RunError, match="does not exist; finish the run"):
        t2m.load_segmenter(a_run)
    with pytest.raises(RunError, match=r"no config.yaml"):
        t2m.load_segmenter(tmp_path)


def test_fine_tuning_all_of_the_classifier(shapes_folder, recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, ["classifier.train=all", "classifier.epochs=1", "classifier.train_from=C41"])
    run = open_run(tmp_path / "run", Source(str(shapes_folder)), recipe)
    run_stages(run, "discover")
    assert sorted(file.name for file in run.out.iterdir()) == [
        ".lock",
        "classifier.safetensors",
        "config.yaml",
        "data.json",
        "metrics.json",
        "patterns.safetensors",
    ]


def test_several_layers_and_rounds(shapes_folder, recipe_file, tmp_path):
    recipe = load_recipe(
        recipe_file,
        ["patterns.layers=[C41, layer3.0]", "segmenter.retrain=2", "segmenter.epochs=1", "classifier.epochs=5"],
    )
    run = open_run(tmp_path / "run", Source(str(shapes_folder), None, "val"), recipe)
    run_stages(run, "retrain")
    for file in (run.out / "retrain").iterdir():  # which is not the round that is scored
        write_mask(file, np.zeros_like(read_mask(file)))
    tasks.evaluate(run)
    assert read_metrics(run.out)["retrain"] == score_set(run.train, run.out / "retrain-2")
    assert set(open_masks(run.out, masks="retrain").files.values()) == {*(run.out / "retrain-2").iterdir()}
    files = {file.name for file in run.out.glob("*.safetensors")}
    assert {"patterns.safetensors", "patterns-layer3.0.safetensors"} <= files
    assert {"segmenter-retrained.safetensors", "segmenter-retrained-2.safetensors"} <= files
    assert len(list((run.out / "retrain-2").glob("*.png"))) == 3


def test_unreadable_photos_are_skipped_in_every_stage(shapes, recipe_file, tmp_path, caplog):
    broken = shapes / "photos/p03.jpg"
    broken.write_bytes(broken.read_bytes()[:900])  # the header can be read, the pixels cannot
    recipe = load_recipe(recipe_file, ["segmenter.epochs=1", "segmenter.size=32", "classifier.epochs=5"])
    run = open_run(tmp_path / "run", Source(str(shapes)), recipe)
    said = run_stages(run)
    assert "p03.jpg" in caplog.text
    assert said["proxy"]["images"] == said["prediction"]["images"] == 13
    assert not (run.out / "proxy/p03.png").exists()
    strict = open_run(tmp_path / "strict", run.source, recipe, strict=True)
    with pytest.raises(DataError, match=r"p03\.jpg"):
        run_stages(strict)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4, 0.5])
def test_a_share_of_the_photos_is_held_out(shapes_folder, recipe_file, tmp_path, share):
    run = Run(tmp_path, Source(str(shapes_folder)), load_recipe(recipe_file, {"classifier.holdout": share}))
    fitted, held = tasks._hold_out(run)
    assert abs(len(held) - 14 * share) < 1
    assert sorted([*fitted, *held], key=lambda sample: sample.name) == list(run.train.samples)
