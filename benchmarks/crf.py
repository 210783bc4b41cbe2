"""The dense CRF beside pydensecrf2 1.1: time, agreement and memory, one row a setting.

    taskset -c 1 python benchmarks/crf.py --photos VOC2012/JPEGImages
    python benchmarks/crf.py --photos VOC2012/JPEGImages --folder 60

Times are processor seconds of one thread, the smallest of the repeats of each photo, ours and the peer's in
turn; ratios are peer over ours, the median over photos. Photos of one size share the Gaussian kernel's lattice, as
they do in use (about 8 ms). Without pydensecrf2 the peer's columns stay empty,
without photos one is generated. `--folder N` measures photos per second instead: ours with one thread a core,
the peer in one process, and how much faster two threads multiply matrices than one while that runs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import ctypes
import json
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.crf import dense_crf, dense_crf_many, prepare

try:
    from pydensecrf.densecrf import DenseCRF2D
except ImportError:
    DenseCRF2D = None

COLUMNS = ("labels", "unary", "ours_s", "peer_s", "ratio", "agreement", "difference", "ours_mb", "peer_mb")


def smooth(fields, height, width, generator, cell=16):
    """Random fields that vary over some `cell` pixels."""
    coarse = generator.normal(size=(fields, height // cell + 2, width // cell + 2)).astype(np.float32)
    resized = [Image.fromarray(field).resize((width, height), Image.Resampling.BILINEAR) for field in coarse]
    return np.stack([np.asarray(field) for field in resized])


def unary(kind, labels, height, width, seed):
    """Probabilities: `diffuse`, all labels everywhere; `confident`, a few labels in areas, as a network's are."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 0.5, (labels, height, width)).astype(np.float32)
    if kind == "diffuse":
        logits = 3 * smooth(labels, height, width, generator) + noise
    else:
        logits = noise - 6
        chosen = generator.choice(labels, min(4, labels), replace=False)
        logits[chosen] += 6 + 8 * smooth(len(chosen), height, width, generator, cell=64)
    grown = np.exp(logits - logits.max(0))
    return grown / grown.sum(0)


def peer_crf(image, probabilities):
    labels, height, width = probabilities.shape
    crf = DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(-np.log(np.maximum(probabilities, np.float32(1e-5))).reshape(labels, -1))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    return np.array(crf.inference(10)).reshape(probabilities.shape)


def photos(folder):
    """Yield the folder's photos, or a generated one for ever."""
    if folder:
        for path in sorted(folder.glob("*.jpg")):
            yield np.array(Image.open(path).convert("RGB"))
    while not folder:
        generator = np.random.default_rng(0)
        field = 127 + 50 * np.moveaxis(smooth(3, 375, 500, generator), 0, 2) + generator.normal(0, 3, (375, 500, 3))
        yield np.clip(field, 0, 255).astype(np.uint8)


def timed(function, *arguments):
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def resident(field):
    """A line of Linux's account of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(function, kind, labels, image, queue):
    """Put into the queue how far memory rises above photo and unary in one call; runs in its own process."""
    probabilities = unary(kind, labels, *image.shape[:2], 0)
    function(image[:8, :8].copy(), np.ascontiguousarray(probabilities[:, :8, :8]))
    ctypes.CDLL(None).malloc_trim(0)  # or the call would fill room that is already counted
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    function(image, probabilities)
    queue.put(resident("VmHWM") - before)


def peak_memory(function, kind, labels, image):
    if not Path("/proc/self/clear_refs").exists():
        return None
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak, args=(function, kind, labels, image, queue))
    process.start()
    result = queue.get(timeout=600)
    process.join()
    return result


def measure(kind, labels, images, repeats):
    """One row."""
    ours, peers, agreements, differences = [], [], [], []
    for seed, image in enumerate(images):
        probabilities = unary(kind, labels, *image.shape[:2], seed)
        runs = []
        for _ in range(repeats):
            mine, refined = timed(dense_crf, image, probabilities)
            theirs, reference = timed(peer_crf, image, probabilities) if DenseCRF2D else (np.nan, refined)
            runs.append((mine, theirs))
        best = np.min(runs, axis=0)
        ours.append(best[0])
        peers.append(best[1])
        agreements.append((refined.argmax(0) == reference.argmax(0)).mean())
        differences.append(np.abs(refined - reference).max())
    row = {"labels": labels, "unary": kind, "ours_s": np.mean(ours)}
    row["ours_mb"] = peak_memory(dense_crf, kind, labels, images[0])
    if DenseCRF2D:
        row |= {"peer_s": np.mean(peers), "ratio": np.median(np.divide(peers, ours))}
        row |= {"agreement": min(agreements), "difference": max(differences)}
        row["peer_mb"] = peak_memory(peer_crf, kind, labels, images[0])
    return {column: plain(row.get(column)) for column in COLUMNS}


def plain(value):
    return float(value) if isinstance(value, np.floating) else value


def show(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.5f}" if 0.99 < value <= 1 else f"{value:.3g}"
    return str(value)


def matrix_speedup():
    """How much more two threads multiply than one: 2 where two cores are really there."""

    def multiply(_):
        matrix = np.ones((700, 700), np.float32)
        for _ in range(20):
            matrix = matrix @ matrix / 700
        return matrix

    rates = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            list(pool.map(multiply, range(2 * threads)))
            rates.append(threads / (time.perf_counter() - start))
    return rates[1] / rates[0]


def folder_row(kind, labels, images, workers):
    """Photos per second over a folder."""
    pairs = [(image, unary(kind, labels, *image.shape[:2], seed)) for seed, image in enumerate(images)]
    before = matrix_speedup()
    start = time.perf_counter()
    for _ in dense_crf_many(pairs, workers=workers):
        pass
    ours = len(pairs) / (time.perf_counter() - start)
    row = {"labels": labels, "unary": kind, "workers": workers, "ours_per_s": ours}
    if DenseCRF2D:
        start = time.perf_counter()
        for pair in pairs:
            peer_crf(*pair)
        row["peer_per_s"] = len(pairs) / (time.perf_counter() - start)
        row["ratio"] = ours / row["peer_per_s"]
    return row | {"matrix_speedup": (before + matrix_speedup()) / 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs")
    parser.add_argument("--count", type=int, default=5, help="photos per setting")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 5, 21, 81])
    parser.add_argument("--unaries", nargs="+", default=["diffuse", "confident"], choices=["diffuse", "confident"])
    parser.add_argument("--folder", type=int, default=0, help="photos per second over so many photos instead")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    print(f"compiled or loaded in {prepare():.2f} s")
    images = list(islice(photos(args.photos), args.folder or (args.count if args.photos else 1)))
    rows = []
    for labels in args.labels:
        for kind in args.unaries:
            if args.folder:
                rows.append(folder_row(kind, labels, images, args.workers))
            else:
                rows.append(measure(kind, labels, images, args.repeats))
            if len(rows) == 1:
                print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
            print("| " + " | ".join(show(value) for value in rows[-1].values()) + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
