"""The paper's tables and figures from one's own data, its figures beside ours.

    paper/  shared/         classifier.safetensors, patterns.safetensors (of C41), patterns-C42.safetensors, ...
            C41/ C42/ C43/  run folders with the shared classifier and patterns
            cam/ mdc/ ...   run folders of other methods with the shared classifier, for Table 2
            features/       what a frozen backbone sees in the photos, for all segmenters of Table 2
            table1.md, table1.csv, figure3.pdf, figure3.png, ...

One classifier and one pass for the patterns serve all layers; what is there already is not done again.
"""

from __future__ import annotations

import copy
import filecmp
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tag2mask.config import InferenceConfig, Recipe, SegmenterConfig, load_recipe
from tag2mask.data import Sample, summary
from tag2mask.distributed import barrier, is_main, of_main
from tag2mask.errors import DataError, RecipeError, RunError, nearest
from tag2mask.files import share_file
from tag2mask.inference import predict_masks
from tag2mask.names import StageName
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import kept_folder
from tag2mask.progress import duration
from tag2mask.reproduce.items import ITEMS, LAYERS, Reproduced, Study, network_of
from tag2mask.reproduce.methods import RECIPE, chosen_methods, method_recipes
from tag2mask.runs.folder import Run, Source, begin, patterns_file, read_metrics
from tag2mask.runs.lock import locked
from tag2mask.runs.plan import estimate_seconds
from tag2mask.runs.stages import STAGES, from_stage, run_stages, take_up
from tag2mask.runs.tasks import fit_patterns
from tag2mask.scoring import score_set

log = logging.getLogger("tag2mask")

ROWS = 6
"""Photos in Figures 4 and 5."""


def reproduce(
    item: str,
    data: str | Path,
    out: str | Path,
    *,
    labels: str | None = None,
    split: str | None = None,
    eval_split: str | None = None,
    recipe: str | Path | None = None,
    settings: Sequence[str] = (),
    class_name: str | None = None,
    photos: Sequence[str] = (),
    methods: Sequence[str] = (),
    strict: bool = False,
) -> Reproduced:
    """Make a table or figure of the paper; do what it needs and what is not there yet.

    Args:
        item: one of `ITEMS`.
        data: a VOCdevkit folder, a COCO folder or JSON, or any other data.
        out: folder of the runs, tables and figures.
        labels: tag table, if the tags are not to be had from the data.
        split: list of training photos; None for ``train``, with Table 3 ``train2017``.
        eval_split: list of photos to score; None for ``val``, with Table 3 ``val2017``.
        recipe: name or file; None for the paper's with ResNet-101, in Table 2 for ``balanced``.
        settings: ``key=value`` changes to the recipe.
        class_name: of the class to draw; None for ``dog``, else the first, in Figures 1 and 3, for all in 4 and 5.
        photos: names of the photos to draw; none for some that are spread over the split.
        methods: the methods of Table 2 to run now; none for all. Rows that are there already stay.
        strict: an unreadable photo is an error.

    Raises:
        UserError: something that was given is wrong; the message says what.
    """
    if item not in ITEMS:
        raise RunError(f"no item '{item}'{nearest(item, ITEMS)} (items: {', '.join(ITEMS)})")
    year = "2017" if item == "table3" else ""
    source = Source.of(data, labels, split or f"train{year}", eval_split or f"val{year}")
    if methods and item != "table2":
        raise RunError(f"{item} compares no methods; leave --method out")
    wanted, names = _recipe(item, recipe, settings), chosen_methods(methods)
    papers = item != "table2" or ("patterns" in names and wanted.patterns.layers == ["C41"])
    layers = ITEMS[item][1] if papers else ()
    names = [name for name in names if not (papers and name == "patterns")] if item == "table2" else []
    rows = method_recipes(names, recipe or RECIPE, settings)
    _check_layers(wanted.backbone.name, layers)
    shared = Run(Path(out) / "shared", source, _shared_recipe(wanted), strict)
    label = _label(item, shared.train.classes, class_name)
    study = Study(item, Path(out), shared, {}, label, _photos(item, shared, label, photos))
    _check_truth(study)
    with ExitStack() as rows_locked:
        with locked(study.out, wait=True):
            _prepare(study, wanted, layers, rows, rows_locked)
        for run in study.runs.values():
            _finish(run, StageName.REPORT)
        for run in study.methods.values():
            _finish(run, StageName.EVALUATE)
        with locked(study.out, wait=True):
            if study.item == "table1":
                _score_before_retraining(study.runs["C41"])
            return ITEMS[item][0](study) if is_main() else Reproduced("", [])


def _check_layers(name: str, layers: Sequence[str]) -> None:
    """Check that a network has these layers, and that they are different ones."""
    found = Backbone(name, layers, weights="random").layers
    if len(set(found)) < len(layers):
        raise RecipeError(
            f"{', '.join(layers)} are not {len(layers)} layers of {name} ({', '.join(found)}); take another"
        )


def _prepare(
    study: Study, wanted: Recipe, layers: Sequence[str], rows: Mapping[str, Recipe], rows_locked: ExitStack
) -> None:
    """Do what the rows share, unless it is there, and begin each row in its folder, which stays locked.

    After this, processes that make other rows of the same item can work at the same time.
    """
    shared = study.shared
    begin(shared)
    _take_up(shared)
    for layer in layers if ITEMS[study.item][2] else ():
        recipe = _layer_recipe(wanted, layer)
        study.runs[layer] = _begun(shared, recipe, study.out / _folder(layer, wanted), rows_locked)
    for name, recipe in rows.items():
        study.methods[name] = _begun(shared, recipe, study.out / name, rows_locked)
        study.methods[name].kept = kept_folder(study.out)
    _find_patterns(shared, layers)
    for layer, run in study.runs.items():
        _share(shared, run, {"classifier": "classifier.safetensors", "patterns": patterns_file(layer, LAYERS)})
    for run in study.methods.values():
        _share(shared, run, {"classifier": "classifier.safetensors"})


def _begun(shared: Run, recipe: Recipe, out: Path, rows_locked: ExitStack) -> Run:
    """Return a run on the data of another, begun or taken up, in a folder that is locked from here on."""
    rows_locked.enter_context(locked(out))
    run = copy.copy(shared)  # with the data that it has read
    run.recipe, run.out = recipe, out
    begin(run)
    _take_up(run)
    return run


def _recipe(item: str, name: str | Path | None, settings: Sequence[str]) -> Recipe:
    """Return the recipe of the row C41; the others follow from it."""
    data = "coco" if item == "table3" else "voc"
    recipe = load_recipe(name or (RECIPE if item == "table2" else f"luo2020-{data}-resnet101"), list(settings))
    if recipe.proxy.method != "patterns":
        raise RecipeError(f"{item} shows class patterns; leave proxy.method at patterns")
    if recipe.patterns.layers != ["C41"] and item != "table2":
        raise RecipeError(f"{item} compares the layers {', '.join(LAYERS)}; leave patterns.layers at [C41]")
    if item == "table1" and recipe.segmenter.retrain == 0:
        raise RecipeError("table1 has a row after retraining; leave segmenter.retrain at 1 or more")
    return recipe


def _shared_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe up to the proxy masks, the same for all segmenters."""
    own = {"name": "shared", "segmenter": SegmenterConfig(), "inference": InferenceConfig()}
    return recipe.model_copy(update=own)


def _layer_recipe(recipe: Recipe, layer: str) -> Recipe:
    """Return the recipe of a row of Table 1; only C41 is retrained."""
    rounds = recipe.segmenter.retrain if layer == "C41" else 0
    return recipe.model_copy(
        update={
            "patterns": recipe.patterns.model_copy(update={"layers": [layer]}),
            "segmenter": recipe.segmenter.model_copy(update={"retrain": rounds}),
        }
    )


def _folder(layer: str, recipe: Recipe) -> str:
    return layer if recipe.segmenter.backbone is None else f"{layer}-{network_of(recipe)}"


def _label(item: str, classes: Sequence[str], name: str | None) -> int:
    if name is not None and item.startswith("table"):
        raise RunError(f"{item} shows all classes; leave --class out")
    if name is None and item in ("figure1", "figure3"):
        name = "dog" if "dog" in classes else classes[0]
    if name is not None and name not in classes:
        raise DataError(f"no class '{name}'{nearest(name, classes)} (classes: {', '.join(classes)})")
    return 0 if name is None else 1 + list(classes).index(name)


def _photos(item: str, run: Run, label: int, names: Sequence[str]) -> Sequence[Sample]:
    """Return the photos to draw: those of the names, else some of the class, spread over the split."""
    if item not in ("figure1", "figure4", "figure5"):
        if names:
            raise RunError(f"{item} shows no photos; leave --photo out")
        return ()
    data = run.evaluation if item == "figure5" else run.train
    known = {sample.name: sample for sample in data.samples if not label or label in sample.labels}
    if not known:
        raise DataError(f"no photo to draw is tagged '{data.classes[label - 1]}'; name another --class")
    for name in names:
        if name not in known:
            raise DataError(f"no photo '{name}' to draw{nearest(name, known)}; name one of the split and class")
    if item == "figure1" and len(names) > 1:
        raise RunError("figure1 shows one photo; give --photo once")
    if names:
        return [known[name] for name in names]
    if item == "figure1":
        return sorted(known.values(), key=lambda sample: len(sample.labels))[:1]
    chosen = _spread(list(known.values()), ROWS)
    return sorted(chosen, key=lambda sample: len(sample.labels) > 1) if item == "figure4" else chosen


def _spread(samples: Sequence[Sample], count: int) -> Sequence[Sample]:
    """Return some of the photos, of as many classes as can be."""
    seen: Counter[tuple[int, ...]] = Counter()
    turns = []
    for sample in samples:
        turns.append((seen[sample.labels[:1]], sample))
        seen[sample.labels[:1]] += 1
    pool = [sample for _, sample in sorted(turns, key=lambda turn: turn[0])][: max(count, len(seen))]
    return [pool[len(pool) * place // count] for place in range(count)] if len(pool) > count else pool


def _check_truth(study: Study) -> None:
    if study.item not in ("table1", "table2", "table3", "figure1"):
        return
    run, label = study.shared, study.label
    data, split = (run.train, run.source.split) if label else (run.evaluation, run.source.eval_split)
    if all(data.truth(sample) is None for sample in data.samples if not label or label in sample.labels):
        raise DataError(f"{split} of {run.source.path} has no true masks; there is no {study.item} without")


def _find_patterns(shared: Run, layers: Sequence[str]) -> None:
    """Train the classifier, then find the patterns of the layers that have none yet, in one pass."""
    if not of_main(STAGES["classify"].is_done(shared)):
        log.info("%s", summary(shared.train))
        run_stages(shared, until="classify")
    missing = of_main([layer for layer in layers if not (shared.out / patterns_file(layer, LAYERS)).exists()])
    if not missing:
        return
    log.info("discover: class patterns of %s", ", ".join(missing))
    for layer, patterns in zip(missing, fit_patterns(shared, missing), strict=True):
        file = shared.out / patterns_file(layer, LAYERS)
        shared.record(file.stem, patterns.about())
        if is_main():
            patterns.save(file)


def _take_up(run: Run) -> None:
    """Remove what is of other data than there is now, the scores too, whatever has changed."""
    if run.changes.said and is_main():
        run.forget("before_retraining", "prediction")
        shutil.rmtree(run.out / "before-retraining", ignore_errors=True)
    take_up(run)


def _share(shared: Run, run: Run, files: Mapping[str, str]) -> None:
    """Give a run shared files; what was made from others goes.

    Args:
        shared: the run that has them.
        run: the run to give them to.
        files: what they are called there, by what they are called here.
    """
    if is_main():
        _share_files(shared, run, files)
    barrier()


def _share_files(shared: Run, run: Run, files: Mapping[str, str]) -> None:
    targets = {name: run.out / f"{name}.safetensors" for name in files}
    if any(
        target.exists() and not filecmp.cmp(shared.out / files[name], target, shallow=False)
        for name, target in targets.items()
    ):
        log.warning("%s belongs to another classifier or other patterns: making it again", run.out)
        run.forget("before_retraining")
        for stage in from_stage("classify"):
            stage.remove(run)
    for name, target in targets.items():
        if not target.exists():
            run.record(name, read_metrics(shared.out).get(Path(files[name]).stem))
            share_file(shared.out / files[name], target)


def _finish(run: Run, until: StageName) -> None:
    """Do all stages up to one, unless the last segmenter has been scored already."""
    if not of_main(_is_scored(run, "prediction", run.segmenter_file)):
        log.info("%s: roughly %s on this machine", run.out, duration(estimate_seconds(run)))
        run_stages(run, until)


def _is_scored(run: Run, name: str, segmenter: Path) -> bool:
    """Return whether the run's metrics have these scores and are not older than the segmenter."""
    if name not in read_metrics(run.out) or not segmenter.exists():
        return False
    return (run.out / "metrics.json").stat().st_mtime >= segmenter.stat().st_mtime


def _score_before_retraining(run: Run) -> None:
    """Predict and score the evaluation photos with the first segmenter, unless that has been done."""
    first, folder = run.segmenter_after(0), run.out / "before-retraining"
    if not of_main(_is_scored(run, "before_retraining", first)):
        segmenter = SegmentationNetwork.load(first).to(run.device)
        predict_masks(segmenter, run.evaluation.samples, folder, run.recipe, strict=run.strict)
        run.record("before_retraining", score_set(run.evaluation, folder))
