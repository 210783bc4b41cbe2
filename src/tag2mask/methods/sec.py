"""SEC (Kolesnikov and Lampert 2016): CAM seeds that grow by three losses (`tag2mask.training.losses`)."""

from __future__ import annotations

from typing import ClassVar

from tag2mask.methods.cam import SEEDS, Cam


class Sec(Cam):
    """Seeds where CAM is large, background where it is small, 255 between."""

    title = "class activation maps (CAM), as the seeds of SEC"
    settings: ClassVar[tuple[str, ...]] = (*Cam.settings, *SEEDS, "segmenter.method=sec", "segmenter.retrain=0")


METHOD = Sec()
