"""The last CRF of a run at several sides and settings: mIoU of masks under tags, and time, one row a setting.

    taskset -c 1 python benchmarks/crf_sides.py runs/fast --step 12 --crf 1024/67,5,5/10 320/45,5,6/5

RUN is a finished run whose training photos have true masks. A setting is SIDE/SIGMA,COLOUR,WEIGHT/STEPS, or `none` for
no CRF; the Gaussian kernel stays as the recipe has it. Times are processor milliseconds per photo of one thread, from
logits to a mask.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from tag2mask.config import CrfConfig
from tag2mask.crf import prepare
from tag2mask.data import read_mask
from tag2mask.inference import forward, mask_at
from tag2mask.metrics import confusion_matrix, mean_iou
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.runs.folder import resume_run


def crf_of(setting: str, given: CrfConfig) -> CrfConfig | None:
    """Return the CRF that a setting on the command line stands for."""
    if setting == "none":
        return None
    side, bilateral, steps = setting.split("/")
    changes = {"side": side, "bilateral": [float(value) for value in bilateral.split(",")], "steps": steps}
    return CrfConfig.model_validate(given.model_dump() | changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--crf", nargs="+", default=["none", "1024/67,5,5/10", "320/45,5,6/5"], help="settings")
    parser.add_argument("--step", type=int, default=6, help="every n-th training photo")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    prepare()
    run = resume_run(args.run)
    segmenter = SegmentationNetwork.load(run.segmenter_after(run.recipe.segmenter.retrain)).eval()
    how, tiles, classes = run.recipe.inference, run.recipe.tiles, len(run.train.classes) + 1
    settings = {one: how.model_copy(update={"crf": crf_of(one, how.crf or CrfConfig())}) for one in args.crf}
    found = {one: np.zeros((classes, classes), np.int64) for one in settings}
    seconds = dict.fromkeys(settings, 0.0)
    samples = [sample for sample in run.train.samples if sample.mask and sample.labels][args.start :: args.step]
    for sample in samples:
        photo, truth = sample.read(), read_mask(sample.mask)
        [logits] = forward(segmenter, [photo], how.scales, tiles)
        for name, setting in settings.items():
            start = time.process_time()
            mask = mask_at(logits, photo, truth.shape, setting, sample.labels, tiles)
            seconds[name] += time.process_time() - start
            found[name] += confusion_matrix(truth, mask, classes)
    rows = [
        {"crf": name, "photos": len(samples), "miou": 100 * mean_iou(found[name]),
         "ms": 1000 * seconds[name] / len(samples)}
        for name in settings
    ]  # fmt: skip
    for row in rows:
        print(f"{row['crf']:20} {row['photos']:5} photos  mIoU {row['miou']:.2f}  {row['ms']:.0f} ms a photo")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
