"""The segmenter as ONNX, run by onnxruntime, and as a folder in Hugging Face's layout."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from torch.nn import functional

import tag2mask as t2m
from tag2mask.config import InferenceConfig, parse_recipe
from tag2mask.exports import models
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.segmenter import model_card


@pytest.fixture(scope="module")
def onnx_file(finished_run, tmp_path_factory):
    return t2m.export("onnx", finished_run, tmp_path_factory.mktemp("onnx") / "new/segmenter.onnx")


@pytest.fixture
def folder(finished_run, tmp_path):
    return t2m.export("huggingface", finished_run, tmp_path / "segmenter")


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (2, 75, 121), (3, 30, 97)])
def test_onnxruntime_gives_what_this_package_gives(finished_run, onnx_file, batch, height, width):
    images = np.random.default_rng(1).integers(0, 256, (batch, height, width, 3), np.uint8)
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    (given,) = session.run(["probabilities"], {"image": (images / np.float32(255)).transpose(0, 3, 1, 2)})
    assert given.dtype == np.float32
    assert given.shape == (batch, 3, height, width)
    model = t2m.load_segmenter(finished_run)
    wanted = np.stack([model.predict_proba(image) for image in images])
    assert np.abs(given - wanted).max() < 1e-3
    assert wanted.std() > 0.01


@pytest.mark.parametrize(("length", "side"), [(97, 31), (31, 97), (64, 64), (500, 41)])
def test_shrinking_is_torchs_antialiased_resizing(length, side):
    image = torch.rand(1, 3, length, 9)
    wanted = functional.interpolate(image, (side, 9), mode="bilinear", antialias=True)
    torch.testing.assert_close(models.shrinking(image[0, 0, :, 0], side) @ image, wanted)


KINDS = [
    ("fast", "tf_efficientnet_lite0", "[96]"), ("balanced", "tf_efficientnet_lite0", "[64, 96]"),
    ("luo2020-efficientnet-lite0", "tf_efficientnet_lite0", "[48, 64, 96]"),
    ("luo2020-voc-resnet101", "test_resnet", "[48, 64, 96]"), ("luo2020-voc-vgg16", "vgg11", "[64, 96]"),
    ("dinov2-small", "test_vit", "[64]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "backbone", "scales"), KINDS, ids=[name for name, *_ in KINDS])
def test_the_mask_of_onnx_is_that_of_predict_without_crf(
    name, backbone, scales, a_trained, photos_20, tmp_path, caplog
):
    """For every kind of segmenter that the recipes have: light with and without tags, LargeFOV, a transformer."""
    model = a_trained(name, backbone, scales)
    model.save_pretrained(tmp_path / "saved")
    file = t2m.export("onnx", tmp_path / "saved", tmp_path / "a.onnx")
    assert "all of predict but the dense CRF" in caplog.text
    assert file.stat().st_size < 1.2 * (tmp_path / "saved/model.safetensors").stat().st_size  # weights are there once
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    plain = t2m.Segmenter(model.network, t2m.load_recipe(model.recipe, {"inference.crf": None}))
    same, pixels, seen = 0, 0, set()
    for photo, mask in zip(photos_20, plain.predict(photos_20), strict=True):
        (given,) = session.run(None, {"image": (photo / np.float32(255)).transpose(2, 0, 1)[None]})
        same += (given[0].argmax(0) == mask).sum()
        pixels += mask.size
        seen |= set(np.unique(mask))
    assert same / pixels >= 0.999
    assert len(seen) > 1


def test_a_scale_or_a_weight_left_out_would_be_seen(a_trained, photos_20):
    """The masks of the kinds above depend on what the graph has to carry."""
    model = a_trained("balanced", "tf_efficientnet_lite0", "[64, 96]")
    masks = {}
    for setting in ("workers=0", "inference.scales=[96]", "inference.background_weight=1"):
        recipe = t2m.load_recipe(model.recipe, ["inference.crf=null", setting])
        masks[setting] = np.concatenate(
            [mask.ravel() for mask in t2m.Segmenter(model.network, recipe).predict(photos_20)]
        )
    whole = masks.pop("workers=0")
    for setting, mask in masks.items():
        assert (mask == whole).mean() < 0.998, setting


@pytest.fixture(scope="module")
def photos_20():
    """Photos of 20 sizes: of a data set where it is there, else smooth colours."""
    files = sorted((Path(__file__).parents[2] / "../shared/data/voc2012/JPEGImages").glob("*.jpg"))[:20]
    if len(files) == 20:
        return [np.asarray(Image.open(file).convert("RGB").reduce(3)) for file in files]
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 256, (5, 6, 3), np.uint8) for _ in range(20)]
    return [np.asarray(Image.fromarray(c).resize((90 + 3 * n, 150 - 4 * n), 3)) for n, c in enumerate(coarse)]


@pytest.fixture
def a_trained(photos_20):
    """A segmenter of a recipe's kind on a small backbone; its weights are random but its masks are of many classes."""
    square = torch.stack([torch.from_numpy(np.array(Image.fromarray(p).resize((64, 64)))) for p in photos_20])

    def make(name, backbone, scales):
        recipe = t2m.load_recipe(name, [f"inference.scales={scales}"])
        how, classes = recipe.segmenter, [f"class {number}" for number in range(5)]
        network = SegmentationNetwork(
            backbone, classes, head=how.head, output_stride=how.output_stride, weights="random", tags=how.tag_weight > 0
        )
        for parameter in network.head.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=2 * (2 / parameter[0].numel()) ** 0.5)
        trained = t2m.Segmenter(network, recipe)
        last = (network.head.decode if how.head == "light" else network.head.layers)[-1]
        with torch.no_grad():
            last.bias -= network(square.permute(0, 3, 1, 2)).mean((0, 2, 3))
        return trained

    return make


def snippet():
    page = (Path(__file__).parents[2] / "docs/exports.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return code


@pytest.mark.parametrize(
    ("tiles", "least"), [(None, 0.999), ({"side": 64, "overlap": 16}, 0.94)], ids=["whole", "tiled"]
)
def test_the_snippet_of_the_docs_gives_the_masks_of_predict(a_trained, photos_20, tmp_path, monkeypatch, tiles, least):
    """Of a photo that its EXIF turns. Tiles are joined at the photo's size, not at the map's as in `predict`.

    With random weights many pixels are near a tie; without the presence of tags for the photo 0.79 would be equal.
    """
    model = a_trained("balanced", "tf_efficientnet_lite0", "[64, 96]")
    plain = t2m.Segmenter(model.network, t2m.load_recipe(model.recipe, {"inference.crf": None, "tiles": tiles}))
    plain.save_pretrained(tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    t2m.export("onnx", tmp_path / "saved", "segmenter.onnx")
    photo = Image.fromarray(photos_20[1])
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save("photo.jpg", exif=exif, quality=95)
    given = {}
    exec(compile(snippet(), "exports.md", "exec"), given)
    wanted = plain.predict("photo.jpg")
    assert given["mask"].shape == wanted.shape == photo.size
    assert given["classes"] == ["background", *model.classes]
    assert len(np.unique(wanted)) > 1
    assert (given["mask"] == wanted).mean() >= least


def test_what_the_onnx_file_says_of_itself(onnx_file):
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["classes"]) == ["background", "disc", "square"]
    assert "RGB, 0 to 1" in about["input"]
    assert json.loads(about["scales"]) == [64]
    assert (json.loads(about["background_weight"]), about["crf"], about["fill_specks"]) == (1.0, "none", "none")
    names = [[axis.dim_param or axis.dim_value for axis in put.type.tensor_type.shape.dim] for put in
             (*model.graph.input, *model.graph.output)]  # fmt: skip
    assert names == [["batch", 3, "height", "width"]] * 2
    assert [file.name for file in onnx_file.parent.iterdir()] == ["segmenter.onnx"]


def test_the_newer_exporter_where_tracing_cannot(monkeypatch, tmp_path):
    class Small(torch.nn.Conv2d):
        classes, backbone = ("disc",), SimpleNamespace(is_transformer=False)

    def unable(*arguments, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(models, "_traced", unable)
    torch.manual_seed(0)
    graph = models.Graph(Small(3, 2, 3, stride=4), InferenceConfig(scales=[32, 40], background_weight=0.5)).eval()
    onnx.save(models._to_onnx(graph), tmp_path / "small.onnx")
    image = torch.rand(3, 3, 50, 41)
    (given,) = onnxruntime.InferenceSession(tmp_path / "small.onnx").run(None, {"image": image.numpy()})
    assert np.abs(given - graph(image).detach().numpy()).max() < 1e-3


def test_onnx_without_the_extra(monkeypatch, refused, finished_run, tmp_path):
    monkeypatch.setattr(models, "find_spec", lambda name: None if name == "onnxruntime" else name)
    line = refused("onnx", finished_run, "--out", tmp_path / "s.onnx", says="needs onnxruntime")
    assert "pip install 'tag2mask[export]'" in line


def test_a_graph_that_cannot_be_written_or_differs_is_refused(monkeypatch, refused, finished_run, onnx_file, tmp_path):
    def unable(graph):
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(models, "_to_onnx", unable)
    refused("onnx", finished_run, "--out", tmp_path / "s.onnx", says="as ONNX (no such operator)")
    monkeypatch.setattr(models, "_to_onnx", lambda graph: onnx.load(onnx_file))
    line = refused("onnx", finished_run, "--rounds", 0, "--out", tmp_path / "s.onnx", says="differs from torch by")
    assert "97 x 131" in line


def test_a_folder_is_taken_back_with_the_same_outputs(finished_run, folder, shapes_folder):
    before = t2m.load_segmenter(finished_run)
    for after in (t2m.load_segmenter(folder), t2m.Segmenter.from_pretrained(folder, device="cpu")):
        image = torch.rand(1, 3, 70, 90)
        with torch.inference_mode():
            assert torch.equal(before.network(image), after.network(image))
    photo = shapes_folder / "photos/p04.jpg"
    assert (before.predict(photo) == after.predict(photo)).all()
    assert after.recipe == before.recipe


def test_predict_with_a_folder(command, finished_run, folder, shapes_folder, tmp_path):
    said = command("predict", folder, shapes_folder, "--split", "val", "--out", tmp_path / "masks")
    assert said.code == 0, said.err
    for file in (finished_run / "predictions").iterdir():
        assert (tmp_path / "masks" / file.name).read_bytes() == file.read_bytes()


def test_what_the_folder_holds(finished_run, folder):
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "background", "1": "disc", "2": "square"}
    assert config["label2id"] == {"background": 0, "disc": 1, "square": 2}
    assert parse_recipe(config["recipe"], "config.json").inference.scales == [64]
    with safe_open(folder / "model.safetensors", "pt") as opened:
        assert "tag2mask" in opened.metadata()
    card = (folder / "README.md").read_text()
    assert ModelCard(card).data.pipeline_tag == "image-segmentation"
    miou = json.loads((finished_run / "metrics.json").read_text())["prediction"]["miou"]
    assert f"mIoU {miou:.1f}% on 3 photos that it was not trained on." in card
    assert "| 2 | square |" in card
    assert 'Segmenter.from_pretrained("FOLDER")' in card
    assert yaml.safe_load(card.split("```yaml")[1].split("```")[0]) == config["recipe"]


def test_an_earlier_segmenter_has_other_weights_and_no_scores(finished_run, folder, tmp_path):
    first = t2m.export("huggingface", finished_run, tmp_path / "first", rounds=0)
    assert (first / "model.safetensors").read_bytes() == (finished_run / "segmenter.safetensors").read_bytes()
    assert (first / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    assert "mIoU" not in (first / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.update(evaluation=None), "on the 3 photos it was trained on. Expect a lower score"),
        (
            lambda data: data["train"].update(p04=data["evaluation"]["p04"]),
            "on 3 photos, 1 of which it was trained on. Expect a lower score",
        ),
        (lambda data: data["train"].update(data["evaluation"]), "on the 3 photos it was trained on."),
        (lambda data: data["train"].update(p04=data["train"]["p00"]), "that it was not trained on."),  # another file
        (None, "on the 3 photos it was trained on."),
    ],
)
def test_the_card_says_whether_the_scored_photos_were_trained_on(a_run, tmp_path, change, says):
    """Without a fingerprint it is not known, and the worse is assumed."""
    file = a_run / "data.json"
    data = json.loads(file.read_text())
    file.unlink()
    if change is not None:
        change(data)
        file.write_text(json.dumps(data))
    card = (t2m.export("huggingface", a_run, tmp_path / "out") / "README.md").read_text()
    assert says in card
    again = t2m.export("huggingface", tmp_path / "out", tmp_path / "again")
    assert "No scores are known" in (again / "README.md").read_text()


def test_a_folder_says_nothing_of_this_machine(a_run, tmp_path):
    """The recipe may name a file of weights by a private path."""
    values = yaml.safe_load((a_run / "config.yaml").read_text())
    values["recipe"]["backbone"]["weights"] = "/home/someone/secret/resnet.pth"
    values["recipe"]["segmenter"]["backbone"] = {"name": "resnet10t", "weights": "/home/someone/secret/other.pth"}
    (a_run / "config.yaml").write_text(yaml.safe_dump(values))
    out = t2m.export("huggingface", a_run, tmp_path / "out")
    for file in ("README.md", "config.json"):
        text = (out / file).read_text()
        assert "resnet.pth" in text
        assert "other.pth" in text
        for private in ("secret", str(a_run), values["data"]["path"]):
            assert private not in text


def test_a_card_of_awkward_class_names():
    classes = ("a|b", "two\nlines", "día")
    card = model_card(classes, parse_recipe({"name": "ñ: [x]\n---"}, "test"))
    assert "| 1 | a\\|b | - |\n| 2 | two lines | - |\n| 3 | día | - |\n" in card
    assert yaml.safe_load(card.split("```yaml")[1].split("```")[0])["name"] == "ñ: [x]\n---"
    assert "No scores are known: there were no true masks" in card


def test_bad_input(command, refused, a_run, folder, tmp_path):
    out = tmp_path / "out"
    refused("huggingface", tmp_path, "--out", out, says="holds no run")
    refused("huggingface", a_run, "--out", folder, says="not empty")
    refused("huggingface", a_run, "--out", out, "--rounds", 5, says="another --rounds")
    refused("huggingface", a_run, "--out", out, "--masks", "proxy", says="--masks means nothing")
    refused("onnx", a_run, "--out", out, says="ending in .onnx")
    file = a_run / "segmenter-retrained.safetensors"
    file.write_bytes(file.read_bytes()[:4000])
    refused("huggingface", a_run, "--out", out, says="segmenter-retrained.safetensors is corrupt")
    refused("onnx", a_run, "--out", tmp_path / "s.onnx", says="segmenter-retrained.safetensors is corrupt")
    for text in ("{", "[]", '{"recipe": 3}', '{"recipe": {"nmae": 1}}'):
        (folder / "config.json").write_text(text)
        said = command("predict", folder, tmp_path, "--out", out)
        assert said.code == 2
        assert "config.json" in said.err
        assert len(said.err.splitlines()) == 1
    shutil.rmtree(folder)
    refused("onnx", folder, "--out", tmp_path / "s.onnx", says="holds no run")
