"""Draw the pictures of docs/limits.md: what the recipe fast makes of generated scenes, some of them beyond its reach.

python docs/pictures.py docs/pictures
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.config import load_recipe
from tag2mask.data import read_mask, read_photo, write_mask
from tag2mask.demo.backgrounds import bricks, draw_background
from tag2mask.demo.scenes import Scene, Spot, develop, light_from
from tag2mask.demo.scenes import paint as paint_object
from tag2mask.report import OverviewRow, save_overview
from tag2mask.runs.folder import Source, open_run, read_metrics
from tag2mask.runs.stages import run_stages

PHOTOS, SHOWN, SIZE = 24, 3, 256
BALL, LADYBIRD, STRAWBERRY = 1, 4, 5


def paint(index: int, spots: list[Spot], background: Callable = draw_background) -> Scene:
    """Return a scene with objects at given places, in shares of the picture."""
    random = np.random.default_rng([7, index])
    shape = (round(0.75 * SIZE), SIZE)
    light, photo, mask = light_from(random), background(shape, random), np.zeros(shape, np.uint8)
    for spot in spots:
        place = Spot(spot.label, spot.row * shape[0], spot.column * shape[1], spot.radius * shape[0])
        paint_object(photo, mask, place, light, random)
    return Scene(develop(photo, random), mask)


def apart(index: int) -> Scene:
    """One object of one class in each photo: what works."""
    return paint(index, [Spot((LADYBIRD, STRAWBERRY)[index % 2], 0.5, 0.35 + 0.06 * (index % 6), 0.3)])


def together(index: int) -> Scene:
    """Two classes that are always in the same photo."""
    left, right = ((LADYBIRD, STRAWBERRY), (STRAWBERRY, LADYBIRD))[index % 2]
    return paint(index, [Spot(left, 0.5, 0.27, 0.26), Spot(right, 0.5, 0.73, 0.26)])


def tiny(index: int) -> Scene:
    """Objects a twentieth of the photo wide."""
    label = (LADYBIRD, BALL)[index % 2]
    place = np.random.default_rng(index).uniform(0.15, 0.85, 2)
    return paint(index, [Spot(label, float(place[0]), float(place[1]), 0.035)])


def texture(index: int) -> Scene:
    """A class that fills its photos from edge to edge, beside one of objects."""
    if index % 2:
        return paint(index, [Spot(BALL, 0.5, 0.35 + 0.06 * (index % 6), 0.3)])
    scene = paint(index, [], lambda shape, random: bricks(shape, random).astype(np.float32))
    return Scene(scene.photo, np.full_like(scene.mask, STRAWBERRY))


CASES: dict[str, tuple[Callable[[int], Scene], dict[int, str]]] = {
    "apart": (apart, {LADYBIRD: "ladybird", STRAWBERRY: "strawberry"}),
    "together": (together, {LADYBIRD: "ladybird", STRAWBERRY: "strawberry"}),
    "tiny": (tiny, {LADYBIRD: "ladybird", BALL: "ball"}),
    "texture": (texture, {BALL: "ball", STRAWBERRY: "wall"}),
}


def draw(name: str, folder: Path) -> None:
    """Make the proxy masks of a case and save some photos with truth and proxy mask."""
    make, names = CASES[name]
    with tempfile.TemporaryDirectory() as home:
        root, classes = Path(home), sorted(names.values())
        (root / "photos").mkdir()
        tags = []
        for index in range(PHOTOS):
            scene = make(index)
            value = np.zeros(256, np.uint8)
            value[list(names)] = [1 + classes.index(known) for known in names.values()]
            Image.fromarray(scene.photo).save(root / f"photos/{index:02}.jpg", quality=92)
            write_mask(root / f"masks/{index:02}.png", value[scene.mask])
            tags.append(f"{index:02}.jpg,{';'.join(names[label] for label in scene.labels)}\n")
        (root / "tags.csv").write_text("image,labels\n" + "".join(tags))
        run = open_run(root / "run", Source.of(root), load_recipe("fast"))
        run_stages(run, "estimate")
        print(name, read_metrics(run.out)["patterns"])
        rows = [
            OverviewRow(
                "", read_photo(sample.image), read_mask(root / f"masks/{sample.name}.png"),
                read_mask(run.out / f"proxy/{sample.name}.png"),
            )
            for sample in run.train.samples[:SHOWN]
        ]  # fmt: skip
        save_overview(rows, run.train.classes, root / "rows.png")
        picture = Image.open(root / "rows.png").convert("RGB")
        picture.thumbnail((760, 760))
        picture.save(folder / f"{name}.jpg", quality=75, optimize=True)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    for case in sys.argv[2:] or CASES:
        draw(case, target)
