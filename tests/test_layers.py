"""Imports run downward only, and only orchestration, the definitions and the command line know Dagster."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ionbeam_dagster"
CLIENT = ROOT / "ionbeam_client" / "src" / "ionbeam_client"
LAYERS = [
    {"cli"},
    {"definitions"},
    {"orchestration"},
    {"testing"},
    {"health"},
    {"wis2"},
    {"edr", "doors"},
    {"pipeline"},
    {"config"},
    {"sources", "exporters", "pictures"},
    {"stores"},
    {"domain"},
    {"tls"},
    {"errors", "settings", "http_server"},
    {"matters"},
]
DAGSTER_ALLOWED = {"definitions", "cli", "orchestration"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def height(name: str) -> int | None:
    return next((len(LAYERS) - place for place, layer in enumerate(LAYERS) if name in layer), None)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def upward(path: Path) -> Iterator[str]:
    """What is wrong with the imports of a module."""
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own == "__init__":
        return
    if height(own) is None:
        yield f"{path} stands in no layer; add it to LAYERS"
        return
    for name in imported(path):
        if name.split(".")[0] == "dagster" and own not in DAGSTER_ALLOWED:
            yield f"{path} imports dagster"
        if name.startswith("ionbeam_dagster."):
            other = room(name)
            if other != own and height(other) is not None and height(other) >= height(own):
                yield f"{path} imports {name}, which is not below it"


def test_imports_run_downward():
    assert len(MODULES) > 100
    assert [fault for path in MODULES for fault in upward(path)] == []


def test_only_the_shipped_suites_know_the_libraries_of_tests():
    for path in MODULES:
        if "testing" not in path.relative_to(PACKAGE).parts:
            names = imported(path)
            assert not {"pytest", "hypothesis"} & {name.split(".")[0] for name in names}, path
            assert not any(name.startswith("ionbeam_dagster.testing") for name in names), path


def test_the_client_knows_nothing_of_the_platform():
    for path in CLIENT.parent.rglob("*.py"):
        assert not any(name.startswith(("ionbeam_dagster", "dagster")) for name in imported(path)), path


def test_every_file_says_what_belongs_in_it():
    assert [path for path in MODULES if not ast.get_docstring(parsed(path))] == []


@pytest.mark.parametrize("root", [ROOT, CLIENT.parent], ids=["platform", "client"])
def test_no_two_modules_need_each_other(root):
    named = {}
    for path in MODULES if root == ROOT else CLIENT.rglob("*.py"):
        named[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = imported(path)
    needed = {
        name: {found if found in named else found.rpartition(".")[0] for found in names} - {name}
        for name, names in named.items()
    }
    TopologicalSorter({name: names & named.keys() for name, names in needed.items()}).prepare()
