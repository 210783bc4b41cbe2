"""What a method that learns keeps in a run folder: trained once, and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tag2mask.distributed import barrier, is_main
from tag2mask.errors import WeightsError
from tag2mask.methods import load_method
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.weights import load_tensors, load_weights, refusing, save_tensors
from tag2mask.runs.folder import Run, check_classes, checkpoint_of
from tag2mask.training.heads import Lesson

KIND = "what a method has learnt"


def learnt_file(run: Run) -> Path:
    """Return the file of what the recipe's proxy method has learnt, if it is one that learns."""
    return run.out / "learnt.safetensors"


def learn(run: Run) -> None:
    """Train what the recipe's proxy method learns and write it, unless it is there."""
    if learnt_file(run).exists():
        return
    name, seed = run.recipe.proxy.method, run.recipe.seed
    method, stride = load_method(name), run.recipe.patterns.output_stride
    classifier = Classifier.load(run.classifier_file, method.layers(run.recipe), stride)
    check_classes(run, classifier.classes, run.classifier_file)
    classifier.to(run.device).requires_grad_(False)
    torch.manual_seed(seed)
    module = method.build(classifier, run.recipe).to(run.device)
    checkpoint = checkpoint_of(learnt_file(run))
    method.learn(module, Lesson(classifier, run.train, run.recipe, checkpoint, run.strict))
    if is_main():
        save_tensors(learnt_file(run), module.state_dict(), KIND, {"method": name, "classes": list(classifier.classes)})
        checkpoint.unlink(missing_ok=True)
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
