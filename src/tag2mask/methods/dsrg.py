"""DSRG (Huang et al. 2018): CAM seeds that grow from step to step (`tag2mask.training.losses`)."""

from __future__ import annotations

from typing import ClassVar

from tag2mask.methods.cam import SEEDS, Cam


class Dsrg(Cam):
    """Seeds where CAM is large, background where it is small, 255 between; one retraining, as its authors do.

    Not theirs: the background (DRFI, a saliency detector), and the network, whose head sums four rates of dilation (the
    authors' train-s.prototxt). docs/methods.md has the list.
    """

    title = "class activation maps (CAM), as the seeds of DSRG"
    settings: ClassVar[tuple[str, ...]] = (*Cam.settings, *SEEDS, "segmenter.method=dsrg", "segmenter.retrain=1")


METHOD = Dsrg()
