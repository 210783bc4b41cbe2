"""Masks as the PASCAL VOC evaluation server takes them."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

from tag2mask.data.decode import mask_image
from tag2mask.data.readers.voc import VOC_CLASSES
from tag2mask.errors import DataError
from tag2mask.exports.masks import Masks
from tag2mask.files import whole
from tag2mask.names import IGNORE

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
"""Where the server looks for masks of the segmentation task that may use other training data (comp6)."""


def write_voc_server(masks: Masks, out: Path) -> None:
    """Write a tar of 8-bit palette PNG files in the server's folders.

    Args:
        masks: what to write; the classes, where known, must be VOC's.
        out: the tar file.

    Raises:
        DataError: other classes, a mask with 255 or an index above 20, or a name with a folder.
    """
    if masks.classes and masks.classes != VOC_CLASSES:
        raise DataError(f"these are masks of {', '.join(masks.classes)}; the server takes VOC's 20 in VOC's order")
    with whole(out) as file, tarfile.open(file, "w") as tar:
        for name, mask in replace(masks, classes=VOC_CLASSES).read("VOC server"):
            if (mask == IGNORE).any():
                raise DataError(
                    f"{masks.files[name]}: has pixels of 255 (uncertain), the server takes 0 to 20; export the "
                    "predictions, which have none"
                )
            if "/" in name:
                raise DataError(f"{masks.files[name]}: lies in a sub-folder; the server takes one folder of masks")
            png = io.BytesIO()
            mask_image(mask).save(png, format="PNG")
            entry = tarfile.TarInfo(f"{FOLDER}/{name}.png")
            entry.size = png.tell()
            png.seek(0)
            tar.addfile(entry, png)
