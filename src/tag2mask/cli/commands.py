"""The commands: one a stage, `run`, `predict`, and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tag2mask import logs
from tag2mask.cli.app import Device, Labels, RunFolder, Strict, app, choice, data_app, finish, one_of, print_scores
from tag2mask.distributed import is_main
from tag2mask.errors import UserError
from tag2mask.names import DemoKind, ExportFormat, Item, MaskKind, StageName, method_names, recipe_names


@app.command()
def run(
    data: Annotated[Path, typer.Argument(help="A folder of photos, a VOCdevkit folder or a COCO JSON.")],
    out: Annotated[Path, typer.Option(help="Run folder. Call again to continue a run that was stopped.")],
    labels: Labels = None,
    split: Annotated[str | None, typer.Option(help="List of training photos (name or file).")] = None,
    eval_split: Annotated[
        str | None, typer.Option(help="List of photos to predict and score (default: the training photos).")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name or YAML file of a recipe.", autocompletion=recipe_names)] = "auto",
    method: Annotated[
        str | None,
        typer.Option(help=f"Method to use instead: {', '.join(method_names())}.", autocompletion=method_names),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a parameter: key=value.")] = None,
    until: Annotated[str, typer.Option(help="Last stage to run.", autocompletion=one_of(StageName))] = "report",
    keep: Annotated[bool, typer.Option("--keep", help="Keep results of data that has changed since.")] = False,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Run all stages: masks from tags, a trained segmenter, predictions and scores.

    Example: tag2mask run photos/ --labels tags.csv --out runs/mine
    """
    from tag2mask.config import load_recipe
    from tag2mask.methods import method_settings
    from tag2mask.runs.folder import Source, open_run
    from tag2mask.runs.idle import idle_settings
    from tag2mask.runs.stages import find_stage

    find_stage(until)
    source = Source.of(data, labels, split, eval_split)
    chosen = load_recipe(recipe, method_settings(method, settings or ()))
    logs.warn(idle_settings(chosen, settings or ()))
    opened = open_run(out, source, chosen, strict=strict, keep=keep)
    finish(opened, until)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the photos and the run.")] = Path("tag2mask-demo"),
    kind: Annotated[
        str, typer.Option(help=f"Kind of photos: {', '.join(DemoKind)}.", autocompletion=one_of(DemoKind))
    ] = "plain",
    device: Device = None,
) -> None:
    """Generate a small data set and run all stages on it.

    Example: tag2mask demo --kind leafspots --out leaves
    """
    from tag2mask.config import load_recipe
    from tag2mask.demo.kinds import write_kind
    from tag2mask.runs.folder import Source, open_run

    kind = choice(DemoKind, kind, "kind")
    scenes = out / ("scenes" if kind == DemoKind.PLAIN else kind)
    if (out / "config.yaml").exists() and not scenes.exists():
        raise UserError(f"{out} holds another run; choose another folder with --out")
    if is_main() and not (scenes / "val.txt").exists():
        typer.echo(f"generating photos in {scenes}")
        write_kind(scenes, kind)
    source = Source.of(scenes, split="train", eval_split="val")
    finish(open_run(out, source, load_recipe("demo")), "report")


@app.command()
def predict(
    run: RunFolder,
    photos: Annotated[Path, typer.Argument(help="Photo, folder of photos, or data as for `run`.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks (one palette PNG per photo).")],
    split: Annotated[str | None, typer.Option(help="List of photos (name or file).")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Use the segmenter after this many retraining rounds (default: the last).")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change an inference parameter.")] = None,
    tile: Annotated[int | None, typer.Option(min=0, help="Side of tiles (pixels); 0 for whole photos.")] = None,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Overlap of tiles (pixels; default: a seventh of the side).")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep masks that are already in --out.")] = False,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Segment photos with the segmenter of a run.

    Example: tag2mask predict runs/mine holiday/ --out masks/
    """
    from tag2mask.api import predict_photos

    count, total = predict_photos(
        run, photos, out, split=split, rounds=rounds, settings=settings or (), resume=resume, tile=tile,
        overlap=overlap, strict=strict,
    )  # fmt: skip
    typer.echo(f"{count} of {total} masks are in {out}")


@app.command()
def evaluate(
    masks: Annotated[Path, typer.Argument(help="Folder of masks, or a run folder.")],
    truth: Annotated[Path | None, typer.Argument(help="Folder of true masks.")] = None,
    split: Annotated[Path | None, typer.Option(help="File with the names to score, one per line.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File with the class names, one per line.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores as JSON.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the scores as CSV.")] = None,
) -> None:
    """Score a folder of masks against another, or score a run again.

    Example: tag2mask evaluate masks/ VOC2012/SegmentationClass --split val.txt
    """
    from tag2mask.api import evaluate as score

    scores = score(masks, truth, split=split, classes=classes, json_file=json_file, csv_file=csv_file).model_dump()
    print_scores({"masks": scores} if "miou" in scores else scores)


@app.command()
def reproduce(
    item: Annotated[
        str,
        typer.Argument(
            help="table1, table2, table3, figure1, figure3, figure4 or figure5.", autocompletion=one_of(Item)
        ),
    ],
    data: Annotated[Path, typer.Argument(help="VOCdevkit or COCO folder, or data as for `run`.")],
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and runs. Existing results are reused.")],
    labels: Labels = None,
    split: Annotated[
        str | None, typer.Option(help="List of training photos (default: train; for table3 train2017).")
    ] = None,
    eval_split: Annotated[
        str | None, typer.Option(help="List of photos to score (default: val; for table3 val2017).")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Name or YAML file of a recipe (default: the paper's; for table2 balanced).",
            autocompletion=recipe_names,
        ),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a parameter: key=value.")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Class to plot.")] = None,
    photos: Annotated[
        list[str] | None, typer.Option("--photo", help="Name of a photo to draw (may be repeated).")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="Method of table2 to run (may be repeated; default: all).", autocompletion=method_names
        ),
    ] = None,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Make a table or figure of the paper from your data, with the paper's numbers beside yours.

    Example: tag2mask reproduce table1 VOCdevkit/VOC2012 --split trainaug --out paper
    """
    from tag2mask.reproduce import reproduce as make

    made = make(
        item, data, out, labels=labels, split=split, eval_split=eval_split, recipe=recipe,
        settings=settings or (), class_name=class_name, photos=photos or (), methods=methods or (), strict=strict,
    )  # fmt: skip
    typer.echo(f"{made.text}\n\nwritten: {', '.join(map(str, made.files))}")


@app.command()
def export(
    format: Annotated[
        str,
        typer.Argument(
            help="coco, labelme, yolo, label-studio, fiftyone, voc-server, onnx or huggingface.",
            autocompletion=one_of(ExportFormat),
        ),
    ],
    source: Annotated[Path, typer.Argument(help="Run folder, or folder of masks.")],
    out: Annotated[Path, typer.Option(help="File or folder to write.")],
    masks: Annotated[
        str | None,
        typer.Option(
            help="Masks of a run to export: predictions (default), proxy or retrain.", autocompletion=one_of(MaskKind)
        ),
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="File with the class names, one per line.")] = None,
    photos: Annotated[Path | None, typer.Option(help="Folder of the photos (default: the run's).")] = None,
    split: Annotated[Path | None, typer.Option(help="File with the names to export, one per line.")] = None,
    min_area: Annotated[
        int | None,
        typer.Option(min=1, help="Leave out smaller components (pixels; 1: none; default: specks, see the docs)."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Polygon simplification tolerance (pixels; default 0.5).")
    ] = None,
    photo_url: Annotated[str | None, typer.Option(help="Base URL of the photos for Label Studio.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Export the segmenter after this many retraining rounds (default: the last).")
    ] = None,
    instances: Annotated[bool, typer.Option("--instances", help="Split touching objects of a class.")] = False,
    brush: Annotated[bool, typer.Option("--brush", help="Label Studio: exact brush regions, no polygons.")] = False,
) -> None:
    """Export masks or the segmenter of a run to other tools.

    Example: tag2mask export coco runs/mine --out instances.json
    """
    from tag2mask.exports import export as write

    write(
        format, source, out, masks=masks, classes=classes, photos=photos, split=split, min_area=min_area,
        tolerance=tolerance, photo_url=photo_url, rounds=rounds, instances=instances, brush=brush,
    )  # fmt: skip
    typer.echo(f"{format} is in {out}")


@app.command()
def serve(
    run: RunFolder,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 9090,
    host: Annotated[
        str, typer.Option(help="Address to listen at (0.0.0.0: reachable from other machines).")
    ] = "127.0.0.1",
    label_studio: Annotated[
        str | None, typer.Option(help="URL of Label Studio.", envvar="LABEL_STUDIO_URL", show_envvar=False)
    ] = None,
    device: Device = None,
) -> None:
    """Serve a run's segmenter to browsers, Label Studio and X-AnyLabeling.

    Example: tag2mask serve runs/mine --label-studio http://localhost:8080
    """
    from tag2mask.serve import serve as start

    start(run, host=host, port=port, label_studio=label_studio)


@app.command()
def show(
    run: RunFolder,
    photo: Annotated[Path, typer.Argument(help="Photo to segment.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("overlay.png"),
    device: Device = None,
) -> None:
    """Draw the predicted mask over a photo, with the names of the classes.

    Example: tag2mask show runs/mine photo.jpg --out overlay.png
    """
    from tag2mask.api import show as draw

    before = out.exists()
    found = ", ".join(f"{name} {share:.1f}%" for name, share in draw(run, photo, out).items())
    typer.echo(
        f"{found or 'background only'}; the picture is {out}{', which replaces an earlier file' if before else ''}"
    )


@app.command()
def patterns(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures (default: report/patterns in the run).")
    ] = None,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Draw the scores of each class pattern over its most typical photos, and its spectrum.

    Example: tag2mask patterns runs/mine
    """
    from tag2mask.runs.folder import resume_run
    from tag2mask.runs.tasks import draw_patterns

    folder = out or run / "report" / "patterns"
    pictures = draw_patterns(resume_run(run, strict=strict), folder)
    typer.echo(f"{len(pictures)} pictures are in {folder}")


@app.command()
def flip(
    run: RunFolder,
    classes: Annotated[list[str], typer.Argument(metavar="CLASS...", help="Classes whose masks show the background.")],
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Flip class patterns whose masks show the background, and repeat the stages that depend on them.

    Flipping a class again reverses it.

    Example: tag2mask flip runs/mine cell
    """
    from tag2mask.runs.folder import resume_run
    from tag2mask.runs.stages import flip as turn

    opened = resume_run(run, strict=strict)
    turn(opened, classes)
    finish(opened, "report")


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Recipe to print, with every parameter.", autocompletion=recipe_names)
    ] = None,
) -> None:
    """List the recipes, or print one.

    Example: tag2mask recipes fast
    """
    from tag2mask.config import load_recipe, recipe_yaml

    typer.echo(recipe_yaml(load_recipe(name)) if name else "\n".join(recipe_names()))


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="Folder for runs, whose free space is checked.")] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation: versions, devices, weights, free space, the compiled CRF, optional packages.

    Example: tag2mask doctor
    """
    from tag2mask.doctor import as_json as to_json
    from tag2mask.doctor import as_table, broken, examine

    checks = examine(folder)
    if as_json:
        typer.echo(to_json(checks))
    else:
        from rich.console import Console

        Console().print(as_table(checks))
    if broken(checks):
        raise UserError(f"broken: {', '.join(broken(checks))}; the table says how to fix it")


@data_app.command()
def sbd(
    folder: Annotated[
        Path, typer.Argument(help="Unpacked SBD: the folder that contains cls, or one above it.", metavar="SBD")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks. Existing masks are kept.")],
    voc: Annotated[Path | None, typer.Option(help="VOC 2012 folder, to write the list trainaug there.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable file.")] = False,
) -> None:
    """Turn SBD's .mat files into masks for VOC's training photos.

    Example: tag2mask data sbd benchmark_RELEASE --out VOC2012/SegmentationClassAug --voc VOC2012
    """
    from tag2mask.data.sbd import convert_sbd, write_trainaug

    if voc:
        file, photos = write_trainaug(folder, voc)
        typer.echo(f"{photos} photos are listed in {file}")
    count, total = convert_sbd(folder, out, strict=strict)
    typer.echo(f"{count} of {total} masks are in {out}")


def _stage(name: str, text: str) -> None:
    def command(run: RunFolder, device: Device = None, strict: Strict = False) -> None:
        from tag2mask.runs.folder import resume_run
        from tag2mask.runs.stages import redo_stage

        after = redo_stage(resume_run(run, strict=strict), name)
        typer.echo(f"repeated {name} in {run}")
        if after:
            typer.echo(f"removed the results that depend on it ({', '.join(after)}); tag2mask run makes them again")

    command.__doc__ = f"{text}\n\nRepeats this stage of a run, alone.\n\nExample: tag2mask {name} runs/mine"
    app.command(name)(command)


_stage("plan", "Choose again what the recipe leaves to the data.")
_stage("classify", "Train the classifier on the tags.")
_stage("discover", "Find the class patterns.")
_stage("relate", "Learn which neighbouring positions belong together.")
_stage("estimate", "Write the proxy masks.")
_stage("segment", "Train the segmenter on the proxy masks.")
_stage("redraw", "Draw the masks of the training photos again, with the segmenter and the tags.")
_stage("retrain", "Train a new segmenter on the masks drawn again.")
_stage("report", "Write the report page, the overview and confidence.csv.")
