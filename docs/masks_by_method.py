"""Draw docs/pictures/methods.jpg: the proxy masks of the same four generated scenes by every method of table 2.

python docs/masks_by_method.py docs/pictures
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tag2mask.data import load, read_mask, read_photo
from tag2mask.demo.scenes import write_scenes
from tag2mask.reproduce import figures
from tag2mask.reproduce.methods import PUBLISHED as METHODS
from tag2mask.reproduce.methods import RECIPE, method_recipes
from tag2mask.runs.folder import Source, open_run
from tag2mask.runs.stages import run_stages

PHOTOS, SHOWN = 90, 4


def draw(folder: Path) -> None:
    """Make the proxy masks of all methods on one classifier, and save the picture."""
    names = [name for name in METHODS if name != "emadapt"]  # it has no masks but its segmenter's
    with tempfile.TemporaryDirectory() as home:
        root = Path(home)
        write_scenes(root / "scenes", count=PHOTOS)
        for name, recipe in method_recipes(names, RECIPE, ()).items():
            run = open_run(root / name, Source.of(root / "scenes", split="train"), recipe)
            if (known := root / names[0] / "classifier.safetensors").exists():
                shutil.copy(known, run.classifier_file)
            run_stages(run, "estimate")
        data = load(root / "scenes", split="train")
        shown = [sample for sample in data.samples if len(sample.labels) > 1][:SHOWN]
        rows = [
            figures.Row(
                read_photo(sample.image),
                data.truth(sample),
                [read_mask(root / name / "proxy" / f"{sample.name}.png") for name in names],
            )
            for sample in shown
        ]
        figures.save_masks(rows, ("photo", "truth", *names), data.classes, figures.PAGE, root / "methods")
        picture = Image.open(root / "methods.png").convert("RGB")
        picture.thumbnail((1000, 1600))
        picture.save(folder / "methods.jpg", quality=78, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
