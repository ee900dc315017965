"""Programs of others in environments of their own, to be held against ours.

Belongs here: how they are had. Does not belong here: what they are asked (beside the tests).
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest


def python_with(package: str, module: str, *others: str) -> Path:
    """The interpreter of an environment that has `package` (name==version) and `others`, made once, where `module` can
    be imported; skips where it cannot be had."""
    place = Path(sys.prefix) / "oracles" / package.partition("==")[0]
    python = place / "bin" / "python"
    place.parent.mkdir(exist_ok=True)
    with place.with_suffix(".lock").open("a") as turn:  # tests of several files, side by side, want the same
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            _make(place, [package, *others], module)
    return python


def _make(place: Path, packages: list[str], module: str) -> None:
    python = place / "bin" / "python"
    make = [sys.executable, "-m", "venv", "--clear", "--without-pip", place]
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--timeout=10", "--retries=1"]
    try:
        subprocess.run(make, check=True, capture_output=True, timeout=120)
        subprocess.run([*install, *packages], check=True, capture_output=True, timeout=600)
        subprocess.run([python, "-c", f"import {module}"], check=True, capture_output=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or b""
        pytest.skip(f"{packages[0]} cannot be had here: {error} {said.decode(errors='replace')[-300:]}")
    (place / "complete").touch()
