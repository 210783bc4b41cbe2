"""Seconds and peak memory of every stage as photos and classes grow, in a cheap recipe. One row a stage.

    python benchmarks/growth.py VOC2012 --split train --json growth.json
    python benchmarks/growth.py VOC2012 --split train --counts 20 40 --classes 1

Photos with true masks, at half their size, are repeated under new names by links until there are enough.
`--classes 1 4` is how many variants there are of every class name: photos of a class take them in turn, so VOC's 20
classes become 80. Each stage is a call of the command line of its own. Seconds are those in metrics.json, without the
start of Python; processor seconds are those of the whole command, its start and the processes that decode included:
other programs change them less. Memory is the largest sum of resident sizes of these processes, looked at ten times a
second (pages that they share count twice). CRFs are left out: they work on one photo at a time.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.data import load, write_mask
from tag2mask.runs.folder import read_metrics
from tag2mask.runs.stages import STAGES

SETTINGS = (
    "classifier.size=96", "classifier.epochs=20", "patterns.size=96", "proxy.crf=none", "segmenter.size=96",
    "segmenter.epochs=1", "inference.scales=[96]", "inference.crf=null",
)  # fmt: skip
COLUMNS = ("classes", "photos", "stage", "seconds", "photos_per_second", "processor_seconds", "peak_mb")
PAGE = os.sysconf("SC_PAGE_SIZE")


def repeated(data, folder, count, variants, shrink):
    """Write so many photos, repeated ones as links, with tags and masks of so many variants of each class."""
    seen = Counter()
    classes = [f"{name}-{variant}" if variants > 1 else name for name in data.classes for variant in range(variants)]
    for part in ("photos", "masks"):
        (folder / part).mkdir(parents=True)
    with (folder / "tags.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "labels"))
        for number in range(count):
            index = number % len(data)
            sample, photo = data.samples[index], folder / "photos" / f"{number:06}.jpg"
            if number == index:
                with Image.open(sample.image) as whole:
                    whole.resize((whole.width // shrink, whole.height // shrink)).save(photo, quality=90)
            else:
                photo.symlink_to(folder / "photos" / f"{index:06}.jpg")
            labels = {label: (label - 1) * variants + seen[label] % variants + 1 for label in sample.labels}
            seen.update(labels.keys())
            table.writerow((photo.name, ";".join(classes[label - 1] for label in labels.values())))
            write_truth(data.truth(sample), folder / "masks" / f"{number:06}.png", labels, shrink)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return len(classes)


def write_truth(mask, file, labels, shrink):
    """Write a smaller true mask in which classes have become others."""
    height, width = (side // shrink for side in mask.shape)
    new = np.arange(256, dtype=np.uint8)
    new[list(labels.keys())] = list(labels.values())
    write_mask(file, new[mask[::shrink, ::shrink][:height, :width]])


def resident(process):
    """Return the bytes that a process and its descendants hold."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                sizes[int(entry.name)] = PAGE * int((entry / "statm").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
    family = {process}
    while found := {child for child, parent in parents.items() if parent in family} - family:
        family |= found
    return sum(sizes.get(member, 0) for member in family)


def measured(command, log):
    """Run a command; return its processor seconds and the most memory that it held, in MB."""
    peak, before = 0, processor_seconds()
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{log.read_text()}")
    return processor_seconds() - before, peak / 1e6


def processor_seconds():
    """Return those of all commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rows_of(data, folder, count, variants, args):
    """Yield a row for each stage."""
    classes = repeated(data, folder / "data", count, variants, args.shrink)
    out = folder / "run"
    options = [part for setting in (*SETTINGS, *args.settings) for part in ("--set", setting)]
    command = [sys.executable, "-m", "tag2mask", "run", folder / "data", "--out", out, *options]
    for stage in STAGES:
        processor, peak = measured([*command, "--until", stage], folder / "said.txt")
        seconds = read_metrics(out)["seconds"].get(stage, 0.0)
        speed = round(count / seconds, 1) if seconds else None
        values = (classes, count, stage, seconds, speed, round(processor, 1), round(peak))
        yield dict(zip(COLUMNS, values, strict=True))
        if stage == args.until:
            break


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data as `tag2mask run` takes it")
    parser.add_argument("--split")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2000, 8000], help="photos")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 4], help="variants of every class name")
    parser.add_argument("--shrink", type=int, default=2, help="divide the sides of the photos by this")
    parser.add_argument("--until", choices=STAGES, help="the last stage")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    data, rows = load(args.data, split=args.split), []
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for variants in args.classes:
        for count in args.counts:
            with tempfile.TemporaryDirectory() as folder:
                for row in rows_of(data, Path(folder), count, variants, args):
                    rows.append(row)
                    print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
