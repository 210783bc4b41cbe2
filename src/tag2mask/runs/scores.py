"""Scores that confidence is made from, kept so that no photo is seen again for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tag2mask.data import Sample
from tag2mask.methods import load_method
from tag2mask.methods.base import Method
from tag2mask.networks.kept import Kept, kept_folder
from tag2mask.runs.folder import Run
from tag2mask.runs.learnt import learnt_file
from tag2mask.runs.views import views_of

SCORES = "scores"
"""Folder among what a run keeps."""

WITHOUT = 128
"""Photos without a class that tell which of its scores are rare, at most."""


def photos_without(run: Run) -> dict[str, list[int]]:
    """Return the training photos that tell what scores a class has where it is not, with those classes."""
    chosen: dict[str, list[int]] = {}
    for label in range(1, len(run.train.classes) + 1):
        names = [sample.name for sample in run.train.samples if label not in sample.labels]
        for name in names[:: -(-len(names) // WITHOUT) or 1]:  # spread over the set
            chosen.setdefault(name, []).append(label)
    return chosen


class KeptScores:
    """Photos' scores by the recipe's proxy method and their class activations, of the classes that confidence is of.

    Args:
        run: its classifier, and its patterns or what its method has learnt, are there.
        without: as of `photos_without`.
    """

    def __init__(self, run: Run, without: Mapping[str, Sequence[int]]) -> None:
        self.classes, self.without = len(run.train.classes), without
        digest = hashlib.sha256(run.recipe.model_dump_json(include={"proxy", "patterns"}).encode())
        for file in (run.classifier_file, *run.patterns_files, learnt_file(run)):
            digest.update(file.read_bytes() if file.exists() else b"")
        self.kept = Kept(kept_folder(run.out) / SCORES, digest.hexdigest()[:32])

    def labels(self, sample: Sample) -> list[int]:
        """Return the classes concerned: a photo's tags, or all if it has none, and those that it is to be without."""
        every = range(1, self.classes + 1)
        return sorted({*sample.labels, *self.without.get(sample.name, ())}) if sample.labels else list(every)

    def read(self, sample: Sample) -> tuple[Tensor, Tensor] | None:
        """Return a photo's scores and class activations, float C x h x w, 0 of other classes; None if not kept."""
        known, rows = self.kept.read(sample), self._rows(sample)
        if known is None or not torch.equal(known["rows"], rows):
            return None
        return _spread(known["scores"], rows, self.classes), _spread(known["activation"], rows, self.classes)

    def write(self, sample: Sample, scores: Tensor, activation: Tensor) -> None:
        """Keep a photo's scores and class activations, float C x h x w each, if there is room."""
        rows = self._rows(sample)
        self.kept.write(sample, {"rows": rows, "scores": scores.cpu()[rows], "activation": activation.cpu()[rows]})

    def _rows(self, sample: Sample) -> Tensor:
        return torch.tensor([label - 1 for label in self.labels(sample)])


def scores_to_keep(run: Run) -> KeptScores | None:
    """Return where proxy masks leave their photos' scores for confidence; None where it looks at other ones.

    That is where photos are tiled, have several views, or where a class's scores depend on the other classes asked for.
    """
    method = load_method(run.recipe.proxy.method)
    other = run.recipe.tiles or len(views_of(run)) > 1 or type(method).see is not Method.see
    return None if other else KeptScores(run, photos_without(run))


def _spread(maps: Tensor, rows: Tensor, classes: int) -> Tensor:
    whole = torch.zeros(classes, *maps.shape[1:])
    whole[rows] = maps
    return whole
