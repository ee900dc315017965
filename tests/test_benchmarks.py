"""Every benchmark still runs; what it measures is not looked at here."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in ("run", "measure"))


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name, tmp_path):
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--small", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
