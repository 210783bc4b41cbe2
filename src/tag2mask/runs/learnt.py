"""What a method that learns keeps in a run folder, and learnt affinities: trained once, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tag2mask.distributed import barrier, is_main
from tag2mask.errors import WeightsError
from tag2mask.methods import load_method
from tag2mask.names import Schedule
from tag2mask.networks.backbones import pyramid_layers
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.weights import load_tensors, load_weights, refusing, save_tensors
from tag2mask.runs.features import shared_features
from tag2mask.runs.folder import Run, check_classes, checkpoint_of
from tag2mask.training.affinity import AffinityHead, learn_affinities
from tag2mask.training.heads import Lesson

KIND, AFFINITIES = "what a method has learnt", "learnt affinities"

_TRAINING = {"batch_size": 8, "schedule": Schedule.POLY, "weight_decay": 1e-4}


def learnt_file(run: Run) -> Path:
    """Return the file of what the recipe's proxy method has learnt, if it is one that learns."""
    return run.out / "learnt.safetensors"


def learnt_checkpoints(run: Run) -> list[Path]:
    """Return what a training that was killed goes on from: of a method that trains in steps, a file a step."""
    return sorted(run.out.glob(f"{checkpoint_of(learnt_file(run)).stem}*.pt"))


def learn(run: Run) -> None:
    """Train what the recipe's proxy method learns and write it, unless it is there."""
    if learnt_file(run).exists():
        return
    name, seed = run.recipe.proxy.method, run.recipe.seed
    method, stride = load_method(name), run.recipe.patterns.output_stride
    classifier = Classifier.load(run.classifier_file, method.layers(run.recipe), stride)
    check_classes(run, classifier.classes, run.classifier_file)
    classifier.to(run.device).requires_grad_(False)
    checkpoint = checkpoint_of(learnt_file(run))
    lesson = Lesson(classifier, run.train, run.recipe, checkpoint, run.strict, kept=shared_features(run, classifier))
    torch.manual_seed(seed)
    module = method.build(classifier, run.recipe).to(run.device)
    method.learn(module, lesson)
    if is_main():
        save_tensors(learnt_file(run), module.state_dict(), KIND, {"method": name, "classes": list(classifier.classes)})
        for file in learnt_checkpoints(run):
            file.unlink()
    barrier()


def load_learnt(run: Run, classifier: Classifier) -> Any:
    """Return what `learn` wrote, in evaluation mode.

    Args:
        run: of a method that learns.
        classifier: with the method's layers.

    Raises:
        WeightsError: the file is missing, corrupt or of another method.
    """
    name, file = run.recipe.proxy.method, learnt_file(run)
    tensors, about = load_tensors(file, KIND)
    if about.get("method") != name:
        raise WeightsError(f"{file} was learnt by {about.get('method')}, not {name}; delete it to learn again")
    module = load_method(name).build(classifier, run.recipe)
    with refusing(file):
        load_weights(module, tensors, str(file))
    return module.eval().requires_grad_(False)


def has_affinities(run: Run) -> bool:
    """Return whether scores are spread by learnt affinities: the recipe has them, its method uses them, no tiles."""
    how, method = run.recipe.proxy.affinity, load_method(run.recipe.proxy.method)
    return how is not None and "proxy.affinity" in method.options and run.recipe.tiles is None


def affinities_file(run: Run) -> Path:
    """Return the file of learnt affinities."""
    return run.out / "affinities.safetensors"


def relate_positions(run: Run, masks: Path) -> None:
    """Learn affinities from masks of the training photos, and write them."""
    how, patterns, seed = run.recipe.proxy.affinity, run.recipe.patterns, run.recipe.seed
    assert how is not None
    layers = pyramid_layers(run.recipe.backbone.name)
    classifier = Classifier.load(run.classifier_file, layers, patterns.output_stride)
    classifier.to(run.device).requires_grad_(False)
    as_a_head = {"size": patterns.size, "epochs": how.epochs, "learning_rate": how.learning_rate, **_TRAINING}
    recipe = run.recipe.model_copy(update={"segmenter": run.recipe.segmenter.model_copy(update=as_a_head)})
    torch.manual_seed(seed)
    head = AffinityHead([classifier.backbone.channels[layer] for layer in classifier.backbone.layers]).to(run.device)
    file = affinities_file(run)
    checkpoint = checkpoint_of(file)
    times = max(1, round(how.shows / (how.epochs * len(run.train))))
    kept = shared_features(run, classifier) if patterns.size == run.recipe.segmenter.size else None
    lesson = Lesson(classifier, run.train, recipe, checkpoint, run.strict, "affinities", times, kept)
    learn_affinities(head, lesson, masks)
    if is_main():
        save_tensors(file, head.state_dict(), AFFINITIES, {"classes": list(classifier.classes)})
        checkpoint.unlink(missing_ok=True)
    barrier()


def load_affinities(run: Run, channels: Sequence[int]) -> AffinityHead:
    """Return what `relate_positions` wrote, in evaluation mode.

    Args:
        run: of a recipe with affinities.
        channels: of the layers that it looks at.

    Raises:
        WeightsError: the file is missing, corrupt or of another backbone.
    """
    file = affinities_file(run)
    tensors, _ = load_tensors(file, AFFINITIES)
    head = AffinityHead(channels)
    with refusing(file):
        load_weights(head, tensors, str(file))
    return head.to(run.device).eval().requires_grad_(False)
