"""Check this installation: one row per part, with whether it is required and whether it works."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tag2mask.devices import VARIABLE, accelerators, half_type, why
from tag2mask.distributed import device
from tag2mask.errors import reason
from tag2mask.threads import by_affinity, cgroup_limit, cores

OK, NOTE, BROKEN = "ok", "note", "broken"
_NEEDED = {
    "numpy": "numpy", "scipy": "scipy", "torch": "torch", "torchvision": "torchvision", "timm": "timm",
    "accelerate": "accelerate", "numba": "numba", "pillow": "PIL", "pydantic": "pydantic",
    "pycocotools": "pycocotools", "safetensors": "safetensors", "huggingface-hub": "huggingface_hub",
    "matplotlib": "matplotlib", "jinja2": "jinja2",
}  # fmt: skip
_EXTRAS = {
    "export": ("onnx", "onnxruntime", "onnxscript"), "serve": ("fastapi", "uvicorn", "python-multipart"),
    "docs": ("mkdocs-material",), "test": ("pytest",),
}  # fmt: skip
_SPACE = 2e9
"""Free bytes under which the space is remarked on: a run of some thousand photos fits in less."""


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        name: of the thing.
        state: ``ok``, ``note`` (works, but know this) or ``broken`` (needed, and does not work).
        text: version, number, or what is wrong and how to fix it.
    """

    name: str
    state: str
    text: str


def examine(folder: str | Path = ".") -> list[Check]:
    """Look at this machine; whatever fails becomes a row.

    Args:
        folder: where runs will be written; it need not exist yet.
    """
    checks = [
        Check("tag2mask", OK, f"{version('tag2mask')}, in {Path(__file__).parent}"),
        Check("Python", OK, f"{platform.python_version()}, {sys.executable}"),
        Check("system", OK, f"{platform.platform()}, {_cores()}"),
    ]
    checks += [_package(name, module) for name, module in _NEEDED.items()]
    for name, look in (
        ("GPUs", _gpus),
        ("device", _device),
        ("default weights", _default_weights),
        ("weights of timm's hub", _weights_of_hub),
        ("dense CRF", _crf),
        ("space", lambda: _space(Path(folder))),
    ):
        try:
            state, text = look()
        except Exception as error:  # a broken installation can raise anything, and the other rows matter too
            state, text = BROKEN, _named(error)
        checks.append(Check(name, state, text))
    return checks + list(_extras())


def broken(checks: Sequence[Check]) -> list[str]:
    """Return the names of what is needed and does not work.

    >>> broken([Check("numpy", "ok", "2.0"), Check("torch", "broken", "cannot be imported")])
    ['torch']
    """
    return [check.name for check in checks if check.state == BROKEN]


def as_table(checks: Sequence[Check]) -> Table:
    """Return the rows as a table for a terminal."""
    table = Table("what", "state", "", box=box.SIMPLE_HEAD)
    for check in checks:
        colour = {OK: "green", NOTE: "yellow", BROKEN: "red"}[check.state]
        table.add_row(check.name, f"[{colour}]{check.state}[/]", check.text.replace("[", r"\["))
    return table


def as_json(checks: Sequence[Check]) -> str:
    """Return the rows as JSON."""
    return json.dumps({"ok": not broken(checks), "checks": [asdict(check) for check in checks]}, indent=2)


def _package(name: str, module: str) -> Check:
    try:
        import_module(module)
        return Check(name, OK, version(name))
    except Exception as error:  # whatever a broken package raises
        return Check(name, BROKEN, f"{_named(error)}; python -m pip install --force-reinstall {name}")


def _gpus() -> tuple[str, str]:
    import torch

    found = accelerators()
    if not found.number:
        return NOTE, "none that torch can use; everything runs on the processor, slower"
    if found.kind != "cuda":
        return OK, f"{found.number} by the name of {found.kind}"
    gpus = [torch.cuda.get_device_properties(index) for index in range(found.number)]
    return OK, ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)


def _device() -> tuple[str, str]:
    where = device()
    precision = str(half_type(where) or "torch.float32").removeprefix("torch.")
    return OK, f"{where} in {precision}, since {why()}; --device or {VARIABLE} chooses"


def _cores() -> str:
    limits = {"taskset or the like": by_affinity(), "the container": cgroup_limit()}
    least = [name for name, limit in limits.items() if limit < (os.cpu_count() or 1)]
    return f"{os.cpu_count()} cores" + (
        f", {cores()} of them for this process by {' and '.join(least)}" if least else ""
    )


def _default_weights() -> tuple[str, str]:
    from tag2mask.config import BackboneConfig
    from tag2mask.networks.backbones import Backbone

    default = BackboneConfig()
    return OK, f"{default.name}, {Backbone(default.name, weights=default.weights).source}"


def _weights_of_hub() -> tuple[str, str]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    models = [found.name.split("--", 1)[1].replace("--", "/") for found in sorted(folder.glob("models--timm--*"))]
    return OK, f"{', '.join(models) or 'none'} in {folder} (others are fetched when a recipe names them)"


def _crf() -> tuple[str, str]:
    from tag2mask.crf import prepare
    from tag2mask.crf.mean_field import labels_last

    compiled: Any = labels_last  # numba's dispatcher, which counts
    seconds, how = prepare(), compiled.stats
    if how.cache_path is None:
        return NOTE, f"compiles in {seconds:.0f} s in every process: no cache can be written; set NUMBA_CACHE_DIR"
    done = "loaded" if how.cache_hits else "compiled for the first time"
    return OK, f"{done} in {seconds:.1f} s, kept in {how.cache_path}"


def _space(folder: Path) -> tuple[str, str]:
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
    with tempfile.TemporaryFile(dir=there):
        free = shutil.disk_usage(there).free
    return (OK if free > _SPACE else NOTE), f"{free / 1e9:.1f} GB free for {folder.resolve()}"


def _extras() -> Iterator[Check]:
    for extra, packages in _EXTRAS.items():
        missing = [name for name in packages if not _installed(name)]
        text = f'without {", ".join(missing)}; python -m pip install "tag2mask[{extra}]"' if missing else "installed"
        yield Check(f"extra {extra}", NOTE if missing else OK, text)


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {reason(error)}"
