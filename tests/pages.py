"""The examples of docs/ as programs: their blocks of code, and packages of them, installed as an installer does it.

Belongs here: reading a page, and installing a package beside the platform. Does not belong here: any test.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> dict[str, list[str]]:
    """The blocks of a page of docs/, in order, by their language."""
    found = defaultdict(list)
    for language, block in re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.S):
        found[language].append(block)
    return dict(found)


def entry_points(toml: str) -> dict[str, dict[str, str]]:
    """The entry points of a block of a pyproject.toml, by their group."""
    return tomllib.loads(toml)["project"]["entry-points"]


def install(folder: Path, name: str, modules: Mapping[str, str], points: Mapping[str, Mapping[str, str]]) -> Path:
    """Install a package of `modules` by pip into a folder of its own, which is given back."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    listed = [
        line
        for group, of_group in points.items()
        for line in (f"[{group}]", *(f"{point} = {place}" for point, place in of_group.items()))
    ]
    with zipfile.ZipFile(wheel, "w") as packed:
        for module, text in modules.items():
            packed.writestr(f"{module}.py", text)
        packed.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/entry_points.txt", "\n".join([*listed, ""]))
        packed.writestr(f"{about}/RECORD", "")
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(command, check=True)
    return site
