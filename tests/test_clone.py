"""What README and the examples name is in a clone: nothing beside it is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml
from pages import DOCS

from ionbeam_dagster.cli import app

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "ionbeam_client" / "README.md",
    *sorted(DOCS.glob("*.md")),
]
_SHELL = re.compile(r"^```(?:sh|bash|shell|console)?\n(.*?)^```", re.S | re.M)
_SHIPPED = re.compile(r"(?:--config\s+|CONFIG=|python\s+)?((?:examples|deployments|benchmarks|tools|tests)/[\w./*-]+)")
MOST_BYTES = 2_000_000


def commands(page: Path) -> list[str]:
    return [line for block in _SHELL.findall(page.read_text()) for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_commands_name_are_shipped(page):
    for command in commands(page):
        assert "../shared" not in command, command
        for named in _SHIPPED.findall(command.partition("#")[0]):
            assert list(ROOT.glob(named)), f"{page.name}: {command.strip()}: there is no {named}"


def test_the_commands_of_readme_are_there():
    """Targets of the Makefile, and commands of `ionbeam`, in blocks and in the table."""
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    made = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.M))
    assert made <= targets and len(made) > 2
    called = set(re.findall(r"(?:`|^)ionbeam (?:--config \S+ )?([a-z0-9]+)", text, re.M))
    assert called <= typer.main.get_command(app).commands.keys() and len(called) > 10


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_files_that_examples_read_are_shipped(example):
    for name, block in yaml.safe_load(example.read_text())["sources"].items():
        path = block.get("path") if isinstance(block, dict) else None
        if path is not None and block.get("type") == "files" and not path.startswith("demo/"):
            assert list(ROOT.glob(path)), f"{example.name}: {name} reads {path}"


def test_what_is_shipped_is_small_and_its_licences_are_told():
    files = [path for path in (ROOT / "examples" / "data").rglob("*") if path.is_file()]
    told = (ROOT / "examples" / "data" / "README.md").read_text()
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        if path.name != "README.md":
            [line] = [line for line in told.splitlines() if f"`{path.parent.name}/{path.name}`" in line]
            assert "https://creativecommons.org/" in line or "https://www.apache.org/" in line
