"""Where the time of each stage goes: photos a second, the share spent waiting for photos, and the five dearest calls.

    taskset -c 0,1 python benchmarks/stages.py VOC2012 --split train --photos 200 --json stages.json

All stages of a recipe on the first photos, with one epoch of each training unless `--set` says otherwise. Waiting is
the wall time in which the main thread waits for the decoding processes (with `--set workers=0`, in which it decodes).
Processor seconds are of all threads and processes, `main_percent` of them the main thread's; the dearest calls are
cProfile's by their own processor time, of the main thread alone: CRFs and the writing of masks run in other threads,
decoding in other processes. Photos a second count every photo once, also where a stage passes over them several times.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from tag2mask.config import load_recipe
from tag2mask.data import load
from tag2mask.runs.folder import Source, open_run
from tag2mask.runs.stages import STAGES

COLUMNS = ("stage", "seconds", "processor_seconds", "photos_per_second", "waiting_percent", "main_percent", "dearest")


class Waiting:
    """The wall seconds in which the next batch of a loader is waited for."""

    def __init__(self):
        self.seconds, following = 0.0, _BaseDataLoaderIter.__next__

        def clocked(loader):
            start = time.perf_counter()
            try:
                return following(loader)
            finally:
                self.seconds += time.perf_counter() - start

        _BaseDataLoaderIter.__next__ = clocked


def dearest(profile, count=5):
    """Return the calls that take most time themselves, with their share of it in percent."""
    stats = pstats.Stats(profile).stats
    total = sum(own for _, _, own, _, _ in stats.values())
    first = sorted(stats.items(), key=lambda item: -item[1][2])[:count]
    return ", ".join(f"{short(name)} {100 * entry[2] / total:.0f}%" for (_, _, name), entry in first)


def short(name):
    """Return the last word of what cProfile calls a function."""
    return name.removesuffix(" objects").strip("<>").replace("'", "").split(" of ")[0].split()[-1].split(".")[-1]


def processor_seconds():
    """Return those of this process and of the decoding ones that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in usage)


def row_of(stage, run, waiting):
    """Do a stage and say what it took."""
    profile, before, start = cProfile.Profile(time.thread_time), waiting.seconds, time.perf_counter()
    processor, main_thread = processor_seconds(), time.thread_time()
    profile.runcall(STAGES[stage].do, run)
    seconds, processor = time.perf_counter() - start, processor_seconds() - processor
    main_share = 100 * (time.thread_time() - main_thread) / processor
    share = 100 * (waiting.seconds - before) / seconds
    speed = len(run.train) / seconds
    values = (
        stage,
        round(seconds, 1),
        round(processor, 1),
        round(speed, 2),
        round(share, 1),
        round(main_share),
        dearest(profile),
    )
    return dict(zip(COLUMNS, values, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data as `tag2mask run` takes it")
    parser.add_argument("--labels")
    parser.add_argument("--split")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--recipe", default="luo2020-efficientnet-lite0")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = load(args.data, args.labels, args.split)
    data = data.with_samples(data.samples[: args.photos])
    recipe = load_recipe(args.recipe, ["segmenter.epochs=1", *args.settings])
    waiting, rows = Waiting(), []
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(Path(folder) / "run", Source("given in Python"), recipe, given=data)
        print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
        for stage in STAGES:
            rows.append(row_of(stage, run, waiting))
            print("| " + " | ".join(map(str, rows[-1].values())) + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
