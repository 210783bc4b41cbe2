"""What untrusted people may send: names, bombs, damaged files. Ours are errors of one line, and bounds on memory."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from made_shapes import RECIPE, draw_shapes
from PIL import Image
from safetensors.torch import save_file

from tag2mask import api
from tag2mask.config import load_recipe
from tag2mask.data import load, load_coco, load_voc, read_mask, voc_palette, write_mask
from tag2mask.data.class_names import check_class_name
from tag2mask.errors import DataError, RecipeError, RunError, UserError, WeightsError, nearest
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.weights import load_tensors, read_weights, save_tensors
from tag2mask.report.survey import regions
from tag2mask.runs.folder import read_metrics, resume_run


@pytest.fixture(scope="module")
def fuzzer(load_benchmark):
    return load_benchmark("fuzz")


# --- Fuzzing, a few examples each; benchmarks/fuzz.py does many --------------------------------------------------

FEW = {"classifier": 4, "patterns": 4, "segmenter": 4, "huggingface": 6, "photo": 60, "mask": 60}


def test_each_reader_takes_or_refuses(fuzzer):
    for name in fuzzer.TARGETS:
        counts = fuzzer.fuzz(name, FEW.get(name, 30))
        assert not counts.crashes, counts
        assert counts.inputs == counts.accepted + counts.refused > 0


def test_the_fuzzer_finds_what_is_wrong(fuzzer):
    def reads_badly(content):
        if b"xx" in content:
            raise KeyError(content)

    counts = fuzzer.count(fuzzer.Target("bad", b"", fuzzer.damaged(b"xx"), reads_badly), 50)
    assert counts.crashes == 1
    assert counts.first_crash.startswith("KeyError")


def test_the_fuzzer_sees_memory(fuzzer, monkeypatch):
    monkeypatch.setattr(fuzzer, "_megabytes", iter([10, 2000]).__next__)
    assert fuzzer.count(fuzzer.Target("fat", b"", st.just(b""), len), 1).first_crash == "took 1990 MB"


# --- Names ------------------------------------------------------------------------------------------------------

TAGS = ("<script>alert(1)</script> $\\frac{1}{$", "[/red] \u0915\u094d\u200d\u0937 \U0001f469\u200d\U0001f692")
NAMES = (
    "with space", "new\nline", "e\u0301tude", "étude", "\u202ertl", "\U0001f469\u200d\U0001f692", "$x_{$", "[bold]",
    "<img src=x onerror=alert(1)>", "-rf", "a.b.c", "'quote\"", "\x1b[2Jescape", "字" * 83, "%2e%2e", "{{7*7}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """Photos of strange names, shapes and modes with strange tags, links in circles, and a broken one."""
    root = tmp_path_factory.mktemp("strange") / "data"
    (root / "photos/sub dir").mkdir(parents=True)
    rows = []
    for number, name in enumerate((*NAMES, "sub dir/x", "thin", "dot", "deep", "clear")):
        labels = ((1,), (2,), (1, 2))[number % 3]
        shape = {"thin": (1, 900), "dot": (1, 1)}.get(name, (48, 64))
        photo, mask = draw_shapes(labels, *shape, number)
        image = Image.fromarray(photo[..., 0].astype(np.uint16) * 257 if name == "deep" else photo)
        try:
            (image.convert("RGBA") if name == "clear" else image).save(root / f"photos/{name}.png")
        except OSError as error:
            pytest.skip(f"this system does not have such names ({error})")
        write_mask(root / f"masks/{name}.png", mask)
        rows.append({"image": f"{name}.png", "labels": [TAGS[label - 1] for label in labels]})
    (root / "photos/bro\nken\x1b[31m.png").write_bytes(b"no photo")
    rows.append({"image": "bro\nken\x1b[31m.png", "labels": [TAGS[0]]})
    (root / "tags.json").write_text(json.dumps(rows), "utf-8")
    for link in (root / "photos/loop", root / "masks/loop"):
        link.symlink_to(root, target_is_directory=True)
    return root


def test_a_run_on_strange_names_stays_in_its_folder(strange, tmp_path, command):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    before = sorted(path for path in strange.rglob("*"))
    out = tmp_path / "in" / "[red] $x$"
    said = command("run", strange, "--out", out, "--recipe", tmp_path / "tiny.yaml")
    assert said.code == 0, said.err
    assert "\x1b" not in said.err
    assert r"bro\nken\x1b[31m.png: the photo cannot be read" in said.out
    names = {f"{name}.png" for name in (*NAMES, "sub dir/x", "thin", "dot", "deep", "clear")}
    for folder in ("proxy", "predictions"):  # every photo but the broken one, and no other
        assert {str(file.relative_to(out / folder)) for file in (out / folder).rglob("*.png")} == names
    page = (out / "report/index.html").read_text("utf-8")
    assert page.count("</script>") == 2
    assert "[red] $x$</h1>" in page
    assert not any(text in page for text in ("<script>alert", "<img src=x"))
    for kind in ("coco", "label-studio"):
        assert command("export", kind, out, "--out", tmp_path / f"in/{kind}.json").code == 0
    for kind in ("labelme", "yolo", "huggingface"):
        assert command("export", kind, out, "--out", tmp_path / f"in/{kind}").code == 0
    assert command("evaluate", out).code == 0
    assert command("show", out, strange / "photos/$x_{$.png", "--out", tmp_path / "in/[b].png").code == 0
    assert command("predict", out, strange / "photos/sub dir", "--out", tmp_path / "in/[blue]").code == 0
    assert sorted(path for path in strange.rglob("*")) == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "tiny.yaml"}


@pytest.mark.parametrize("name", ["‮txt.exe", "a\nb", "\x1b[2J", "\ud800", "", "\u200d", "x" * 5000])
def test_names_that_no_class_can_have(name):
    with pytest.raises(DataError, match="cannot be the name of a class") as error:
        check_class_name(name, "tags.csv")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("name", ["naïve", "nai\u0308ve", "猫", "می\u200cخواهم", "👩\u200d🚒", "<b>", "$x$", "x" * 200])
def test_names_that_a_class_can_have(name):
    check_class_name(name, "tags.csv")


def test_a_long_tag_is_refused_at_once(shapes, command):
    (shapes / "tags.csv").write_text("image,labels\np00.jpg," + "x" * 5000 + "\n")
    said = command("run", shapes, "--out", shapes / "out")
    assert said.code == 2
    assert len(said.err) < 2000
    assert not nearest("x" * 5000, ["x" * 4999])


def test_a_message_is_one_printable_line():
    error = UserError("a\nb\x1b[2J\u202e\ud800 " + "x" * 5000 + "; mend it")
    assert str(error).isprintable()
    assert str(error).startswith(r"a\nb\x1b[2J\u202e\ud800 xxx")
    assert str(error).endswith("xxx; mend it")
    assert len(str(error)) < 2100
    assert str(UserError(str(error))) == str(error)


def test_photos_whose_names_differ_in_accents_only(shapes):
    for name in ("e\u0301", "é"):
        (shapes / f"photos/{name}.jpg").write_bytes((shapes / "photos/p00.jpg").read_bytes())
    with (shapes / "tags.csv").open("a", encoding="utf-8") as table:
        table.write("e\u0301.jpg,disc\né.jpg,square\n")
    labels = {sample.name: sample.labels for sample in load(shapes).samples}
    assert (labels["e\u0301"], labels["é"]) == ((1,), (2,))


def test_masks_of_the_longest_names(tmp_path):
    name = "n" * 251 + ".png"
    write_mask(tmp_path / name, np.eye(3, dtype=np.uint8))
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(DataError, match="cannot be written"):
        write_mask(tmp_path / f"n{name}", np.eye(3, dtype=np.uint8))
    assert os.listdir(tmp_path) == [name]


def test_a_thin_mask_has_a_middle():
    assert regions(np.ones((1, 3000), np.uint8)) == [[1, 100.0, 1, 50]]
    assert regions(np.ones((2000, 1), np.uint8))[0][:2] == [1, 100.0]


@pytest.mark.parametrize(
    "name", ["../one.jpg", "a/../../one.jpg", "/one.jpg", "C:one.jpg", "\\\\host\\one.jpg", "one\0.jpg", ".", ""]
)
def test_coco_names_that_lead_out(tmp_path, name):
    """Of such a path the file's name counts: nothing outside of the photos' folder is read."""
    (tmp_path / "in").mkdir()
    for place in (tmp_path, tmp_path.parent):
        Image.new("RGB", (4, 4)).save(place / "one.jpg")
    photo = {"id": 1, "file_name": name, "width": 4, "height": 4}
    data = {"images": [photo], "categories": [{"id": 1, "name": "dog"}], "annotations": []}
    (tmp_path / "in/instances.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"none of its 1 photos is in|is not the name of a file"):
        load_coco(tmp_path / "in/instances.json", images=tmp_path / "in")


# --- Bombs ------------------------------------------------------------------------------------------------------


def coco_of(tmp_path, segmentation, name="a.png"):
    Image.new("RGB", (20, 16)).save(tmp_path / "a.png")
    photos = [{"id": n, "file_name": file, "width": 20, "height": 16} for n, file in enumerate({"a.png", name})]
    annotation = {"image_id": [p["file_name"] for p in photos].index("a.png"), "category_id": 1}
    data = {
        "images": photos,
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [annotation | {"segmentation": segmentation}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data))
    return load_coco(tmp_path / "instances.json")


def test_a_coco_name_that_is_too_long_is_left_out(tmp_path):
    data = coco_of(tmp_path, [[0, 0, 4, 0, 4, 4]], "n" * 5000 + ".jpg")
    assert [sample.name for sample in data.samples] == ["a"]
    assert "no such file" in data.skipped[0]


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[0, 0, 80, 60] * 4000], "longer than any that fits"),
        ({"size": [16, 20], "counts": "02>2n9oooo"}, "run lengths are damaged"),
        ({"size": [16, 20], "counts": "oooooooooo0"}, "run lengths are damaged"),
        ({"size": [16, 20], "counts": "\u00e9"}, "run lengths are damaged"),
    ],
)
def test_shapes_that_would_take_memory(tmp_path, segmentation, reason):
    with pytest.raises(DataError, match=reason):
        coco_of(tmp_path, segmentation)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("doctype", [f'a [<!ENTITY l0 "ha">{LAUGHS}]', 'a SYSTEM "file:///etc/passwd"'])
def test_xml_with_entities_is_refused(tmp_path, doctype, encoding):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "JPEGImages/a.png")
    head = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE {doctype}>'
    text = f"{head}<annotation><object><name>&l11;</name></object></annotation>"
    (tmp_path / "Annotations/a.xml").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"a.xml: not valid XML .*DOCTYPE"):
        load_voc(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [1]\nb: *a\n", "aliases"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a, *a]}\nseed: {<<: [*b, *b, *b]}\n", "aliases"),
        ("name: x\n" + "#" * 1_000_001, "more than 1000000 bytes"),
        ("seed: " + "[" * 3000, "not valid YAML"),
        ("seed: 2001-99-99\n", "not valid YAML"),
        ("seed: !!int ''\n", "not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("seed: 0x" + "f" * 5000, "'seed' is out of bounds"),
        ("seed: -1\n", "'seed' is -1"),
        ("workers: 100000\n", "'workers' is 100000"),
        ("patterns: {size: 1000000}\n", "'patterns.size' is 1000000"),
        ("inference: {scales: [100000]}\n", "'inference.scales.0' is 100000"),
        ("segmenter: {learning_rate: .inf}\n", "'segmenter.learning_rate' is inf"),
        ("segmenter: {backbone: {nmae: x}}\n", "unknown key 'segmenter.backbone.nmae'; did you mean 'name'"),
    ],
)
def test_recipes_that_are_refused(tmp_path, text, reason):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=reason) as error:
        load_recipe(tmp_path / "mine.yaml")
    assert len(str(error.value)) < 2100


def png_of(width, height, colour, rows):
    """An RGB PNG of ``rows`` rows of one colour, whatever its header tells."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(colour) * width) * rows if rows else b"", 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_large_mask_of_colours_takes_little(tmp_path):
    """A file of a few kilobytes; all codes of its pixels at once would take 40 bytes a pixel."""
    side = 2000
    (tmp_path / "a.png").write_bytes(png_of(side, side, voc_palette()[3], side))
    tracemalloc.start()
    try:
        mask = read_mask(tmp_path / "a.png")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (mask == 3).all()
    assert peak < 12 * side**2


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (200_000, 1000), (13_000, 13_000), (0, 5)])
def test_headers_that_promise_too_much(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_of(*size, (0, 0, 0), 0))
    with pytest.raises(DataError, match=r"million pixels|cannot be read"):
        read_mask(tmp_path / "a.png")


# --- Damaged run folders and weights ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[]", '"x"', "{", "[" * 100_000, '{"seconds": 3}', '{"seconds": {"classify": -1}}', '{"proxy": {"miou": "x"}}',
        '{"prediction": {"iou": {"dog": []}, "images": 3}}', '{"patterns": {"dog": {"activation": 1}}}',
        '{"classifier": 7}', '{"seconds": {"classify": null}}',
    ],
)  # fmt: skip
def test_damaged_metrics(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(RunError, match=r"metrics\.json is damaged"):
        read_metrics(tmp_path)


def test_metrics_of_a_run_and_more(finished_run, tmp_path):
    values = read_metrics(finished_run)
    assert values["prediction"]["images"] == 3
    (tmp_path / "metrics.json").write_text(json.dumps(values | {"others": ["have", "added"]}))
    assert read_metrics(tmp_path)["others"] == ["have", "added"]


@pytest.mark.parametrize("what", ["path", "labels", "split", "eval_split"])
def test_a_run_configuration_with_a_path_that_is_none(a_run, what):
    config = a_run / "config.yaml"
    text = config.read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"  {what}:"))
    config.write_text(text.replace(line, f"  {what}: [1]"))
    with pytest.raises(RunError, match="not the configuration of a run"):
        resume_run(a_run)


def test_a_file_that_names_a_larger_network_takes_no_memory_for_it(tmp_path, monkeypatch):
    about = {"backbone": "vit_giant_patch14_dinov2", "layers": ["last"], "output_stride": 16, "classes": ["dog"]}
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)}, "a classifier", about)
    monkeypatch.setattr("tag2mask.networks.classifier.Backbone", None)
    with pytest.raises(WeightsError, match="weights of another network than vit_giant"):
        Classifier.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ["a\nb"]}, "cannot be the name of a class"),
        ({"classes": "dog"}, "another network"),
        ({"classes": [f"{n}" for n in range(255)]}, "holds 254"),
        ({"backbone": "hf-hub:a/b"}, "timm does not have"),
        ({"output_stride": 1}, "no output stride of 1"),
        ({"weights": "hub"}, "corrupt or of another version"),
    ],
)
def test_a_segmenter_that_tells_of_something_else(a_run, change, reason):
    file = a_run / "segmenter.safetensors"
    tensors, about = load_tensors(file, "a segmenter")
    save_tensors(file, tensors, "a segmenter", about | change)
    with pytest.raises(WeightsError, match=reason):
        SegmentationNetwork.load(file)


def test_weights_that_are_no_numbers(a_run, command):
    file = a_run / "segmenter-retrained.safetensors"
    tensors, about = load_tensors(file, "a segmenter")
    name = next(name for name in tensors if name.endswith("conv1.weight"))
    save_tensors(file, tensors | {name: torch.full_like(tensors[name], float("nan"))}, "a segmenter", about)
    said = command("predict", a_run, a_run / "proxy", "--out", a_run / "masks")
    assert said.code == 2
    assert "contains NaN or infinite values" in said.err
    huge = {name: torch.full_like(tensor, 3e38) for name, tensor in tensors.items() if name.endswith("weight")}
    save_tensors(file, tensors | huge, "a segmenter", about)
    said = command("predict", a_run, a_run / "proxy", "--out", a_run / "masks")
    assert said.code == 2
    assert "scores contain NaN or infinite values" in said.err
    assert not (a_run / "masks").exists()


def test_a_backbone_file_of_no_numbers(tmp_path):
    tensors = Backbone("test_resnet", weights="random").model.state_dict()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    next(iter(tensors.values())).fill_(float("inf"))
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="contains NaN or infinite values"):
        Backbone("test_resnet", weights=str(tmp_path / "a.safetensors"))


def test_a_zipped_bomb_of_weights(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(WeightsError, match="larger than the file"):
        read_weights(tmp_path / "a.pth")


def test_lists_of_names_that_are_no_text(tmp_path):
    write_mask(tmp_path / "a.png", np.eye(3, dtype=np.uint8))
    (tmp_path / "names.txt").write_bytes(b"caf\xe9\n")
    for option in ("classes", "split"):
        with pytest.raises(DataError, match="save the file as UTF-8"):
            api.evaluate(tmp_path, tmp_path, **{option: tmp_path / "names.txt"})
