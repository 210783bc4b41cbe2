"""Help that reads well on a narrow terminal, and what a shell completes."""

from __future__ import annotations

import re
import subprocess

import pytest
import typer

from tag2mask import cli, exports, names
from tag2mask.reproduce import items
from tag2mask.runs import stages


def commands(command, path=()):
    """Yield the words of every command, groups among them."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = list(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_has_an_example(command, monkeypatch, path):
    monkeypatch.setenv("COLUMNS", "80")
    said = command(*path, "--help")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80
    example = re.search(r"^ *Example: (.*?)$", said.out, re.MULTILINE)
    assert example, said.out
    assert example[1].startswith(" ".join(("tag2mask", *path)))
    assert "…" not in said.out  # nothing was cut off


def test_all_commands_were_seen():
    assert {(), ("run",), ("doctor",), ("data", "sbd"), ("classify",)} <= set(COMMANDS)


def test_exit_codes_are_told(command):
    assert "2 user error (one-line message); 130 stopped" in " ".join(command("--help").out.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tag2mask ru", ["run"]),
        ("tag2mask run photos --recipe luo2020-voc", ["luo2020-voc-resnet101", "luo2020-voc-vgg16"]),
        ("tag2mask recipes fa", ["fast"]),
        ("tag2mask run photos --until e", ["estimate", "evaluate"]),
        ("tag2mask run photos --method d", ["dcsm", "ddt", "dsrg"]),
        ("tag2mask reproduce fig", ["figure1", "figure3", "figure4", "figure5"]),
        ("tag2mask demo --kind le", ["lesion", "leafspots"]),
        ("tag2mask export la", ["labelme", "label-studio"]),
        ("tag2mask export coco runs/a --masks p", ["predictions", "proxy"]),
        ("tag2mask --log-format j", ["json"]),
    ],
)
def test_values_are_completed(command, monkeypatch, line, words):
    """What bash asks for when the last word of a line is begun."""
    monkeypatch.setenv("_TAG2MASK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line.replace(" ", "\n"))
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    said = command()
    assert said.code == 0
    assert said.out.split() == words


def test_names_that_are_completed_are_all_there_are():
    assert list(names.StageName) == list(stages.STAGES)
    assert list(names.ExportFormat) == list(exports.FORMATS)
    assert set(names.Item) == set(items.ITEMS)


def test_the_script_for_bash_is_bash(command, monkeypatch):
    monkeypatch.setenv("_TAG2MASK_COMPLETE", "source_bash")
    script = command().out
    assert re.search(r"^complete .*tag2mask$", script, re.MULTILINE)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
