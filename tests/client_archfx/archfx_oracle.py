"""The vendor's own package, in an environment of its own, as an oracle.

Belongs here: how it is had and called. Does not belong here: what it is asked (`vendor_worker`).
"""

from __future__ import annotations

import pickle
import struct
import subprocess
from pathlib import Path

from oracles import python_with

VENDOR = "archfx-cloud==0.17.0"


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
    """The interpreter that has the vendor's package; skips where it cannot be had."""
    return python_with(VENDOR, "archfx_cloud.reports.report")
