"""DSRG (Huang et al. 2018): CAM seeds that grow from step to step (`tag2mask.training.losses`)."""

from __future__ import annotations

from typing import ClassVar

from tag2mask.methods.cam import SEEDS, Cam


class Dsrg(Cam):
    """Seeds where CAM is large, background where it is small, 255 between."""

    title = "class activation maps (CAM), as the seeds of DSRG"
    settings: ClassVar[tuple[str, ...]] = (*Cam.settings, *SEEDS, "segmenter.method=dsrg")


METHOD = Dsrg()
