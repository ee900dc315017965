"""Programs of others in environments of their own, to be held against ours.

Belongs here: how they are had. Does not belong here: what they are asked (beside the tests).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def python_with(package: str, module: str, *others: str) -> Path:
    """The interpreter of an environment that has `package` (name==version) and `others`, made once, where `module` can
    be imported; skips where it cannot be had."""
    place = Path(sys.prefix) / "oracles" / package.partition("==")[0]
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", place], check=True, capture_output=True, timeout=120
            )
            install = ["-m", "pip", "install", "--quiet", "--timeout=10", "--retries=1", package, *others]
            subprocess.run([python, *install], check=True, capture_output=True, timeout=600)
            subprocess.run([python, "-c", f"import {module}"], check=True, capture_output=True, timeout=120)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or b""
            pytest.skip(f"{package} cannot be had here: {error} {said.decode(errors='replace')[-300:]}")
        (place / "complete").touch()
    return python
