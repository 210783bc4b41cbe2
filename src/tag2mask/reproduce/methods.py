"""Table 2 under one roof: methods that learn from tags alone, on one classifier, data set, segmenter and scoring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tag2mask.config import Recipe, Settings, load_recipe
from tag2mask.errors import RunError, nearest
from tag2mask.methods import load_method, method_settings
from tag2mask.reproduce import published as paper
from tag2mask.reproduce.tables import Cell, Table
from tag2mask.scoring import Scores

RECIPE = "balanced"
"""The recipe of the methods' rows unless another is named: its networks train on a CPU."""

PUBLISHED: dict[str, str] = {
    "emadapt": "EM-Adapt", "dcsm": "DCSM", "sec": "SEC", "multicues": "Multi-Cues", "aepsl": "AE-PSL",
    "mcof": "MCOF", "affinitynet": "AffinityNet", "dsrg": "DSRG", "mdc": "MDC", "seenet": "SeeNet",
    "ficklenet": "FickleNet", "cam": "", "gradcam": "", "ddt": "", "regioncam": "", "patterns": "the paper, ResNet-101",
}  # fmt: skip
"""The methods of the table, each with the name of its row in the paper; empty where it has none."""

CITED_ALONE = (
    "Cited alone: DCSP, whose masks are the product of the classifier's attention and a saliency map; STC, which "
    "learns from simple photos and their saliency; those with other supervision."
)

SAME = (
    "Ours: one classifier, backbone, segmenter and data set for all; no saliency detector. Background is where no tag "
    "reaches the same share of its maximum in the photo (proxy.cam_thresholds); for ddt and patterns where "
    "no score is positive; emadapt learns it, affinitynet has its own. Published figures are of other networks, of "
    "10,582 photos and, where marked, of a saliency detector."
)


def chosen_methods(names: Sequence[str]) -> list[str]:
    """Return the methods of these names, all for none, in the order of the table.

    Raises:
        RunError: one is not in the table.

    >>> chosen_methods(["mdc", "sec"])
    ['sec', 'mdc']
    """
    for name in names:
        if name not in PUBLISHED:
            raise RunError(
                f"Table 2 has no method '{name}'{nearest(name, PUBLISHED)} (methods: {', '.join(sorted(PUBLISHED))})"
            )
    return [name for name in PUBLISHED if not names or name in names]


def method_recipes(names: Iterable[str], recipe: str | Path, settings: Settings) -> dict[str, Recipe]:
    """Return the recipe of each method's row: one recipe, and what the method sets in it.

    Masks that are drawn again and teach nothing are left out: no row has them.
    """
    settings = ["segmenter.redraw=false", *settings]
    return {name: load_recipe(recipe, method_settings(name, settings)) for name in names}


def methods_table(metrics: Mapping[str, Scores], notes: Sequence[str]) -> Table:
    """Return the methods' rows, ours beside the published ones.

    Args:
        metrics: by method, what its run has recorded: ``proxy``, ``prediction`` and ``seconds``.
        notes: lines below.
    """
    cited = {name: (supervision, val) for name, supervision, _, val, _ in paper.TABLE2}
    rows: list[tuple[Cell, ...]] = []
    for name in filter(metrics.__contains__, PUBLISHED):
        found = metrics[name]
        supervision, val = cited.get(PUBLISHED[name], (None, None))
        proxy = None if name == "emadapt" else found.get("proxy", {}).get("miou")  # it has no masks but the segmenter's
        minutes = round(sum(found.get("seconds", {}).values()) / 60, 1)
        title = load_method(name).title if name == "patterns" or not PUBLISHED[name] else PUBLISHED[name]
        rows.append((title, "tags, no saliency", proxy, found["prediction"]["miou"], val, supervision, minutes, name))
    header = ("method", "ours", "proxy masks, train", "val", "published, val", "published with", "minutes", "folder")
    return Table("Table 2 under one roof: mIoU in percent", header, tuple(rows), (*notes, SAME, CITED_ALONE))
