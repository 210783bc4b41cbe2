"""The segmenter as ONNX, run by onnxruntime, and as a folder in Hugging Face's layout."""

from __future__ import annotations

import json
import shutil
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

import tag2mask as t2m
from tag2mask.config import parse_recipe
from tag2mask.exports import models
from tag2mask.inference import predict_probabilities


@pytest.fixture(scope="module")
def onnx_file(finished_run, tmp_path_factory):
    return t2m.export("onnx", finished_run, tmp_path_factory.mktemp("onnx") / "new/segmenter.onnx")


@pytest.fixture
def folder(finished_run, tmp_path):
    return t2m.export("huggingface", finished_run, tmp_path / "segmenter")


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (2, 75, 121), (3, 130, 97)])
def test_onnxruntime_gives_what_torch_gives(finished_run, onnx_file, batch, height, width):
    segmenter = t2m.load_segmenter(finished_run).segmenter.cpu()
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = segmenter(255 * image)
        upsampled = torch.nn.functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        wanted = upsampled.softmax(1).numpy()
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    (given,) = session.run(["probabilities"], {"image": image.numpy()})
    assert given.dtype == np.float32
    assert given.shape == (batch, 3, height, width)
    assert np.abs(given - wanted).max() < 1e-3
    assert wanted.std() > 0.01


def test_onnx_on_a_photo_gives_this_packages_probabilities(finished_run, onnx_file, shapes_folder):
    """A user's whole way: a photo at one of the scales, divided by 255."""
    photo = np.array(Image.open(shapes_folder / "photos/p04.jpg").resize((64, 64)))
    image = (photo.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    (given,) = onnxruntime.InferenceSession(onnx_file).run(None, {"image": image})
    wanted = predict_probabilities(t2m.load_segmenter(finished_run).segmenter, photo, [64])
    assert np.abs(given[0] - wanted).max() < 1e-3


def test_what_the_onnx_file_says_of_itself(onnx_file):
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["classes"]) == ["background", "disc", "square"]
    assert "RGB, 0 to 1" in about["input"]
    assert json.loads(about["scales"]) == [64]
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
    graph = models.Graph(Small(3, 2, 3, stride=4)).eval()
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
    before, after = t2m.load_segmenter(finished_run), t2m.load_segmenter(folder)
    image = torch.rand(1, 3, 70, 90)
    with torch.inference_mode():
        assert torch.equal(before.segmenter(image), after.segmenter(image))
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
    assert f"mIoU {miou:.1f}% on the 3 photos" in card
    assert "| 2 | square |" in card
    assert 'load_segmenter("FOLDER")' in card
    assert yaml.safe_load(card.split("```yaml")[1].split("```")[0]) == config["recipe"]


def test_an_earlier_segmenter_has_other_weights_and_no_scores(finished_run, folder, tmp_path):
    first = t2m.export("huggingface", finished_run, tmp_path / "first", rounds=0)
    assert (first / "model.safetensors").read_bytes() == (finished_run / "segmenter.safetensors").read_bytes()
    assert (first / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    assert "mIoU" not in (first / "README.md").read_text()


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
    card = models.model_card(classes, parse_recipe({"name": "ñ: [x]\n---"}, "test"))
    assert "| 1 | a\\|b | - |\n| 2 | two lines | - |\n| 3 | día | - |\n" in card
    assert yaml.safe_load(card.split("```yaml")[1].split("```")[0])["name"] == "ñ: [x]\n---"
    assert "no true masks" in card


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
