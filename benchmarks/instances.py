"""Instances from masks: connected components against components split at their necks, by class-agnostic AP50.

    python benchmarks/instances.py --coco annotations/instances.json --run runs/voc --json instances.json

The masks are the true ones of generated photos (`blobs`, `bright-blobs`, `plain`) and of the COCO photos, then, with
`--run`, those that its segmenter predicts of the COCO photos and, with `--demo-run blobs=DIR`, of generated ones.
Objects of the COCO file count where the run has their class. AP50 is pycocotools' with one category for all; the
score of a part is its area. Shown too are parts a photo, and precision and recall at an IoU of 0.5.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import tag2mask as t2m
from tag2mask.data import load_coco, read_photo
from tag2mask.demo import cells, kinds, scenes
from tag2mask.exports.instances import instances

VOC_NAMES = {
    "airplane": "aeroplane", "couch": "sofa", "dining table": "diningtable", "motorcycle": "motorbike",
    "potted plant": "pottedplant", "tv": "tvmonitor",
}  # fmt: skip
NECKS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8)
MIN_AREA = 20


class Case(NamedTuple):
    """A photo's mask, uint8 H x W, and its true objects, bool H x W each."""

    mask: NDArray[np.uint8]
    objects: list[NDArray[np.bool_]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--coco", type=Path, help="COCO instances")
    parser.add_argument("--run", type=Path, help="a run folder whose segmenter predicts the COCO photos")
    parser.add_argument("--demo-run", nargs="*", default=[], metavar="KIND=DIR", help="runs of generated photos")
    parser.add_argument("--count", type=int, default=60, help="generated photos a kind")
    parser.add_argument("--seed", type=int, default=1, help="of the generated photos; the demo's own are of 0")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    runs = dict(one.split("=", 1) for one in args.demo_run)
    rows = []
    for kind in ("blobs", "bright-blobs", "plain"):
        photos = [drawn(kind, index, args.seed) for index in range(args.count)]
        rows.append(scored(f"{kind}, true masks", [case for _, case in photos]))
        if kind in runs:
            model = t2m.load_segmenter(runs[kind])
            cases = [Case(model.predict(photo), case.objects) for photo, case in photos]
            rows.append(scored(f"{kind}, predicted masks", cases))
    if args.coco:
        rows.append(scored("COCO, true masks", list(coco_cases(args.coco, None))))
    if args.coco and args.run:
        rows.append(scored("COCO, predicted masks", list(coco_cases(args.coco, t2m.load_segmenter(args.run)))))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def drawn(kind: str, index: int, seed: int) -> tuple[NDArray[np.uint8], Case]:
    """Return a generated photo, its mask and its objects: those pixels of each that no later one covers."""
    objects: list[NDArray[np.bool_]] = []
    shape: list[tuple[int, int]] = []
    window, outline, paint = cells.window, cells.round_outline, scenes.paint
    parts = []

    def noted_window(size, *args):  # the place of the next cell
        shape[:] = [size]
        parts.append(window(size, *args))
        return parts[-1]

    def noted_outline(*args, **options):
        inside = outline(*args, **options)
        one = np.zeros(shape[0], bool)
        one[parts[-1][0]] = inside >= 0
        objects.append(one)
        return inside

    def noted_paint(photo, mask, *args):
        own = np.zeros_like(mask)
        paint(photo, own, *args)
        mask[own > 0] = own[own > 0]
        objects.append(own > 0)

    with (
        mock.patch.object(cells, "window", noted_window),
        mock.patch.object(cells, "round_outline", noted_outline),
        mock.patch.object(scenes, "paint", noted_paint),
    ):
        scene = kinds.make_photo(kind, index, seed=seed)
    covered = np.zeros(scene.mask.shape, bool)
    visible = []
    for one in reversed(objects):
        visible.append(one & ~covered)
        covered |= one
    assert np.mean(covered == (scene.mask > 0)) > 0.999
    return scene.photo, Case(scene.mask, [one for one in visible if one.sum() >= MIN_AREA])


def coco_cases(file: Path, model: t2m.Segmenter | None) -> Iterator[Case]:
    """Yield the masks of COCO photos, true ones or a model's, with the objects of its classes."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
    names = {number: one["name"] for number, one in truth.cats.items()}
    known = {number for number, name in names.items() if model is None or VOC_NAMES.get(name, name) in model.classes}
    numbers = {Path(one["file_name"]).stem: number for number, one in truth.imgs.items()}
    data = load_coco(file)
    for sample in data.samples:
        drawn_ones = truth.imgToAnns[numbers[Path(sample.image).stem]]
        objects = [truth.annToMask(one).astype(bool) for one in drawn_ones if one["category_id"] in known]
        mask = data.truth(sample) if model is None else model.predict(read_photo(sample.image))
        if objects and mask is not None:
            yield Case(
                np.where(mask == 255, 0, mask).astype(np.uint8), [one for one in objects if one.sum() >= MIN_AREA]
            )


def scored(name: str, cases: list[Case]) -> dict[str, object]:
    """Return AP50, precision, recall and parts a photo for each neck; 0 is connected components."""
    row: dict[str, object] = {"set": name, "photos": len(cases), "objects": sum(len(case.objects) for case in cases)}
    for neck in NECKS:
        row[f"neck {neck}"] = score(cases, neck)
    print(row["set"], row["photos"], row["objects"])
    for neck in NECKS:
        print("  ", neck, row[f"neck {neck}"])
    return row


def score(cases: list[Case], neck: float) -> dict[str, float]:
    found, truth = [], []
    for image, case in enumerate(cases, 1):
        for one in case.objects:
            truth.append(record(len(truth) + 1, image, one) | {"iscrowd": 0})
        for part in instances(case.mask, MIN_AREA, neck):
            whole = np.zeros(case.mask.shape, bool)
            rows, columns = part.inside.shape
            whole[part.top : part.top + rows, part.left : part.left + columns] = part.inside
            found.append(record(len(found) + 1, image, whole) | {"score": float(whole.sum())})
    images = [
        {"id": image, "height": case.mask.shape[0], "width": case.mask.shape[1]} for image, case in enumerate(cases, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        sets = [COCO(), COCO()]
        for one, records in zip(sets, (truth, found), strict=True):
            one.dataset = {"images": images, "annotations": records, "categories": [{"id": 1}]}
            one.createIndex()
        judge = COCOeval(*sets, "segm")
        judge.params.useCats, judge.params.iouThrs, judge.params.maxDets = 0, np.array([0.5]), [1, 10, 1000]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, 0, 0, -1]
    matched = sum(int((one["dtMatches"][0] > 0).sum()) for one in judge.evalImgs[: len(cases)] if one)
    return {
        "AP50": round(100 * float(precision[precision > -1].mean()), 1),
        "precision": round(100 * matched / max(1, len(found)), 1),
        "recall": round(100 * matched / len(truth), 1),
        "parts a photo": round(len(found) / len(cases), 1),
    }


def record(number: int, image: int, inside: NDArray[np.bool_]) -> dict[str, object]:
    packed = rle.encode(np.asfortranarray(inside, np.uint8))
    area = int(inside.sum())
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "segmentation": packed,
        "area": area,
        "bbox": [0, 0, 1, 1],
    }


if __name__ == "__main__":
    main()
