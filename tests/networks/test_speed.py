"""Faster on a CPU, and still the same: folded batch normalisation, padding, the gradient of dilated convolutions."""

from __future__ import annotations

import logging
import sys
from shutil import which
from types import SimpleNamespace

import pytest
import torch
import torch._inductor.config
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn

from tag2mask.config import SegmenterConfig
from tag2mask.data import load
from tag2mask.errors import RunError
from tag2mask.networks import speed
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.speed import (
    DilatedDepthwise,
    FoldedInTraining,
    FusedConv,
    FusedSamePadding,
    SamePadding,
    compiled_copy,
    faster_copy,
    features_in_training,
)
from tag2mask.training import segmenter as teaching


def seasoned(name):
    """A backbone in double precision whose batch normalisations do something."""
    torch.manual_seed(0)
    backbone = Backbone(name, weights="random").double().eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 2)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.1)
    return backbone


def gradients(backbone, features, images):
    backbone.zero_grad()
    torch.manual_seed(1)
    sum((maps * torch.randn_like(maps)).sum() for maps in features(images).values()).backward()
    return {name: one.grad for name, one in backbone.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("tf_efficientnet_lite0", "C41"),
        ("tf_efficientnet_lite0", ""),
        ("resnet10t", "C41"),
        ("vgg11_bn", "features.18"),
    ],
)
def test_features_and_gradients_are_the_same(name, frozen):
    backbone = seasoned(name)
    backbone.freeze_before(frozen)
    images = 255 * torch.rand(2, 3, 64, 80)
    faster = features_in_training(backbone)
    assert isinstance(faster, FoldedInTraining)
    for layer, maps in backbone(images).items():
        torch.testing.assert_close(faster(images)[layer], maps, rtol=1e-6, atol=1e-9)
    wanted, found = gradients(backbone, backbone, images), gradients(backbone, faster, images)
    assert found.keys() == wanted.keys()
    assert bool(frozen) == (len(wanted) < len(list(backbone.parameters())))
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6 * float(value.abs().max()))


def test_it_follows_the_backbone_as_it_learns():
    backbone = seasoned("resnet10t")
    faster, images = features_in_training(backbone), torch.zeros(1, 3, 64, 64)
    before = faster(images)["last"]
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(1.1)
        assert not torch.allclose(faster(images)["last"], before)
        torch.testing.assert_close(faster(images)["last"], backbone(images)["last"])


def test_a_network_whose_modules_are_in_another_order_is_used_as_it_is():
    backbone = seasoned("resnet10t")
    first = backbone.model.layer1[0]
    first.bn1, first.bn2 = first.bn2, first.bn1
    order = ["conv1", "bn2", "conv2", "bn1"]
    first._modules = {name: first._modules[name] for name in [*order, *(set(first._modules) - set(order))]}
    assert features_in_training(backbone) is backbone


class Turns(nn.Module):
    """Convolutions with ReLUs that one may do with them, and ReLUs that one may not."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.alone, self.shared, self.after_sum = nn.ReLU6(), nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, images):
        one = self.alone(self.convs[0](images))
        two = self.shared(self.convs[2](self.shared(self.convs[1](one))))
        three = self.convs[3](two)
        three += one
        return self.after_sum(three)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_convolutions_do_the_activations_that_take_nothing_else():
    torch.manual_seed(0)
    model = Turns().eval()
    faster = faster_copy(model, torch.device("cpu"))
    assert [type(conv) for conv in faster.convs] == [FusedConv] * 4
    assert type(faster.alone) is nn.Identity
    assert [type(faster.shared), type(faster.after_sum)] == [nn.ReLU, nn.ReLU]
    assert [type(conv) for conv in model.convs] == [nn.Conv2d] * 4
    images = 255 * torch.rand(2, 3, 9, 8)
    torch.testing.assert_close(faster(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "vgg11_bn"])
def test_features_of_a_faster_copy_are_the_same(name):
    backbone = seasoned(name).float()
    faster = faster_copy(backbone, torch.device("cpu"))
    kinds = {type(module) for module in faster.modules()}
    assert FusedConv in kinds
    assert nn.Conv2d not in kinds
    assert (FusedSamePadding in kinds) == (name == "tf_efficientnet_lite0")
    images = 255 * torch.rand(2, 3, 80, 64)
    with torch.no_grad():
        for layer, maps in backbone(images).items():
            torch.testing.assert_close(faster(images)[layer], maps, rtol=1e-3, atol=1e-4 * float(maps.abs().max()))


def test_without_onednn_a_copy_is_folded_alone(monkeypatch):
    monkeypatch.setattr(speed, "_has_fused", lambda image: False)
    faster = faster_copy(seasoned("resnet10t").float(), torch.device("cpu"))
    assert not any(isinstance(module, FusedConv) for module in faster.modules())


def broken(*arguments):
    raise RuntimeError("another torch has another one")


def wrong(*arguments):
    return 2 * PLAIN(*arguments)


def turned_back(*arguments):
    _, of_weight, of_bias = BACKWARD(*arguments)
    return None, -of_weight, of_bias


BACKWARD = torch.ops.aten.convolution_backward
PLAIN = torch.ops.mkldnn._convolution_pointwise if torch.backends.mkldnn.is_available() else None


@pytest.mark.parametrize("operation", [broken, wrong, None])
def test_a_torch_with_another_fused_convolution_gives_the_same(monkeypatch, operation):
    names = {} if operation is None else {"_convolution_pointwise": operation}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**names))
    backbone = seasoned("tf_efficientnet_lite0").float()
    faster = faster_copy(backbone, torch.device("cpu"))
    kinds = {type(module) for module in faster.modules()}
    assert SamePadding in kinds
    assert not kinds & {FusedConv, FusedSamePadding}
    images = 255 * torch.rand(1, 3, 64, 80)
    with torch.no_grad():
        for layer, maps in backbone(images).items():
            assert speed.is_same(faster(images)[layer], maps)


@pytest.mark.parametrize("operation", [broken, turned_back])
def test_a_torch_with_another_backward_pass_learns_the_same(monkeypatch, operation):
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", operation)
    backbone = seasoned("tf_efficientnet_lite0")
    faster, images = features_in_training(backbone), 255 * torch.rand(1, 3, 64, 64)
    assert not any(isinstance(module, DilatedDepthwise) for module in faster.folded.modules())
    wanted, found = gradients(backbone, backbone, images), gradients(backbone, faster, images)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6 * float(value.abs().max()))


def test_a_torch_without_a_compiler_says_so_in_one_line(monkeypatch):
    """As on Windows before torch 2.4, and where Python is newer than torch knows."""

    def refuses(*arguments, **options):
        raise RuntimeError("Dynamo is not supported\non this system")

    monkeypatch.setattr(torch, "compile", refuses)
    with pytest.raises(RunError, match=r"does not work here \(Dynamo is not supported\)") as raised:
        compiled_copy(Turns().eval(), torch.device("cpu"), [16])
    assert "\n" not in str(raised.value)


def test_a_torch_without_the_compilers_settings_compiles_as_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._inductor", None)
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    model, images = Turns().eval(), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(compiled_copy(model, torch.device("cpu"), [16])(images), model(images))


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """torch.compile with nothing in its caches."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.skipif(not (which("g++") or which("clang++")), reason="needs a C++ compiler")
def test_a_compiled_copy_gives_the_same(compiler):
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU6()).eval()
    faster, images = compiled_copy(model, torch.device("cpu"), [16]), 255 * torch.rand(1, 3, 16, 16)
    assert next(faster.parameters()).device.type == "cpu"
    with torch.inference_mode():
        torch.testing.assert_close(faster(images), model(images), rtol=1e-3, atol=1e-4)


def test_without_a_compiler_one_line_says_so(compiler, monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    segmenter = SegmentationNetwork("resnet10t", ["a"], weights="random").eval()
    with pytest.raises(RunError, match=r"torch.compile does not work here .*inference.compile=false") as raised:
        segmenter.folded(compile_for=[32])
    assert "\n" not in str(raised.value)


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(5, 14), st.integers(5, 14)),
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.sampled_from([1, 2, 3]),
    groups=st.sampled_from([1, 4]),
)
def test_same_padding(size, kernel, stride, groups):
    """Whether one side lacks a zero, both, or none."""
    conv = Conv2dSame(4, 4, kernel, stride, groups=groups).double()
    images = torch.randn(2, 4, *size, dtype=torch.double)
    with torch.no_grad():
        wanted = conv(images)
        conv.__class__ = SamePadding
        torch.testing.assert_close(conv(images), wanted)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (5, 3), ((3, 5), (2, 1))])
def test_gradients_of_a_dilated_depthwise_convolution(kernel, dilation, bias):
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    steps = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    padding = tuple(step * (side // 2) for side, step in zip(sides, steps, strict=True))
    conv = nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=bias).double()
    images = torch.randn(2, 6, 9, 8, dtype=torch.double, requires_grad=True)
    inputs = [images, *conv.parameters()]
    wanted = torch.autograd.grad(conv(images).square().sum(), inputs)
    conv.__class__ = DilatedDepthwise
    found = torch.autograd.grad(conv(images).square().sum(), inputs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_training_has_the_same_losses(shapes_folder, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "tag2mask")
    data = load(shapes_folder)
    how = SegmenterConfig(size=64, epochs=2, batch_size=4, learning_rate=1e-3, crop=0.5, train_from="C41")
    losses = []
    for name, features in (("fast", teaching.features_in_training), ("plain", lambda backbone: backbone)):
        monkeypatch.setattr(teaching, "features_in_training", features)
        torch.manual_seed(3)
        segmenter = SegmentationNetwork("tf_efficientnet_lite0", data.classes)
        caplog.clear()
        teaching.train_segmenter(
            segmenter, data.samples, data.samples[0].mask.parent, how,
            seed=0, workers=0, checkpoint=tmp_path / name,
        )  # fmt: skip
        losses.append([record.args[-1] for record in caplog.records if "loss" in record.message])
    (first, second), (plain_first, plain_second) = losses
    assert first == pytest.approx(plain_first, rel=1e-5)
    assert second == pytest.approx(plain_second, rel=1e-3)  # Adam divides rounding by what may be near zero
