"""A user's script under one way of starting processes: `python tests/under_start_method.py spawn FOLDER`."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import suppress
from pathlib import Path

from made_shapes import RECIPE

SMALL = RECIPE.replace("workers: 0", "workers: 1").replace("epochs: 2,", "epochs: 1, retrain: 0,")


def main(folder):
    import torch

    import tag2mask as t2m
    from tag2mask import cli
    from tag2mask.config import load_recipe
    from tag2mask.demo.scenes import write_scenes
    from tag2mask.networks.backbones import Backbone
    from tag2mask.networks.classifier import Classifier
    from tag2mask.networks.deeplab import SegmentationNetwork
    from tag2mask.training.classifier import train_classifier
    from tag2mask.training.segmenter import train_segmenter

    torch.set_num_threads(1)
    write_scenes(folder / "scenes", count=24, size=64)
    (folder / "small.yaml").write_text(SMALL, "utf-8")
    recipe = load_recipe(folder / "small.yaml")
    data = t2m.load(folder / "scenes", split="train")
    result = t2m.run(data, folder / "run", recipe)
    assert (result.out / "report/index.html").is_file()
    photos, masks = folder / "scenes/photos", folder / "masks"
    sys.argv = ["tag2mask", "predict", str(result.out), str(photos), "--out", str(masks)]
    with suppress(SystemExit):
        cli.main()
    assert len(list(masks.iterdir())) == 24

    rest = {"seed": 0, "workers": 1}
    classifier = Classifier(Backbone("test_resnet", weights="random"), data.classes)
    how = recipe.classifier.model_copy(update={"train": "all", "epochs": 1})
    train_classifier(classifier, data.samples, how, checkpoint=folder / "classifier.pt", **rest)
    segmenter = SegmentationNetwork("test_resnet", data.classes, weights="random")
    how = recipe.segmenter.model_copy(update={"train_from": "last", "crop": 1.0, "epochs": 3})
    train_segmenter(segmenter, data.samples, folder / "scenes/masks", how, checkpoint=folder / "segmenter.pt", **rest)
    assert sorted(file.name for file in folder.glob("*.pt")) == ["classifier.pt", "segmenter.pt"]
    print("all is done")


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    main(Path(sys.argv[2]))
