"""`tag2mask predict` on a folder against a plain torchvision loop with the same network.

    python benchmarks/predict.py --run runs/mine --photos photos/ --json predict.json

The loop decodes a photo, resizes it to each scale, runs the network, brings the logits to the photo's size, adds
up the softmax, takes the argmax and saves a palette PNG, one photo after the other in inference mode. Both leave the
CRF out, or with `--crf` both end with ours. Without `--run` the network is EfficientNet-Lite0 with a light head of
untrained weights; without `--photos`, photos are drawn. Imports are outside the clock, reading the network's file
is inside. Each takes all photos in turn, `--repeats` times; medians are shown. Where other programs use the
processor too, the ratio of processor seconds (workers included) says more than that of photos a second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as transforms

from tag2mask.api import predict_photos
from tag2mask.config import load_recipe
from tag2mask.crf import prepare
from tag2mask.data import photos_in, read_mask, write_mask
from tag2mask.inference import mask_of
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.runs.folder import resume_run


def untrained_run(folder):
    """A run folder that holds as much as `predict` needs."""
    recipe = load_recipe("fast", ["segmenter.retrain=0", "inference.scales=[241, 328, 401]"])
    values = {"data": {"path": "none"}, "recipe": recipe.model_dump(mode="json")}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    torch.manual_seed(0)
    segmenter = SegmentationNetwork(recipe.backbone.name, [f"class {number}" for number in range(1, 21)])
    segmenter.save(folder / "segmenter.safetensors")
    return folder


def drawn_photos(folder, count, size):
    """JPEGs that vary over some pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        photo = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(float)
        photo = np.clip(photo + random.normal(0, 8, photo.shape), 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / f"{number:04}.jpg", quality=90)
    return folder


def plain_loop(run, photos, out, crf):
    """What one writes in a quarter of an hour."""
    opened = resume_run(run)
    segmenter = SegmentationNetwork.load(opened.segmenter_file).to(opened.device)
    for file in sorted(photos.glob("*.jpg")):
        image = decode_image(str(file), ImageReadMode.RGB).to(opened.device)
        total = 0
        with torch.inference_mode():
            for side in opened.recipe.inference.scales:
                logits = segmenter(transforms.resize(image, [side, side], antialias=True)[None])
                total = total + functional.interpolate(logits, image.shape[1:], mode="bilinear")[0].softmax(0)
        if crf:
            likely = (total / len(opened.recipe.inference.scales)).cpu().numpy()
            mask = mask_of(image.permute(1, 2, 0).cpu().numpy(), likely, opened.recipe.inference.crf)
        else:
            mask = total.argmax(0).byte().cpu().numpy()
        write_mask(out / f"{file.stem}.png", mask)


def ours(run, photos, out, crf):
    predict_photos(run, photos, out, settings=[] if crf else ["inference.crf=null"])


def clocked(function, *arguments):
    """Return wall and processor seconds, those of worker processes included."""
    before = processor_seconds()
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start, processor_seconds() - before


def processor_seconds():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in usage)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run folder with a segmenter")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs, without others in it")
    parser.add_argument("--count", type=int, default=32, help="photos to draw")
    parser.add_argument("--size", type=int, nargs=2, default=[500, 375], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--crf", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the row there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.crf:
        prepare()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = args.run or untrained_run(folder / "run")
        photos = args.photos or drawn_photos(folder / "photos", args.count, args.size)
        names = [sample.name for sample in photos_in(photos)]
        seconds = {"ours": [], "plain": []}
        for _ in range(args.repeats):
            for name, function in (("ours", ours), ("plain", plain_loop)):
                seconds[name].append(clocked(function, run, photos, folder / name, args.crf))
        same = [
            (read_mask(folder / "ours" / f"{name}.png") == read_mask(folder / "plain" / f"{name}.png")).mean()
            for name in names
        ]
    (wall, processor), (peer_wall, peer_processor) = (
        [statistics.median(values) for values in zip(*taken, strict=True)] for taken in seconds.values()
    )
    row = {
        "setting": f"{len(names)} photos, {'with' if args.crf else 'without'} CRF, {args.threads} threads of "
        f"{os.cpu_count()} cores",
        "photos_per_second": round(len(names) / wall, 2),
        "peer_photos_per_second": round(len(names) / peer_wall, 2),
        "ratio": round(peer_wall / wall, 2),
        "processor_seconds_per_photo": round(processor / len(names), 3),
        "peer_processor_seconds_per_photo": round(peer_processor / len(names), 3),
        "processor_ratio": round(peer_processor / processor, 2),
        "agreement": round(float(np.mean(same)), 5),
    }
    for key, value in row.items():
        print(f"{key:<34}{value}")
    if args.json:
        args.json.write_text(json.dumps([row], indent=1) + "\n")


if __name__ == "__main__":
    main()
