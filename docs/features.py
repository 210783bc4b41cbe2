"""Draw the pictures of the features from a finished demo. The report and the server need Chromium and the extra serve.

tag2mask demo && python docs/features.py tag2mask-demo docs/pictures
"""

import argparse
import base64
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

import tag2mask as t2m
from tag2mask.api import show as draw_overlay
from tag2mask.config import TilesConfig
from tag2mask.data import read_mask, read_photo
from tag2mask.demo.kinds import make_photo
from tag2mask.exports.instances import instances
from tag2mask.exports.polygons import components
from tag2mask.names import DemoKind
from tag2mask.report.colours import class_colours
from tag2mask.runs.folder import resume_run
from tag2mask.runs.tasks import draw_patterns
from tag2mask.tiles import tiles_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
Pixels = NDArray[np.uint8]
PORT = 9191
WINDOW = {"width": 1000, "height": 760, "deviceScaleFactor": 1, "mobile": False}


def painted(photo: Pixels, mask: Pixels) -> Pixels:
    """Return the classes' colours over the photo."""
    mixed: Pixels = np.where(mask[..., None] == 0, photo, 0.35 * photo + 0.65 * class_colours()[mask]).astype(np.uint8)
    return mixed


def sheet(pictures: Sequence[Pixels], titles: Sequence[str], columns: int, width: float = 8.5) -> Figure:
    """Return pictures side by side, each with its title."""
    rows = -(-len(pictures) // columns)
    shape = pictures[0].shape
    height = rows * (width / columns * shape[0] / shape[1] + 0.28)
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if place < len(pictures):
            axes.imshow(pictures[place])
            axes.set_title(titles[place], fontsize=9)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as JPEG."""
    figure.savefig(path, pil_kwargs={"quality": 82, "optimize": True})


def kinds(run: Path, out: Path) -> None:
    """One photo of each kind of `demo`, its truth over it."""
    scenes = [make_photo(kind, 1, size=320) for kind in DemoKind]
    squares = [np.asarray(Image.fromarray(painted(scene.photo, scene.mask)).resize((320, 240))) for scene in scenes]
    save(sheet(squares, [str(kind) for kind in DemoKind], 4), out / "kinds.jpg")


def show(run: Path, out: Path) -> None:
    """A photo, and what `show` draws of it."""
    sample = t2m.load(run / "scenes", split="val")[4]
    with tempfile.TemporaryDirectory() as home:
        draw_overlay(run, sample.image, Path(home) / "overlay.png")
        drawn = np.asarray(Image.open(Path(home) / "overlay.png").convert("RGB"))
    save(sheet([read_photo(sample.image), drawn], ["photo.jpg", "overlay.png"], 2, 7), out / "show.jpg")


def stages(run: Path, out: Path) -> None:
    """A photo, its proxy mask and its mask for retraining, of a photo with several tags and of one with one."""
    data = t2m.load(run / "scenes", split="train")
    pictures: list[Pixels] = []
    for tags in (2, 1):
        sample = next(sample for sample in data if len(sample.labels) == tags)
        photo = read_photo(sample.image)
        pictures.append(photo)
        for kind in ("proxy", "retrain"):
            mask = read_mask(run / kind / f"{sample.name}.png")
            hatched = np.where(np.add(*np.indices(mask.shape)) % 10 < 5, 255, 95)[..., None]
            pictures.append(np.where(mask[..., None] == 255, hatched, painted(photo, mask)).astype(np.uint8))
    titles = ["photo", "proxy mask (striped: uncertain)", "mask for retraining", "", "", ""]
    save(sheet(pictures, titles, 3), out / "stages.jpg")


def pattern(run: Path, out: Path) -> None:
    """What `patterns` draws of a class."""
    with tempfile.TemporaryDirectory() as home:
        drawn = {path.stem: path for path in draw_patterns(resume_run(run), Path(home))}
        picture = Image.open(next(path for name, path in drawn.items() if "ladybird" in name)).convert("RGB")
        picture.thumbnail((900, 900))
        picture.save(out / "pattern.jpg", quality=82, optimize=True)


def tiles(run: Path, out: Path) -> None:
    """A photo with small objects, and its tiles."""
    photo = make_photo(DemoKind.AERIAL, 2, size=640).photo
    figure = sheet([photo, photo], ["photo", "its tiles, side 320, overlap 64"], 2, 7)
    for number, tile in enumerate(tiles_of(photo.shape[:2], TilesConfig(side=320, overlap=64))):
        colour = class_colours()[1 + number % 7] / 255
        shift = 5 * (number % 2)
        corner = (tile.left + shift, tile.top + shift)
        size = tile.side - 2 * shift - 1
        figure.axes[1].add_patch(Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=2))
    save(figure, out / "tiles.jpg")


def splits(run: Path, out: Path) -> None:
    """Components of a mask, and what `--instances` makes of them."""
    scene = make_photo(DemoKind.BLOBS, 4, size=320)

    def coloured(parts: Callable) -> Pixels:
        drawn = (0.4 * scene.photo).astype(np.uint8)
        for number, part in enumerate(parts(scene.mask, 16)):
            rows, columns = part.inside.shape
            window = drawn[part.top : part.top + rows, part.left : part.left + columns]
            window[part.inside] = class_colours()[1 + number % 7]
        return drawn

    pictures = [scene.photo, coloured(components), coloured(instances)]
    save(sheet(pictures, ["photo", "connected components", "--instances"], 3), out / "instances.jpg")


def crf(run: Path, out: Path) -> None:
    """A photo, probabilities from a coarse map, and what the dense CRF makes of them."""
    data = t2m.load(run / "scenes", split="val")
    sample = next(sample for sample in data if len(sample.labels) == 1)
    photo = read_photo(sample.image)
    truth = read_mask(run / "scenes/masks" / f"{sample.name}.png") > 0
    height, width = truth.shape
    coarse = Image.fromarray((255 * truth).astype(np.uint8)).resize((width // 20, height // 20), Image.Resampling.BOX)
    inside = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    before = np.stack([1 - inside, inside]) * 0.8 + 0.1
    after = t2m.dense_crf(photo, before)
    label = sample.labels[0]
    masks = [(label * maps.argmax(0)).astype(np.uint8) for maps in (before, after)]
    pictures = [photo, *(painted(photo, mask) for mask in masks)]
    save(sheet(pictures, ["photo", "largest probability before", "after dense_crf"], 3), out / "crf.jpg")


def report(run: Path, out: Path) -> None:
    """The top of the report page."""
    from browser import Browser

    tab = Browser()
    tab.open(run / "report/index.html", WINDOW["width"], WINDOW["height"])
    _screenshot(tab, out / "report.jpg")


def serve(run: Path, out: Path) -> None:
    """The server's page with the masks of two photos."""
    from browser import Browser

    address = f"http://127.0.0.1:{PORT}/"
    server = subprocess.Popen([sys.executable, "-m", "tag2mask", "serve", str(run), "--port", str(PORT)])
    try:
        _until(lambda: _answers(address))
        tab = Browser()
        tab.call("Emulation.setDeviceMetricsOverride", **WINDOW)
        tab.call("Page.navigate", url=address)
        _until(lambda: tab.run("document.readyState === 'complete' && !!document.getElementById('files')"))
        photos = [str(sample.image.resolve()) for sample in t2m.load(run / "scenes", split="val")[:2]]
        files = tab.call("DOM.querySelector", nodeId=tab.call("DOM.getDocument")["root"]["nodeId"], selector="#files")
        tab.call("DOM.setFileInputFiles", files=photos, nodeId=files["nodeId"])
        _until(lambda: tab.run("document.getElementById('status').textContent.startsWith('2 of 2 photos done')"))
        _screenshot(tab, out / "serve.jpg")
    finally:
        server.terminate()
        server.wait(20)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except OSError:
        return False


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(240):
        if condition():
            return
        time.sleep(0.25)
    raise TimeoutError


def _screenshot(tab: object, path: Path) -> None:
    shot = tab.call("Page.captureScreenshot", format="jpeg", quality=82)  # type: ignore[attr-defined]
    path.write_bytes(base64.b64decode(shot["data"]))
    tab.close()  # type: ignore[attr-defined]


PICTURES = {name.__name__: name for name in (kinds, show, stages, pattern, tiles, splits, crf, report, serve)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished tag2mask demo")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("only", nargs="*", choices=[[], *PICTURES], help="draw these alone")
    given = parser.parse_args()
    for picture in given.only or PICTURES:
        PICTURES[picture](given.run, given.out)
