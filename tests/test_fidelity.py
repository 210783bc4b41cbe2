"""The recipes of the paper, and the networks and trainings that they lead to, against its description (no weights)."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

from tag2mask.config import load_recipe
from tag2mask.data import load, read_mask, write_mask
from tag2mask.data.readers.coco import load_coco
from tag2mask.data.readers.voc import VOC_CLASSES
from tag2mask.names import recipe_names
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.runs import tasks
from tag2mask.runs.folder import Source, open_run
from tag2mask.training.classifier import train_classifier
from tag2mask.training.segmenter import train_segmenter

METHOD = {
    "proxy": {"threshold": 0, "conflict": "ignore", "crf": "single"},
    "segmenter": {"retrain": 1},
    "inference": {"scales": [241, 328, 401]},
}
"""What makes a recipe the paper's method, on whatever backbone."""

PUBLISHED = {
    "classifier": {"train": "all"},
    "patterns": {"layers": ["C41"]},
    "segmenter": {
        "head": "largefov", "output_stride": 8, "train_from": "", "size": 328, "crop": 1, "label_stride": 1,
        "epochs": 20, "batch_size": 16, "schedule": "constant", "weight_decay": 0,
        "learning_rate": 1e-4, "backbone_learning_rate": 5e-6, "retrain": 1,
    },
}  # fmt: skip
"""What the paper's own experiments are, beyond `METHOD`."""

PAPER = {"luo2020-voc-resnet101": 800, "luo2020-voc-vgg16": 800, "luo2020-coco-resnet101": 2000}
"""The recipes of the paper's experiments, and how many photos a semantic subset has at most."""


def assert_holds(values, wanted):
    for part, parameters in wanted.items():
        assert {name: values[part][name] for name in parameters} == parameters


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("luo2020")])
def test_recipes_named_after_the_paper_do_what_it_does(name):
    recipe = load_recipe(name)
    assert_holds(recipe.model_dump(), METHOD)
    assert recipe.patterns.layers[0] == "C41"
    assert recipe.inference.crf is not None
    assert recipe.patterns.images_per_class == PAPER.get(name, 800)


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_say_its_parameters(name):
    """They stand in the file, so that a default that changes does not change them."""
    said = yaml.safe_load(resources.files("tag2mask").joinpath(f"recipes/{name}.yaml").read_text("utf-8"))
    assert_holds(said, METHOD)
    assert_holds(said, PUBLISHED)
    assert said["patterns"]["images_per_class"] == PAPER[name]
    assert said["backbone"]["name"].startswith("resnet101")


def test_only_the_segmenter_is_vgg16s():
    resnet, vgg = (load_recipe(f"luo2020-voc-{name}") for name in ("resnet101", "vgg16"))
    assert vgg.segmenter.backbone.name.startswith("vgg16")
    same = {"name": resnet.name, "segmenter": vgg.segmenter.model_copy(update={"backbone": None})}
    assert vgg.model_copy(update=same) == resnet


def segmenter_of(recipe, classes=VOC_CLASSES):
    how = recipe.segmenter
    with torch.device("meta"):
        return SegmentationNetwork(
            (how.backbone or recipe.backbone).name,
            classes,
            head=how.head,
            output_stride=how.output_stride,
            weights="random",
        )


def test_features_of_resnet101():
    name = load_recipe("luo2020-voc-resnet101").backbone.name
    with torch.device("meta"):
        backbone = Backbone(name, ["C41", "C42", "C43"], output_stride=8, weights="random")
        maps = backbone(torch.zeros(1, 3, 328, 328))
    names = ["layer4.0", "layer4.1", "layer4.2"]
    assert backbone.layers == names
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == dict.fromkeys([*names, LAST], (1, 2048, 41, 41))
    assert [len(getattr(backbone.model, f"layer{stage}")) for stage in (1, 2, 3, 4)] == [3, 4, 23, 3]


def test_the_last_block_is_what_is_pooled():
    backbone = Backbone("resnet18", ["layer4.1"], weights="random")
    maps = backbone.eval()(torch.rand(1, 3, 64, 64) * 255)
    assert torch.equal(maps["layer4.1"], maps[LAST])


def layers_of(module):
    """Return convolutions as (inputs, outputs, kernel, dilation), pools as (kernel, stride), dropout as its share."""
    described = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.kernel_size[0] == layer.kernel_size[1]
            assert layer.padding[0] == layer.dilation[0] * (layer.kernel_size[0] // 2)
            described.append((layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.dilation[0]))
        elif isinstance(layer, nn.MaxPool2d):
            assert (layer.kernel_size, layer.padding, layer.ceil_mode) == (3, 1, False)
            described.append(("pool", layer.stride))
        elif isinstance(layer, nn.AvgPool2d):
            assert (layer.kernel_size, layer.stride, layer.padding, layer.count_include_pad) == (3, 1, 1, True)
            described.append("average")
        elif isinstance(layer, nn.Dropout):
            described.append(layer.p)
    return described


def test_vgg16_large_fov():
    segmenter = segmenter_of(load_recipe("luo2020-voc-vgg16"))
    assert layers_of(segmenter.backbone.model.features) == [
        (3, 64, 3, 1), (64, 64, 3, 1), ("pool", 2),
        (64, 128, 3, 1), (128, 128, 3, 1), ("pool", 2),
        (128, 256, 3, 1), (256, 256, 3, 1), (256, 256, 3, 1), ("pool", 2),
        (256, 512, 3, 1), (512, 512, 3, 1), (512, 512, 3, 1), ("pool", 1),
        (512, 512, 3, 2), (512, 512, 3, 2), (512, 512, 3, 2), ("pool", 1),
    ]  # fmt: skip
    fully_connected = [(512, 1024, 3, 12), 0.5, (1024, 1024, 1, 1), 0.5, (1024, 21, 1, 1)]
    assert layers_of(segmenter.head) == ["average", *fully_connected]


@pytest.mark.parametrize("network", ["vgg16", "resnet101"])
def test_the_maps_of_large_fov(network):
    """As many positions as DeepLab's train.prototxt gives at 32 k - 31 pixels, and 41 at the paper's 328."""
    segmenter = segmenter_of(load_recipe(f"luo2020-voc-{network}"))
    for side, positions in ((241, 31), (321, 41), (328, 41), (401, 51)):
        maps = segmenter(torch.zeros(1, 3, side, side, device="meta"))
        assert maps.shape == (1, 21, positions, positions)


def test_resnet101_large_fov():
    segmenter = segmenter_of(load_recipe("luo2020-coco-resnet101"), [str(index) for index in range(80)])
    assert layers_of(segmenter.head) == [(2048, 81, 3, 12)]
    for stage, dilation in (("layer1", 1), ("layer2", 1), ("layer3", 2), ("layer4", 4)):
        blocks = getattr(segmenter.backbone.model, stage)
        assert {block.conv2.dilation for block in blocks} == {(dilation, dilation)}
    assert segmenter(torch.zeros(1, 3, 328, 328, device="meta")).shape == (1, 81, 41, 41)


@pytest.fixture
def asked(monkeypatch):
    """What `fit` is asked to do, which it then does not."""
    calls = []
    for part in ("classifier", "segmenter"):
        monkeypatch.setattr(
            f"tag2mask.training.{part}.fit",
            lambda model, data, loss, optimiser, **how: calls.append((data, loss, optimiser, how)),
        )
    return calls


def rates(optimiser, part):
    """Return the learning rates of a part's parameters, each of which must be in one group."""
    known = [(parameter, group["lr"]) for group in optimiser.param_groups for parameter in group["params"]]
    found = [[rate for other, rate in known if other is parameter] for parameter in part.parameters()]
    assert all(len(one) == 1 for one in found)
    return {rate for (rate,) in found}


@pytest.mark.parametrize("name", PAPER)
def test_the_training_of_the_segmenter(name, asked, shapes_folder, tmp_path):
    recipe, samples = load_recipe(name), load(shapes_folder).samples
    segmenter = SegmentationNetwork("test_resnet", ["disc", "square"], head="largefov", weights="random")
    train_segmenter(
        segmenter, samples, shapes_folder / "masks", recipe.segmenter, seed=0, workers=0, checkpoint=tmp_path / "c"
    )
    data, _, optimiser, how = asked[0]
    assert (how["epochs"], how["batch_size"], how["schedule"]) == (20, 16, "constant")
    assert [tuple(part.shape[-2:]) for part in data[0][1][:2]] == [(328, 328)] * 2
    assert segmenter.tags is None
    assert recipe.segmenter.tag_weight == 0
    assert rates(optimiser, segmenter.backbone) == {5e-6}
    assert rates(optimiser, segmenter.head) == {1e-4}
    # Without decay AdamW is Adam (Kingma and Ba 2015).
    assert isinstance(optimiser, torch.optim.Adam | torch.optim.AdamW)
    groups = optimiser.param_groups
    assert {(*group["betas"], group["eps"], group["weight_decay"]) for group in groups} == {(0.9, 0.999, 1e-8, 0.0)}


def test_the_training_of_the_classifier(asked, shapes_folder, tmp_path):
    how, data = load_recipe("luo2020-voc-resnet101").classifier, load(shapes_folder)
    classifier = Classifier(Backbone("test_resnet", weights="random"), data.classes)
    train_classifier(classifier, data.samples, how, seed=0, workers=0, checkpoint=tmp_path / "c")
    _, loss, optimiser, _ = asked[0]
    assert rates(optimiser, classifier.backbone) == {how.backbone_learning_rate}
    assert rates(optimiser, classifier.head) == {how.learning_rate}
    logits, targets = torch.randn(3, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    model = SimpleNamespace(classify=lambda features: SimpleNamespace(logits=logits))
    value = loss(model, torch.zeros(1, 3, 32, 32), targets)
    chances = logits.sigmoid()
    wanted = -(targets * chances.log() + (1 - targets) * (1 - chances).log()).mean()
    torch.testing.assert_close(value, wanted)


def test_the_loss_is_the_mean_over_the_pixels_that_are_not_255(asked, shapes_folder, tmp_path):
    how = load_recipe("luo2020-voc-resnet101").segmenter
    segmenter = SegmentationNetwork("test_resnet", ["disc", "square"], weights="random")
    train_segmenter(segmenter, load(shapes_folder).samples, tmp_path, how, seed=0, workers=0, checkpoint=tmp_path / "c")
    loss = asked[0][1]
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    targets = torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8)
    targets[0], targets[1, :, :5] = 255, 255
    model = SimpleNamespace(decode_with_tags=lambda features: (logits, None))
    value = loss(model, torch.zeros(1, 3, 32, 32), targets, torch.ones(2, 2))
    chances = functional.interpolate(logits, (8, 8), mode="bilinear", align_corners=False).log_softmax(1)
    counted = [(1, row, column) for row in range(8) for column in range(5, 8)]
    wanted = torch.stack([-chances[n, int(targets[n, i, j]), i, j] for n, i, j in counted]).mean()
    torch.testing.assert_close(value, wanted)
    value.backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_retraining_starts_from_scratch(shapes_folder, recipe_file, tmp_path, monkeypatch):
    """Both trainings start from the file of weights with a new head; the second sees the first's predictions."""
    model = Backbone("test_resnet", weights="random").model
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    settings = [f"segmenter.backbone={{name: test_resnet, weights: {tmp_path / 'weights.safetensors'}}}"]
    run = open_run(tmp_path / "run", Source(str(shapes_folder), split="train"), load_recipe(recipe_file, settings))
    for sample in run.train.samples:
        write_mask(run.out / f"proxy/{sample.name}.png", read_mask(sample.mask))
    starts, seen = [], []

    def train(segmenter, samples, masks, how, **options):
        starts.append({name: tensor.clone() for name, tensor in segmenter.state_dict().items()})
        seen.append((masks.name, len(samples)))
        with torch.no_grad():
            for parameter in segmenter.parameters():
                parameter.mul_(1.01)

    monkeypatch.setattr("tag2mask.runs.tasks.train_segmenter", train)
    tasks.segment(run)
    tasks.redraw(run)
    tasks.retrain(run)
    assert seen == [("proxy", 11), ("retrain", 11)]
    first, second = starts
    for name, tensor in weights.items():
        assert torch.equal(first[f"backbone.model.{name}"], tensor)
        assert torch.equal(second[f"backbone.model.{name}"], tensor)
    trained = load_file(run.segmenter_after(0))
    heads = [name for name in first if name.startswith("head.") and name.endswith("weight") and first[name].ndim > 1]
    assert heads
    for name in heads:
        assert not torch.equal(second[name], trained[name])
        assert not torch.equal(second[name], first[name])


def test_the_order_of_vocs_classes():
    assert ["__background__", *VOC_CLASSES] == FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]


def test_the_order_of_cocos_classes(tmp_path):
    """Category ids from 1 to 90 with gaps become 1 to 80 in order, however the file lists them."""
    by_id = dict(enumerate(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]))
    categories = [{"id": id_, "name": name} for id_, name in by_id.items() if id_ and name != "N/A"]
    shuffled = [categories[index] for index in np.random.default_rng(0).permutation(len(categories))]
    photo = {"id": 1, "file_name": "a.png", "width": 4, "height": 4}
    annotation = {"image_id": 1, "category_id": 90, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
    content = {"images": [photo], "categories": shuffled, "annotations": [annotation]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    write_mask(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    data = load_coco(Path(tmp_path / "instances.json"))
    assert data.classes == tuple(category["name"] for category in categories)
    assert (len(data.classes), data.classes[0], data.classes[-1]) == (80, "person", "toothbrush")
    assert data.samples[0].labels == (80,)
    assert (data.truth(data.samples[0]) == 80).all()
