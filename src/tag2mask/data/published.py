"""How many photos the published splits have, and a remark on a set that has another number."""

from __future__ import annotations

from pathlib import Path

VOC2012 = {"train": 1_464, "val": 1_449, "trainval": 2_913, "trainaug": 10_582}
"""Photos with masks, by split: Everingham et al. 2015; ``trainaug`` with SBD, Hariharan et al. 2011."""

COCO2017 = {"train2017": (118_287, 117_266), "val2017": (5_000, 4_952)}
"""Photos, and how many of them have annotations, by split of the release of 2017 (COCO: Lin et al. 2014)."""


def voc_remarks(root: Path, split: str | Path | None, photos: int) -> tuple[str, ...]:
    """Return a remark if a set has not as many photos as the split of VOC 2012 that it is named after.

    Args:
        root: the folder that has ``JPEGImages``; other years than 2012 get no remark.
        split: name or path of the list.
        photos: how many there are.

    >>> voc_remarks(Path("VOCdevkit/VOC2012"), "lists/train_aug.txt", 1464)
    ('trainaug of VOC 2012 has 10582 photos as published, here are 1464',)
    >>> voc_remarks(Path("VOCdevkit/VOC2012"), "val", 1449)
    ()
    """
    name = "" if split is None else Path(split).stem.replace("_", "")
    wanted = VOC2012.get(name, photos) if "2012" in root.name else photos
    return () if photos == wanted else (f"{name} of VOC 2012 has {wanted} photos as published, here are {photos}",)


def coco_remarks(name: str, photos: int, labelled: int) -> tuple[str, ...]:
    """Return a remark if a set has not as many photos as the split of COCO 2017 that it is named after.

    >>> coco_remarks("val2017", 128, 126)
    ('val2017 of COCO has 5000 photos as published, 4952 of them with annotations; here are 128 and 126',)
    """
    wanted, annotated = COCO2017.get(name, (photos, labelled))
    if (photos, labelled) == (wanted, annotated):
        return ()
    there = f"{wanted} photos as published, {annotated} of them with annotations"
    return (f"{name} of COCO has {there}; here are {photos} and {labelled}",)
