"""Runs on data as published: COCO's truth is drawn once a run, and photos in both splits are told of."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as rle

from tag2mask.config import load_recipe
from tag2mask.data import read_mask, write_mask
from tag2mask.runs import plan as planning
from tag2mask.runs import tasks
from tag2mask.runs.folder import Source, open_run, read_metrics

CLASSES = ("disc", "square")


def write_instances(shapes, split):
    """Write the truth of a list of photos as COCO does; return the masks by the photos' names."""
    images, annotations, masks = [], [], {}
    for number, name in enumerate((shapes / f"{split}.txt").read_text().split()):
        mask = masks[f"photos/{name}"] = read_mask(shapes / f"masks/{name}.png")
        images.append(
            {"id": number, "file_name": f"photos/{name}.jpg", "height": mask.shape[0], "width": mask.shape[1]}
        )
        for label in set(mask.ravel().tolist()) - {0}:
            packed = rle.encode(np.asfortranarray(mask == label, np.uint8))
            region = {"size": packed["size"], "counts": packed["counts"].decode()}
            annotations.append({"image_id": number, "category_id": 10 * label, "segmentation": region})
    categories = [{"id": 10 * label, "name": name} for label, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (shapes / f"instances_{split}.json").write_text(json.dumps(content))
    return masks


def test_a_run_on_coco_draws_its_truth_once(shapes, recipe_file, tmp_path, monkeypatch):
    train, val = write_instances(shapes, "train"), write_instances(shapes, "val")
    source = Source(str(shapes / "instances_train.json"), eval_split="val")
    run = open_run(tmp_path / "run", source, load_recipe(recipe_file))
    assert not (run.out / "truth").exists()
    for folder, masks in (("proxy", train), ("predictions", val)):
        for name, mask in masks.items():
            write_mask(run.out / folder / f"{name}.png", mask)
    tasks.evaluate(run)
    assert [read_metrics(run.out)[name]["miou"] for name in ("proxy", "prediction")] == [100, 100]
    for folder, masks in (("train", train), ("evaluation", val)):
        files = {
            file.relative_to(run.out / "truth" / folder): file for file in run.out.glob(f"truth/{folder}/**/*.png")
        }
        assert {file.with_suffix("").as_posix() for file in files} == set(masks)
        for name, file in files.items():
            assert np.array_equal(read_mask(file), masks[name.with_suffix("").as_posix()])
    monkeypatch.setattr("tag2mask.data.outlines.rle", None)  # whatever would draw now fails
    tasks.evaluate(run)
    assert [read_metrics(run.out)[name]["miou"] for name in ("proxy", "prediction")] == [100, 100]


def test_a_run_on_mask_files_copies_none(finished_run):
    assert not (finished_run / "truth").exists()


@pytest.mark.parametrize(
    ("split", "eval_split", "told"),
    [("train", "val", None), ("train", None, None), (None, "val", "3 of 3"), ("mixed", "val", "1 of 3")],
)
def test_photos_in_both_splits_are_told_of(shapes, recipe_file, tmp_path, caplog, split, eval_split, told):
    (shapes / "mixed.txt").write_text((shapes / "train.txt").read_text() + "p04\n")
    caplog.set_level(logging.WARNING, "tag2mask")
    open_run(tmp_path / "run", Source(str(shapes), None, split, eval_split), load_recipe(recipe_file))
    said = [record.message for record in caplog.records]
    assert len(said) == (1 if told else 0)
    for line in said:
        assert line.startswith(f"{told} photos of the evaluation split are in the training split too, for example p04")


def test_the_plan_tells_of_other_counts_than_published(shapes_folder, recipe_file, tmp_path):
    run = open_run(tmp_path / "run", Source(str(shapes_folder), None, "train", "val"), load_recipe(recipe_file))
    run.train = replace(run.train, remarks=("train of VOC 2012 has more",))
    run.evaluation = replace(run.evaluation, remarks=("val of VOC 2012 has more",))
    lines = planning.plan(run).splitlines()
    assert "train of VOC 2012 has more" in lines
    assert lines.index("val of VOC 2012 has more") == lines.index("evaluation: 3 photos of val") + 1
