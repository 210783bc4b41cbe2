"""Which device computes and why, what a device lacks, and 16-bit types only where they are real."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from made_device import MPS, AppleGpu, Pretended

from tag2mask import devices, doctor
from tag2mask.data import load, read_photo
from tag2mask.devices import Found, half_precision, half_type, with_antialias, with_float64
from tag2mask.errors import RunError
from tag2mask.inference import forward, most_likely
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.patterns.collect import choose_subsets, collect_moments


@pytest.fixture
def machine(monkeypatch):
    """Say what accelerators there are."""
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_chosen", None)
    return lambda kind, number: monkeypatch.setattr(devices, "accelerators", lambda: Found(kind, number))


@pytest.mark.parametrize(
    ("kind", "number", "asked", "wanted"),
    [
        ("cpu", 0, "", "cpu"),
        ("cpu", 0, "cpu", "cpu"),
        ("cuda", 2, "", "cuda:0"),
        ("cuda", 2, "CUDA", "cuda:0"),
        ("cuda", 2, "cuda:1", "cuda:1"),
        ("cuda", 2, "cpu", "cpu"),
        ("mps", 1, "", "mps"),
        ("mps", 1, "mps", "mps"),
        ("xpu", 1, "", "xpu:0"),
    ],
)
def test_the_device_is_the_one_asked_for_else_the_best(machine, monkeypatch, kind, number, asked, wanted):
    machine(kind, number)
    monkeypatch.setenv(devices.VARIABLE, asked)
    assert devices.device() == torch.device(wanted)


@pytest.mark.parametrize(
    ("kind", "number", "asked", "said"),
    [
        ("cuda", 2, "cuda:7", "this machine has cpu, cuda:0 and cuda:1; name one of these"),
        ("cpu", 0, "cuda", "this machine has cpu; name one of these"),
        ("mps", 1, "cuda:0", "this machine has cpu and mps; name one of these"),
        ("cuda", 1, "cuda:x", "this machine has cpu and cuda:0; name one of these"),
        ("cuda", 1, "gpu", "this machine has cpu and cuda:0; name one of these"),
        ("cpu", 0, "meta", "this machine has cpu; name one of these"),
    ],
)
def test_a_device_that_is_not_there_is_told_in_one_line(machine, kind, number, asked, said):
    machine(kind, number)
    with pytest.raises(RunError, match="--device") as error:
        devices.choose(asked)
    assert str(error.value) == f"--device {asked}: {said}"


def test_several_processes_take_a_device_each(machine, monkeypatch):
    machine("cuda", 2)
    assert devices.device(1, 2) == torch.device("cuda:1")
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    assert devices.device(1, 2) == torch.device("cuda:1")
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.device(5, 6) == torch.device("cpu")
    monkeypatch.setenv(devices.VARIABLE, "cuda:0")
    with pytest.raises(RunError, match="TAG2MASK_DEVICE cuda:0 is one device for 2 processes; name cuda without"):
        devices.device(1, 2)
    monkeypatch.delenv(devices.VARIABLE)
    with pytest.raises(RunError, match="3 processes for 2 GPUs"):
        devices.device(0, 3)


def test_the_option_counts_more_than_the_environment(machine, monkeypatch):
    machine("cuda", 1)
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    devices.choose("cpu")
    assert (str(devices.device()), devices.why()) == ("cpu", "--device says so")
    devices.choose(None)
    assert (str(devices.device()), devices.why()) == ("cuda:0", "TAG2MASK_DEVICE says so")
    monkeypatch.delenv(devices.VARIABLE)
    assert devices.why() == "torch can use cpu and cuda:0"


def test_torch_finds_an_apple_gpu_by_either_of_its_ways(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delattr(torch, "accelerator", raising=False)
    assert devices.accelerators() == Found("mps", 1)


def test_a_wrong_device_changes_nothing(command, a_run, shapes_folder, tmp_path, monkeypatch):
    before = {file: file.stat().st_mtime_ns for file in a_run.rglob("*") if file.name != ".lock"}
    for line in (
        ("run", shapes_folder, "--out", tmp_path / "new", "--device", "cuda:7"),
        ("predict", a_run, shapes_folder / "photos", "--out", tmp_path / "masks", "--device", "cuda:7"),
        ("show", a_run, shapes_folder / "photos/p00.jpg", "--device", "cuda:7"),
        ("segment", a_run, "--device", "cuda:7"),
        ("reproduce", "table1", shapes_folder, "--out", tmp_path / "paper", "--device", "cuda:7"),
    ):
        said = command(*line)
        assert (said.code, said.out) == (2, "")
        assert said.err.splitlines() == ["tag2mask: --device cuda:7: this machine has cpu; name one of these"]
    monkeypatch.setenv(devices.VARIABLE, "cuda:7")
    for line in (("run", shapes_folder, "--out", tmp_path / "new"), ("segment", a_run)):
        said = command(*line)
        assert said.code == 2
        assert said.err.splitlines()[-1].startswith("tag2mask: TAG2MASK_DEVICE cuda:7: this machine has cpu")
    assert {file: file.stat().st_mtime_ns for file in a_run.rglob("*") if file.name != ".lock"} == before
    assert not any((tmp_path / name).exists() for name in ("new", "masks", "paper"))


def test_the_choice_ends_with_the_command(command, a_run, shapes_folder, tmp_path):
    photo = shapes_folder / "photos/p00.jpg"
    assert command("show", a_run, photo, "--out", tmp_path / "a.png", "--device", "cpu").code == 0
    assert devices.asked_for() == ("cpu", "--device")
    assert command("recipes").code == 0
    assert devices.asked_for() == ("", devices.VARIABLE)


def test_doctor_says_which_device_and_why(command, monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    rows = {row["name"]: row["text"] for row in json.loads(command("doctor", "--json").out)["checks"]}
    assert rows["device"] == "cpu in float32, since TAG2MASK_DEVICE says so; --device or TAG2MASK_DEVICE chooses"
    monkeypatch.delenv(devices.VARIABLE)
    monkeypatch.setattr(devices, "accelerators", lambda: Found("mps", 1))
    monkeypatch.setattr(doctor, "accelerators", lambda: Found("mps", 1))
    assert doctor._gpus() == ("ok", "1 by the name of mps")
    assert "mps in float32, since torch can use cpu and mps" in doctor._device()[1]


@pytest.mark.parametrize(("capability", "wanted"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_bfloat16_only_where_the_gpu_has_it(monkeypatch, capability, wanted):
    """A T4 (7.5) emulates it, which `torch.cuda.is_bf16_supported` counts."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
    assert half_type(torch.device("cuda:0")) is wanted


@pytest.mark.parametrize("where", ["cpu", "mps"])
def test_elsewhere_the_forward_pass_stays_as_it_is(where):
    assert half_type(torch.device(where)) is None
    with half_precision(torch.device(where)):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


@pytest.fixture
def apple(caplog):
    """An Apple GPU, made up."""
    caplog.set_level("INFO", "tag2mask")
    for known in (with_float64, with_antialias):
        known.cache_clear()
    with torch.inference_mode(), AppleGpu():
        yield lambda network: _sent(network)
    for known in (with_float64, with_antialias):
        known.cache_clear()


def _sent(network):
    network = copy.deepcopy(network).requires_grad_(False)
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: Pretended(one.detach()) for name, one in tensors.items() if one is not None})
    return network


def test_the_made_up_gpu_refuses_what_a_real_one_does(apple):
    one = torch.ones(1, 1, 4, 4, device=MPS)
    assert one.device == MPS
    assert (one + 1).cpu().sum() == 32
    for forbidden in (lambda: one.double(), lambda: torch.zeros(2, device=MPS, dtype=torch.float64)):
        with pytest.raises(TypeError):
            forbidden()
    with pytest.raises(NotImplementedError):
        torch.nn.functional.interpolate(one, (2, 2), mode="bilinear", antialias=True)


def test_what_an_apple_gpu_lacks_is_done_on_the_cpu_and_said(apple, shapes_folder, caplog):
    """Class patterns' moments, in float64: the same to rounding."""
    data = load(shapes_folder)
    classifier = Classifier(Backbone("test_resnet", ["C41"], weights="random"), data.classes).eval()
    batch = (list(data.samples[:4]), torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    subsets = choose_subsets(data, 99, 0)
    wanted = collect_moments(classifier, [batch], subsets)
    found = collect_moments(apple(classifier), [batch], subsets)
    assert found.keys() == wanted.keys()
    for key, moments in found.items():
        assert moments.scatter.device.type == "cpu"
        torch.testing.assert_close(moments.mean, wanted[key].mean, rtol=1e-4, atol=1e-5)
        scatter = wanted[key].scatter
        torch.testing.assert_close(moments.scatter, scatter, rtol=1e-3, atol=1e-4 * float(scatter.max()))
    assert [record.message for record in caplog.records] == [
        "mps:0 has no float64: class patterns are found on the CPU"
    ]


def test_an_apple_gpu_predicts_what_the_cpu_does(apple, shapes_folder, caplog):
    segmenter = SegmentationNetwork("test_resnet", ["a", "b"], weights="random").eval()
    photo = read_photo(load(shapes_folder).samples[0].image)
    [wanted] = forward(segmenter, [photo], [48, 64])
    [found] = forward(apple(segmenter), [photo], [48, 64])
    assert found[0].device == MPS
    assert np.mean(most_likely(found, photo.shape[:2]) == most_likely(wanted, photo.shape[:2])) > 0.999
    assert len(caplog.records) == 1
    assert "photos are resized on the CPU: mps" in caplog.records[0].message
