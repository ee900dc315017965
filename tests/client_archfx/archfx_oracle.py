"""The vendor's own package, in an environment of its own, as an oracle.

Belongs here: how it is had and called. Does not belong here: what it is asked (`vendor_worker`).
"""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest

VENDOR = "archfx-cloud==0.17.0"
PLACE = Path(sys.prefix) / "oracles" / "archfx-cloud"


class Vendor:
    """The vendor's package in a process of its own."""

    def __init__(self, python: Path) -> None:
        worker = Path(__file__).with_name("vendor_worker.py")
        self.process = subprocess.Popen([python, worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, name: str, *arguments, **named):
        """Its result; ValueError with the kind of the error that it ended with."""
        body = pickle.dumps((name, arguments, named))
        self.process.stdin.write(struct.pack(">I", len(body)) + body)
        self.process.stdin.flush()
        error, result = pickle.loads(self.process.stdout.read(struct.unpack(">I", self.process.stdout.read(4))[0]))
        if error:
            raise ValueError(error)
        return result


def vendors_python() -> Path:
    """The interpreter that has the vendor's package, made once; skips where it cannot be had."""
    python = PLACE / "bin" / "python"
    if not (PLACE / "complete").exists():
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", PLACE], check=True, capture_output=True, timeout=120
            )
            install = ["-m", "pip", "install", "--quiet", "--timeout=10", "--retries=1", VENDOR]
            subprocess.run([python, *install], check=True, capture_output=True, timeout=240)
            subprocess.run(
                [python, "-c", "import archfx_cloud.reports.report"], check=True, capture_output=True, timeout=60
            )
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or b""
            pytest.skip(f"{VENDOR} cannot be had here: {error} {said.decode(errors='replace')[-300:]}")
        (PLACE / "complete").touch()
    return python
