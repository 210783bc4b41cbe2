"""The report page: one HTML file that opens without a server and asks for nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from importlib.metadata import version
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from tag2mask.config import Recipe, recipe_yaml
from tag2mask.data import Sample
from tag2mask.data.loading import keep_readable
from tag2mask.errors import DataError
from tag2mask.files import write_bytes
from tag2mask.methods import load_method
from tag2mask.metrics import iou
from tag2mask.names import IGNORE
from tag2mask.patterns.orientation import SURE
from tag2mask.progress import duration, track
from tag2mask.report.asking import choose_next
from tag2mask.report.colours import class_colours, stripes
from tag2mask.report.confidence import Confidence
from tag2mask.report.survey import LOOK, Doubt, Mask, PhotoSet, Tally, regions, survey
from tag2mask.scoring import Scores
from tag2mask.threads import map_ahead

THUMBNAIL = 240
"""Longer side of the photos and masks on the page, pixels."""

PHOTO_BYTES = 8000
"""A photo's thumbnail is compressed until it is no larger."""

MOST_PHOTOS = 1000
"""Of more photos the page shows a part."""

FIRST = 8
"""Masks at the head of the page."""

ASKED = 10
"""Photos that are named as the next to correct."""

KINDS = {"proxy": "Proxy mask", "prediction": "Prediction", "truth": "Truth"}


def save_page(
    out: Path,
    sets: Sequence[PhotoSet],
    recipe: Recipe,
    metrics: Scores,
    confidences: Sequence[Mapping[str, Sequence[Confidence]]],
    strict: bool = False,
    corrected: Collection[str] = (),
) -> None:
    """Write ``report/index.html`` of a run folder.

    Masks are read once for the figures and those in the gallery once more; photos are read once, and nothing of
    them is kept but their thumbnails.

    Args:
        out: the run folder.
        sets: the training photos, then the evaluation photos if they are others.
        recipe: every parameter.
        metrics: what ``metrics.json`` holds.
        confidences: for each set those of its photos' masks, by the photo's name.
        strict: raise for an unreadable photo instead of leaving it out.
        corrected: names of the training photos whose masks a person has corrected.

    Raises:
        DataError: a mask is not of its photo or run, or the page cannot be written.
    """
    classes = sets[0].data.classes
    surveys = [survey(photos, theirs) for photos, theirs in zip(sets, confidences, strict=True)]
    total = sum(len(ranked) for _, ranked in surveys)
    gallery, about = [], []
    for photos, (tally, ranked) in zip(sets, surveys, strict=True):
        chosen = choose(ranked, len(ranked) * min(total, MOST_PHOTOS) // max(1, total))
        entries = list(_entries(photos, chosen, strict))
        gallery += entries
        about.append(_about(photos, tally, [doubt for _, doubt in ranked], len(entries)))
    scores = _score_columns(about, metrics)
    kinds = {mask["kind"] for entry in gallery for mask in entry["masks"]}
    page = _render(
        name=out.resolve().name,
        quoted=shlex.quote(out.resolve().name),
        made=datetime.now(),
        version=version("tag2mask"),
        recipe=recipe,
        method=load_method(recipe.proxy.method).title,
        recipe_yaml=recipe_yaml(recipe),
        metrics=metrics,
        sets=about,
        names=["background", *classes],
        colours=[f"#{bytes(colour).hex()}" for colour in class_colours()[: len(classes) + 1]],
        classes=_class_rows(classes, surveys[0][0], metrics.get("patterns") or {}, scores),
        scores=scores,
        confusion=_confusion(surveys[-1][0].confusion),
        kinds={kind: title for kind, title in KINDS.items() if kind in kinds},
        weak=round(100 * SURE),
        look=LOOK,
        remarks=list(dict.fromkeys(remark for photos in about for remark in photos["remarks"])),
        gallery=gallery,
        corrected=len(corrected),
        asked=[(one.sample.name, one.sample.labels, one.doubt) for one in choose_next(surveys[0][1], corrected, ASKED)],
        first=_spread([place for place, entry in enumerate(gallery) if entry["set"] == about[-1]["name"]]),
    )
    write_bytes(out / "report" / "index.html", page.encode("utf-8", "replace"))


def choose(ranked: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` of the items in their order: half of them the first ones, half spread over the rest.

    >>> choose("abcdefghij", 4)
    ['a', 'b', 'c', 'g']
    """
    first = count // 2 if count < len(ranked) else len(ranked)
    rest, places = ranked[first:], count - first
    return [*ranked[:first], *(rest[place * len(rest) // places] for place in range(places))]


def _spread(places: list[int]) -> list[int]:
    """Return places of the gallery for the head of the page: from the least doubtful photo to the most, evenly."""
    count = min(FIRST, len(places))
    return [places[-1 - step * (len(places) - 1) // max(1, count - 1)] for step in range(count)]


def photo_thumbnail(photo: npt.NDArray[np.uint8]) -> tuple[bytes, tuple[int, int]]:
    """Return a photo as a small WebP file, and that picture's width and height in pixels."""
    small = Image.fromarray(photo)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    for quality in (60, 45, 30, 15):
        file = BytesIO()
        small.save(file, "WEBP", quality=quality)
        if file.tell() <= PHOTO_BYTES:
            break
    return file.getvalue(), small.size


def mask_thumbnail(mask: Mask, size: tuple[int, int]) -> bytes:
    """Return a mask as a small palette PNG in `class_colours`: background transparent, uncertain pixels striped.

    Args:
        mask: uint8 H x W.
        size: width and height of the picture in pixels.
    """
    small = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    values, index = np.unique(small, return_inverse=True)
    index = index.reshape(small.shape).astype(np.uint8)
    index[(small == IGNORE) & stripes(small.shape, 8)] = len(values)
    picture = Image.fromarray(index)
    picture.putpalette(np.append(class_colours()[values], [[255, 255, 255]], 0).astype(np.uint8).tobytes())
    file = BytesIO()
    picture.save(file, "PNG", transparency=bytes([*np.where(values == 0, 0, 255), 255]))
    return file.getvalue()


def _entries(photos: PhotoSet, chosen: Sequence[tuple[Sample, Doubt]], strict: bool) -> Iterator[dict[str, Any]]:
    """Yield what the page's script knows of each photo; unreadable ones are reported and left out."""

    def draw(item: tuple[int, tuple[Sample, Doubt]]) -> tuple[int, dict[str, Any] | str]:
        place, (sample, doubt) = item
        try:
            photo, size = photo_thumbnail(sample.read(draft_size=THUMBNAIL))
        except DataError as error:
            return place, str(error)
        masks = [
            {"kind": kind, "image": _data_uri(mask_thumbnail(mask, size), "png"), "regions": regions(mask)}
            for kind, mask in photos.masks(sample).items()
        ]
        return place, {
            "name": sample.name, "set": photos.name, "tags": sample.labels, "size": size, "missing": doubt.missing,
            "look": doubt.needs_look, "confidences": [[one.label, round(one.value, 3)] for one in doubt.confidences],
            "pixels": _percent(doubt.pixels and 100 * doubt.pixels), "photo": _data_uri(photo, "webp"), "masks": masks,
        }  # fmt: skip

    drawn = track(map_ahead(draw, enumerate(chosen)), len(chosen), f"{photos.name} photos")
    yield from (entry for _, entry in keep_readable(drawn, strict))


def _about(photos: PhotoSet, tally: Tally, doubts: Sequence[Doubt], shown: int) -> dict[str, Any]:
    """Return what the page says of a set of photos as a whole."""
    tags = [len(sample.labels) for sample in photos.data.samples]
    compared = tally.agreement.sum()
    return {
        "name": photos.name,
        "photos": len(tags),
        "masked": len(doubts),
        "look": sum(doubt.needs_look for doubt in doubts),
        "shown": shown,
        "tags": {"one tag": tags.count(1), "several": sum(count > 1 for count in tags), "none": tags.count(0)},
        "labels_from": PurePath(photos.data.labels_from).name,
        "skipped": photos.data.skipped,
        "remarks": photos.data.remarks,
        "uncertain": _percent(tally.mean(tally.uncertain)[0]) if "proxy" in photos.folders else None,
        "missing": int(tally.missing[0]),
        "agreement": _percent(100 * np.trace(tally.agreement) / compared) if compared else None,
    }


def _class_rows(
    classes: Sequence[str], tally: Tally, patterns: dict[str, Any], scores: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the figures of each class, the best first: by score where there is truth, else by agreement."""
    agreement, uncertain = 100 * iou(tally.agreement), tally.mean(tally.uncertain)
    rows = []
    for label, name in enumerate(classes, 1):
        pattern = patterns.get(name) or {}
        row = {
            "label": label,
            "photos": int(tally.photos[label]),
            "missing": int(tally.missing[label]),
            "score": scores[-1]["iou"].get(name) if scores else None,
            "confidence": _percent(100 * pattern["confidence"]) if "confidence" in pattern else None,
            "explained": _percent(100 * pattern["explained"]) if "explained" in pattern else None,
            "cover": {kind: _percent(tally.mean(sums)[label]) for kind, sums in tally.cover.items()},
            "uncertain": _percent(uncertain[label]),
            "agreement": _percent(agreement[label]),
        }
        rows.append(row | {"notes": _notes(row, scores[-1]["miou"] if scores else None)})
    by = "score" if scores else "agreement"
    return sorted(rows, key=lambda row: -1.0 if row[by] is None else row[by], reverse=True)


def _notes(row: dict[str, Any], mean: float | None) -> list[str]:
    """Return why a class is weak, in a few words each."""
    notes = []
    if mean is not None and row["score"] is not None and 2 * row["score"] < mean:
        notes.append("less than half the mean score")
    if mean is None and row["agreement"] is not None and row["agreement"] < 100 * LOOK:
        notes.append("masks disagree")
    if 2 * row["missing"] > row["photos"]:
        notes.append("tag missing in most photos")
    if row["confidence"] is not None and row["confidence"] < 100 * SURE:
        notes.append("perhaps the background")
    return notes


def _score_columns(about: Sequence[dict[str, Any]], metrics: Scores) -> list[dict[str, Any]]:
    """Return the scores of each kind of mask that has some."""
    columns = (
        ("proxy", "Proxy masks", about[0]["name"]),
        ("retrain", "Masks drawn again, with the tags", about[0]["name"]),
        ("refined", "Masks after corrections", about[0]["name"]),
        ("prediction", "Predictions", about[-1]["name"]),
    )
    scored = [(metrics.get(key) or {}, title, name) for key, title, name in columns]
    return [{"title": title, "set": name, **scores} for scores, title, name in scored if scores.get("iou")]


def _confusion(matrix: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return for each true class where its pixels went, in percent; nothing for a class without a true pixel."""
    rows = []
    for label, counts in enumerate(matrix):
        if counts.sum():
            shares = 100 * counts / counts.sum()
            taken = [int(other) for other in np.argsort(-shares, kind="stable") if other not in (0, label)]
            rows.append(
                {
                    "label": label,
                    "shares": [_percent(share) for share in shares],
                    "taken_for": [other for other in taken[:3] if shares[other] >= 1],
                }
            )
    return rows


def _percent(value: float | None) -> float | None:
    """Return a percentage to one place; None where it is not known."""
    return None if value is None or not np.isfinite(value) else round(float(value), 1)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _render(**facts: Any) -> str:
    """Fill in the template; whatever comes from outside is escaped, and no other script than ours may run."""
    folder = resources.files("tag2mask.report")
    style, script = (folder.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(style=style, script=script, script_digest=digest, **facts)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("tag2mask", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["duration"] = duration
    return environment.get_template("page.html.j2")
