"""Damaged and hostile files: every reader takes them or refuses them by an error of ours. Prints a Markdown table.

    python benchmarks/fuzz.py --examples 2000
    python benchmarks/fuzz.py --examples 200 --only recipe classifier --json fuzz.json

Each reader has a process of its own, so that an interpreter that dies is seen, and memory is that reader's. What is
counted is how much more it took than for the whole file; more than a gigabyte counts as a crash (for photos 3.5: the
most pixels that are read take three).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import multiprocessing
import resource
import struct
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from tag2mask.errors import UserError

BACKBONE = "mobilenetv2_035"
WORDS = (
    b"", b"\0", b"\n", b",", b";", b": ", b"- ", b'"', b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"{}", b".inf",
    b"../" * 9, b"/etc/passwd", b"C:\\x", b"\\ud800", b"\x1b[2J", "e\u0301 \u202e \U0001f469\u200d".encode(),
    b"9" * 5000, b"0x" + b"f" * 5000, b"[" * 5000, b"x" * 5000, b"\xff\xfe", b"\xef\xbb\xbf", b"\xff\xff\xff\xff",
    b"&a ", b"*a", b"<<: ", b"2001-99-99", b"!!int ''", b"!!timestamp x", b"!!bool x", b"!!python/name:os.system",
    b"<!DOCTYPE a [<!ENTITY b 'bb'>]>", b"&b;", b"<object><name>dog</name></object>", b"\x7f\xff\xff\xff",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 7, 255, 2**31, 2**63, 10**400, 0.5, -1e300, float("nan"), float("inf"), [], {}, [[]], [None],
    "", "a", "last", "0", "../x", "/etc/passwd", "C:\\x", "a\0b", "a\nb", "\ud800", "x" * 5000, "$\\frac{", "[/red]",
    [1] * 300, ["a"] * 300, {"a": {}}, "<script>", "vit_giant_patch14_dinov2", "vgg16", "resnet10t", "hf-hub:a/b",
)  # fmt: skip


class Target(NamedTuple):
    """A reader: what is damaged, a file that is whole, those that are not, what reads one, in how many megabytes."""

    what: str
    whole: bytes
    inputs: st.SearchStrategy[bytes]
    read: Callable[[bytes], object]
    megabytes: int = 1000


class Counts(NamedTuple):
    """What came of the inputs of a target."""

    what: str
    inputs: int
    accepted: int
    refused: int
    crashes: int
    megabytes: int
    first_crash: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="inputs for each reader; a tenth for networks")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seconds", type=float, default=3600, help="begin no other reader after so many")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print("| what | inputs | accepted | refused by our error | crashes | most memory, MB |\n|---|---|---|---|---|---|")
    rows, start = [], time.monotonic()
    for name in args.only:
        if time.monotonic() - start > args.seconds:
            break
        examples = max(1, args.examples // 10) if name in SLOW else args.examples
        rows.append(counts := apart(name, examples))
        print("| " + " | ".join(map(str, counts[:-1])) + " |", flush=True)
    for counts in rows:
        if counts.first_crash:
            print(f"\n{counts.what}: {counts.first_crash}")
    if args.json:
        args.json.write_text(json.dumps([counts._asdict() for counts in rows], indent=1) + "\n", "utf-8")


def apart(name: str, examples: int) -> Counts:
    """Try a target in a process of its own; one that dies is a crash."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(fuzz, name, examples).result()
        except BrokenProcessPool:
            return Counts(name, 0, 0, 0, 1, 0, "the process died")


def fuzz(name: str, examples: int) -> Counts:
    """Read so many damaged files and count what comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        return count(TARGETS[name](Path(folder)), examples)


def count(target: Target, examples: int) -> Counts:
    """Do `fuzz` for a target that is made."""
    logging.getLogger("tag2mask").setLevel(logging.ERROR)
    came: Counter[str] = Counter()
    target.read(target.whole)
    before = _megabytes()

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(target.inputs)
    def try_one(content: bytes) -> None:
        came["inputs"] += 1
        try:
            target.read(content)
            came["accepted"] += 1
        except UserError as error:
            came["refused"] += 1
            if len(str(error).splitlines()) != 1:
                raise ValueError("a message of several lines") from error

    crash = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try_one()
        except BaseException as error:
            crash = f"{type(error).__name__}: {error}"[:500]
    taken = _megabytes() - before
    if not crash and taken > target.megabytes:
        crash = f"took {taken} MB"
    return Counts(target.what, came["inputs"], came["accepted"], came["refused"], int(bool(crash)), taken, crash)


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# --- Damage -------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file of which some bytes are changed, left out, doubled, or replaced by words that mean something somewhere."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        start = draw(st.integers(0, size) | st.integers(0, min(size, 600)) | st.integers(max(0, size - 600), size))
        end = min(size, start + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(["flip", "cut", "twice", "word", "word", "end"]))
        if how == "flip" and start < size:
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del content[start:end]
        elif how == "twice":
            content[start:start] = content[start:end]
        elif how == "word":
            content[start:end] = draw(st.sampled_from(WORDS))
        elif how == "end":
            del content[start:]
    return bytes(content)


@st.composite
def changed(draw: st.DrawFn, data: Any) -> Any:
    """Data of which one to three values, at any depth, are left out or others."""
    data = deepcopy(data)
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(list(_places(data))))
        if draw(st.integers(0, 5)) == 0:
            del parent[key]
        else:
            parent[key] = deepcopy(draw(st.sampled_from(VALUES)))
        if not data:
            break
    return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _places(data[key])


def json_files(data: Any) -> st.SearchStrategy[bytes]:
    whole = json.dumps(data).encode()
    return changed(data).map(lambda other: json.dumps(other).encode()) | damaged(whole) | st.binary(max_size=50)


def yaml_files(data: Any) -> st.SearchStrategy[bytes]:
    whole = yaml.safe_dump(data, sort_keys=False).encode()
    return changed(data).map(_as_yaml) | damaged(whole) | st.binary(max_size=50)


def _as_yaml(data: Any) -> bytes:
    return yaml.dump(data, Dumper=_NoAliases, sort_keys=False).encode("utf-8", "surrogatepass")


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


# --- Targets ------------------------------------------------------------------------------------------------


def in_file(file: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Write what is to be read to a file, then read that."""

    def write_and_read(content: bytes) -> object:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return read(file)

    return write_and_read


def _photos(folder: Path, names: Sequence[str] = ("a", "b", "c")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    for name in names:
        Image.fromarray(pixels).save(folder / f"{name}.png")


def csv_table(folder: Path) -> Target:
    from tag2mask.data import load_folder

    _photos(folder / "photos")
    whole = b'image,labels\na.png,dog\nb,"hot dog;cat"\nc.png,background\n'
    return Target("tag table, CSV", whole, damaged(whole), in_file(folder / "tags.csv", lambda _: load_folder(folder)))


def json_table(folder: Path) -> Target:
    from tag2mask.data import load_folder

    _photos(folder / "photos")
    rows = [
        {"image": "a.png", "labels": ["dog"]},
        {"image": "b", "labels": ["cat", "dog"]},
        {"image": "c", "labels": ["cat"]},
    ]
    files = json_files(rows) | json_files({"a": ["dog"], "b": ["cat", "dog"], "c.png": ["cat"]})
    whole = json.dumps(rows).encode()
    return Target("tag table, JSON", whole, files, in_file(folder / "tags.json", lambda _: load_folder(folder)))


def _tagged(folder: Path) -> None:
    _photos(folder / "photos")
    (folder / "tags.csv").write_text("image,labels\na,dog\nb,cat\nc,dog cat\n")


def photo_list(folder: Path) -> Target:
    from tag2mask.data import load_folder

    _tagged(folder)
    whole = b"a.png\nb\n"
    read = in_file(folder / "train.txt", lambda _: load_folder(folder, split="train"))
    return Target("list of photos", whole, damaged(whole), read)


def class_list(folder: Path) -> Target:
    from tag2mask.data import load_folder

    _tagged(folder)
    whole = b"background\ndog\nhot dog\ncat\n"
    read = in_file(folder / "classes.txt", lambda _: load_folder(folder))
    return Target("list of classes", whole, damaged(whole), read)


def coco(folder: Path) -> Target:
    from tag2mask.data import load_coco

    _photos(folder / "images")
    runs = {"size": [16, 20], "counts": [0, 2, 14, 2, 302]}
    packed = {"size": [16, 20], "counts": rle.frPyObjects(runs, 16, 20)["counts"].decode()}
    drawn = [[[1, 1, 9, 1, 9, 9]], runs, packed, [[1.5, 2, 3, 4, 5, 6], [0, 0, 4, 0, 4, 4, 0, 4]], []]
    data = {
        "images": [{"id": n, "file_name": f"{name}.png", "width": 20, "height": 16} for n, name in enumerate("abc")],
        "categories": [{"id": 3, "name": "dog"}, {"id": 9, "name": "traffic light"}],
        "annotations": [
            {"image_id": n % 3, "category_id": (3, 9)[n % 2], "segmentation": shape, "iscrowd": int(n == 1)}
            for n, shape in enumerate(drawn)
        ],
    }  # fmt: skip

    def read(file: Path) -> None:
        image_set = load_coco(file)
        for sample in image_set.samples:
            image_set.truth(sample)

    whole = json.dumps(data).encode()
    return Target(
        "COCO instances, and the masks drawn", whole, json_files(data), in_file(folder / "instances.json", read)
    )


def voc_xml(folder: Path) -> Target:
    from tag2mask.data import load_voc

    _photos(folder / "JPEGImages", ["a"])
    whole = (
        b'<?xml version="1.0" encoding="utf-8"?><annotation><filename>../../a.jpg</filename>'
        b"<object><name>dog</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
    )
    read = in_file(folder / "Annotations/a.xml", lambda _: load_voc(folder))
    return Target("VOC annotation, XML", whole, damaged(whole), read)


def recipe(folder: Path) -> Target:
    from tag2mask.config import load_recipe

    values = load_recipe("luo2020-voc-resnet101").model_dump(mode="json")
    read = in_file(folder / "mine.yaml", lambda file: load_recipe(file))
    return Target("recipe, YAML", _as_yaml(values), yaml_files(values), read)


def setting(folder: Path) -> Target:
    from tag2mask.config import load_recipe

    texts = (
        damaged(b"segmenter.epochs=5") | damaged(b"patterns.layers=[C41, last]") | damaged(b"segmenter.backbone.name=x")
    )

    def read(text: bytes) -> None:
        load_recipe("fast", [text.decode("utf-8", "surrogateescape")])

    return Target("--set key=value", b"seed=1", texts, read)


def run_config(folder: Path) -> Target:
    from tag2mask.config import load_recipe
    from tag2mask.runs.folder import resume_run

    data = {"path": "/photos", "labels": None, "split": "train", "eval_split": None}
    whole = {"tag2mask": "0.1.0", "data": data, "recipe": load_recipe("fast").model_dump(mode="json")}
    read = in_file(folder / "config.yaml", lambda _: resume_run(folder))
    return Target("run folder, config.yaml", _as_yaml(whole), yaml_files(whole), read)


def metrics(folder: Path) -> Target:
    from tag2mask.runs.folder import read_metrics

    scored = {"miou": 51.2, "iou": {"background": 80.1, "dog": None}, "images": 7}
    evidence = {"dog": {"activation": 0.3, "centre": -0.1, "explained": 0.2}}
    whole = {
        "classifier": {"map": 70.0, "ap": {"dog": 70.0}, "images": 9}, "patterns": evidence, "proxy": scored,
        "retrain": scored, "prediction": scored, "seconds": {"classify": 3.1},
    }  # fmt: skip
    read = in_file(folder / "metrics.json", lambda _: read_metrics(folder))
    return Target("run folder, metrics.json", json.dumps(whole).encode(), json_files(whole), read)


def photo(folder: Path) -> Target:
    from tag2mask.data import photo_size, read_photo

    def read(file: Path) -> None:
        photo_size(file)
        read_photo(file)
        read_photo(file, draft_size=8)

    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    wholes = [
        _encoded(Image.fromarray(pixels), kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
    ]
    wholes.append(_encoded(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"))
    wholes.append(_encoded(Image.fromarray(pixels).convert("RGBA"), "PNG"))
    files = st.one_of(damaged(whole) for whole in wholes) | resized_png(wholes[1]) | resized_jpeg(wholes[0])
    return Target("photo: JPEG, PNG, WebP, TIFF, BMP, GIF", wholes[0], files, in_file(folder / "a.img", read), 3500)


def mask(folder: Path) -> Target:
    from tag2mask.data import read_mask, voc_palette

    indices = np.arange(480, dtype=np.uint8).reshape(24, 20) % 21
    palette = Image.fromarray(indices)
    palette.putpalette(voc_palette().tobytes())
    images = (palette, Image.fromarray(indices), Image.fromarray(indices > 9), Image.fromarray(voc_palette()[indices]))
    wholes = [
        _encoded(image, "PNG")
        for image in (*images, images[3].convert("RGBA"), Image.fromarray(indices.astype(np.uint16)))
    ]
    files = st.one_of(damaged(whole) for whole in wholes) | resized_png(wholes[0]) | resized_png(wholes[3])
    return Target("mask, PNG of every mode", wholes[0], files, in_file(folder / "a.png", read_mask))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SIDES = st.sampled_from([0, 1, 2, 21, 300, 13_000, 20_000, 65_535, 2**31 - 1, 2**32 - 1])


def resized_png(whole: bytes) -> st.SearchStrategy[bytes]:
    """PNG files whose header tells of other sizes, with a right checksum."""

    def other(sides: tuple[int, int]) -> bytes:
        head = b"IHDR" + struct.pack(">2I", *sides) + whole[24:29]
        return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]

    return st.tuples(SIDES, SIDES).map(other)


def resized_jpeg(whole: bytes) -> st.SearchStrategy[bytes]:
    """JPEG files whose frame header tells of other sizes."""
    at = whole.index(b"\xff\xc0") + 5

    def other(sides: tuple[int, int]) -> bytes:
        return whole[:at] + struct.pack(">2H", *(side & 0xFFFF for side in sides)) + whole[at + 4 :]

    return st.tuples(SIDES, SIDES).map(other)


def sbd(folder: Path) -> Target:
    from scipy.io import savemat

    from tag2mask.data.sbd import read_sbd

    file = io.BytesIO()
    savemat(file, {"GTcls": {"Segmentation": np.eye(12, 9, dtype=np.uint8)}}, do_compression=False)
    packed = io.BytesIO()
    savemat(packed, {"GTcls": {"Segmentation": np.eye(12, 9, dtype=np.uint8)}}, do_compression=True)
    files = damaged(file.getvalue()) | damaged(packed.getvalue())
    return Target("SBD mask, .mat", file.getvalue(), files, in_file(folder / "a.mat", read_sbd))


def _networks() -> tuple[Any, Any, Any]:
    import torch

    from tag2mask.networks.backbones import Backbone
    from tag2mask.networks.classifier import Classifier
    from tag2mask.networks.deeplab import SegmentationNetwork
    from tag2mask.patterns.eigen import Pattern
    from tag2mask.patterns.estimator import ClassPatterns

    torch.manual_seed(0)
    torch.set_num_threads(1)
    classes = ("dog", "hot dog")
    classifier = Classifier(Backbone(BACKBONE, ["C41"], weights="random"), classes).eval()
    patterns = ClassPatterns(BACKBONE, "C41", weights="random", components=3)
    width = classifier.backbone.channels[classifier.backbone.layers[0]]
    found = Pattern(
        torch.zeros(width), torch.ones(width), torch.tensor([3.0, 2.0, 1.0]), 9.0, torch.tensor([0.3, 0.2, 0.1]), 0.9
    )
    patterns.keep(classifier, classes, [found, found])
    return classifier, patterns, SegmentationNetwork(BACKBONE, classes, weights="random").eval()


def safetensors_files(whole: bytes) -> st.SearchStrategy[bytes]:
    """Damaged files, and whole ones that tell other things of what is in them."""
    size = int.from_bytes(whole[:8], "little")
    head = json.loads(whole[8 : 8 + size])
    about = json.loads(head["__metadata__"]["tag2mask"])

    def with_about(other: Any) -> bytes:
        text = json.dumps(head | {"__metadata__": {"tag2mask": json.dumps(other)}}).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + size :]

    def with_head(other: Any) -> bytes:
        text = json.dumps(other).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + size :]

    return changed(about).map(with_about) | changed(head).map(with_head) | damaged(whole)


def classifier(folder: Path) -> Target:
    from tag2mask.networks.classifier import Classifier

    made, file = _networks()[0], folder / "classifier.safetensors"
    made.save(file)
    whole = file.read_bytes()
    return Target("classifier.safetensors", whole, safetensors_files(whole), in_file(file, Classifier.load))


def patterns(folder: Path) -> Target:
    import torch

    from tag2mask.patterns.estimator import ClassPatterns

    made, file = _networks()[1], folder / "patterns.safetensors"
    made.save(file)

    def read(file: Path) -> None:
        ClassPatterns.load(file).score(torch.zeros(1, 3, 64, 64))

    whole = file.read_bytes()
    return Target("patterns.safetensors", whole, safetensors_files(whole), in_file(file, read))


def segmenter(folder: Path) -> Target:
    from tag2mask.networks.deeplab import SegmentationNetwork

    made, file = _networks()[2], folder / "segmenter.safetensors"
    made.save(file)
    whole = file.read_bytes()
    read = in_file(file, lambda file: SegmentationNetwork.load(file).folded())
    return Target("segmenter.safetensors", whole, safetensors_files(whole), read)


def huggingface(folder: Path) -> Target:
    from tag2mask.config import load_recipe
    from tag2mask.runs.trained import load_segmenter

    _networks()[2].save(folder / "model.safetensors")
    whole = {"tag2mask": "0.1.0", "recipe": load_recipe("fast").model_dump(mode="json")}
    read = in_file(folder / "config.json", lambda _: load_segmenter(folder))
    return Target("Hugging Face folder, config.json", json.dumps(whole).encode(), json_files(whole), read)


def pth(folder: Path) -> Target:
    import torch

    from tag2mask.networks.weights import read_weights

    wholes = []
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.ones(40), "b": torch.zeros(3, 4)}, file, _use_new_zipfile_serialization=zipped)
        wholes.append(file.getvalue())
    files = damaged(wholes[0]) | damaged(wholes[1])
    return Target("weights, .pth", wholes[0], files, in_file(folder / "a.pth", read_weights))


def checkpoint(folder: Path) -> Target:
    import torch

    from tag2mask.networks.weights import load_checkpoint, save_checkpoint

    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    save_checkpoint(folder / "a.pt", model, optimiser, 2)
    whole = (folder / "a.pt").read_bytes()

    def read(file: Path) -> None:
        fresh = torch.nn.Linear(3, 2)
        load_checkpoint(file, fresh, torch.optim.AdamW(fresh.parameters()))

    return Target("training checkpoint, .pt", whole, damaged(whole), in_file(folder / "a.pt", read))


_ALL = (
    csv_table, json_table, photo_list, class_list, coco, voc_xml, recipe, setting, run_config, metrics, photo, mask,
    sbd, classifier, patterns, segmenter, huggingface, pth, checkpoint,
)  # fmt: skip
TARGETS: dict[str, Callable[[Path], Target]] = {make.__name__: make for make in _ALL}
SLOW = {"classifier", "patterns", "segmenter", "huggingface"}
"""Those that build a network for each input that they accept."""


if __name__ == "__main__":
    main()
