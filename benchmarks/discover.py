"""Discovery against the ways it is done elsewhere: the first principal component of one class's descriptors.

    python benchmarks/discover.py --json discover.json
    python benchmarks/discover.py --settings --json memory.json

`incremental-pca` is scikit-learn's IncrementalPCA(n_components=1), fed whole images in batches of about its own
default size (five times the channels), which was the fastest of those tried. `stacked-pca` is what public DDT
code does (haoxuhao/Image-co-localization): it stacks the descriptors image by image to an array that begins with
np.zeros, so in double precision and copied each time, then fits PCA(n_components=1) with the default solver,
which at these sizes is the randomised one. Kinder to it: `stacked-pca-once` stacks once,
`stacked-pca-float32` also in single precision, `stacked-pca-full` is that with the exact solver, as ours is exact.

Ours is what `discover` does with a class's features: moments of eight images at a time, merged, and the
leading eigenvector with its sign. Every run is a process of its own on one core, with the same features, made
from a seed batch by batch outside the clock. Seconds are the processor's. `gemm_share` is the rate of ours,
counted as full matrix products, over that of a plain product of the same shapes in the same process: half of
the entries need not be computed, so up to 2 is possible; `syrk_share` is that over BLAS's symmetric update.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {"1280/28": (1280, 28), "1280/41": (1280, 41), "2048/28": (2048, 28), "2048/41": (2048, 41)}
STACKED: dict[str, dict] = {
    "stacked-pca": {"growing": True},
    "stacked-pca-once": {},
    "stacked-pca-float32": {"dtype": "float32"},
    "stacked-pca-full": {"dtype": "float32", "solver": "full"},
}
PEERS = ("incremental-pca", *STACKED)
BATCH = 8
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class Features:
    """Descriptors like a rectified layer's: an object in each image, 64 decaying factors, noise."""

    def __init__(self, channels, side, seed=0):
        import numpy as np

        self.numpy, self.channels, self.side, self.seed = np, channels, side, seed
        random = np.random.default_rng([seed, 0])
        decay = 0.9 ** np.arange(64, dtype=np.float32)[:, None]
        self.factors = random.standard_normal((64, channels), np.float32) * decay / 4

    def image(self, number):
        """Return float32 positions x channels of one image."""
        random = self.numpy.random.default_rng([self.seed, 1, number])
        weights = random.standard_normal((self.side**2, 64), self.numpy.float32)
        row, column, radius = random.uniform(0.3, 0.7, 3) * self.side
        rows, columns = self.numpy.indices((self.side, self.side))
        inside = self.numpy.hypot(rows - row, columns - column) < radius / 1.5
        weights[:, 0] += 3 * inside.ravel()
        noise = random.standard_normal((self.side**2, self.channels), self.numpy.float32)
        return self.numpy.maximum(weights @ self.factors + 0.3 * noise + 0.2, 0)

    def batches(self, images, size=BATCH):
        for start in range(0, images, size):
            chosen = range(start, min(start + size, images))
            yield self.numpy.concatenate([self.image(number) for number in chosen])


class Clock:
    """Processor seconds of this process, while it runs."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self.start = time.process_time()

    def __exit__(self, *_):
        self.seconds += time.process_time() - self.start


def ours(features, images, clock):
    import torch

    from tag2mask.patterns.eigen import find_pattern
    from tag2mask.patterns.moments import Moments
    from tag2mask.patterns.orientation import evidence_maps

    torch.set_num_threads(1)
    total = None
    for batch in features.batches(images):
        descriptors = torch.from_numpy(batch)
        activation = descriptors[:, 0].view(-1, features.side, features.side)
        with clock, torch.inference_mode():
            evidence = evidence_maps(activation).permute(1, 0, 2, 3).flatten(1)
            new = Moments.of(descriptors, evidence)
            total = total.update(new) if total else new.copy()
    with clock:
        direction = find_pattern(total, 1).direction
    return direction.numpy()


def incremental_pca(features, images, clock):
    from sklearn.decomposition import IncrementalPCA

    pca = IncrementalPCA(n_components=1)
    for batch in features.batches(images, max(1, round(5 * features.channels / features.side**2))):
        with clock:
            pca.partial_fit(batch)
    return pca.components_[0]


def stacked_pca(features, images, clock, solver="auto", dtype="float64", growing=False):
    from sklearn.decomposition import PCA

    pca = PCA(n_components=1, svd_solver=solver, random_state=0)
    if growing:
        stacked = features.numpy.zeros((0, features.channels))
        for image in features.batches(images, 1):
            with clock:
                stacked = features.numpy.vstack((stacked, image))
    else:
        kept = list(features.batches(images, 1))
        with clock:
            stacked = features.numpy.concatenate(kept, dtype=dtype)
    with clock:
        pca.fit(stacked)
    return pca.components_[0]


def rates(channels, positions):
    """Return the rates of a full product and of a symmetric update, in operations of the full product a second."""
    import torch
    from scipy.linalg.blas import ssyrk

    torch.set_num_threads(1)
    matrix = torch.randn(positions, channels)
    found = []
    for multiply in (lambda: matrix.T @ matrix, lambda: ssyrk(1.0, matrix.numpy().T)):
        seconds = []
        for _ in range(5):
            clock = Clock()
            with clock:
                multiply()
            seconds.append(clock.seconds)
        found.append(2 * positions * channels**2 / min(seconds))
    return found


def run_one(method, channels, side, images):
    """Do one method and return what it took; runs in a process of its own."""
    features, clock = Features(channels, side), Clock()
    if method == "ours":
        direction = ours(features, images, clock)
    elif method == "incremental-pca":
        direction = incremental_pca(features, images, clock)
    else:
        direction = stacked_pca(features, images, clock, **STACKED[method])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": clock.seconds, "peak_mb": peak, "direction": direction.astype(float).tolist()}


def in_its_own_process(method, channels, side, images, core):
    with tempfile.NamedTemporaryFile("r") as file:
        command = [sys.executable, __file__, "--one", method, str(channels), str(side), str(images), file.name]
        subprocess.run(
            command, check=True, env={**os.environ, **ONE_THREAD}, preexec_fn=lambda: os.sched_setaffinity(0, {core})
        )
        return json.load(file)


def compare(name, peers, images, core):
    """Yield a row for each peer of one setting."""
    channels, side = SETTINGS[name]
    mine = in_its_own_process("ours", channels, side, images, core)
    speed = in_its_own_process("rates", channels, side, images, core)
    rate = 2 * images * side**2 * channels**2 / mine["seconds"]
    for peer in peers:
        theirs = in_its_own_process(peer, channels, side, images, core)
        cosine = abs(sum(a * b for a, b in zip(mine["direction"], theirs["direction"], strict=True)))
        yield {
            "setting": f"{channels} channels, {side} x {side}, {images} images",
            "peer": peer,
            "seconds": round(mine["seconds"], 3),
            "peer_seconds": round(theirs["seconds"], 3),
            "ratio": round(theirs["seconds"] / mine["seconds"], 2),
            "cosine": round(cosine, 7),
            "peak_mb": round(mine["peak_mb"]),
            "peer_peak_mb": round(theirs["peak_mb"]),
            "gemm_share": round(rate / speed["gemm"], 2),
            "syrk_share": round(rate / speed["syrk"], 2),
        }


def memory_row(counts, core):
    """Peak memory for few and for many images."""
    few, many = (in_its_own_process("ours", 640, 7, count, core)["peak_mb"] for count in counts)
    setting = f"640 channels, 7 x 7, {counts[0]} against {counts[1]} images"
    return {"setting": setting, "peak_mb_few": round(few), "peak_mb_many": round(many), "growth": round(many / few, 3)}


def show(row):
    print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), metavar="D/SIDE", help="none: memory alone")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--memory", type=int, nargs=2, default=[800, 8000], metavar=("FEW", "MANY"), help="0 0: not")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the one to use")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        method, channels, side, images, file = args.one
        shape = int(channels), int(side)
        if method == "rates":
            result = dict(zip(("gemm", "syrk"), rates(shape[0], BATCH * shape[1] ** 2), strict=True))
        else:
            result = run_one(method, *shape, int(images))
        Path(file).write_text(json.dumps(result))
        return
    rows = []
    for name in args.settings:
        for row in compare(name, args.peers, args.images, args.core):
            if not rows:
                show({column: column for column in row})
                show(dict.fromkeys(row, "---"))
            rows.append(row)
            show(row)
    if args.memory[0]:
        rows.append(memory_row(args.memory, args.core))
        print(rows[-1])
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.memory[0] and rows[-1]["growth"] > 1.05:
        sys.exit("memory grows with the number of images")


if __name__ == "__main__":
    main()
