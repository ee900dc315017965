"""Runs every benchmark of this folder, one after the other, and lets each print its own table.

`python benchmarks/run.py` takes all; `python benchmarks/run.py odb chain` takes those named.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    named = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "measure"))
    failed = [name for name in named if subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
