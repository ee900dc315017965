"""Starts a program that ends with whoever started it: ``python bound.py PARENT PROGRAM ARGUMENTS...``.

A program by itself, run by its path, so that it imports nothing of ours. Belongs here: what has to happen in the new
process before it is the program. Does not belong here: the watching (supervision.py).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked to be told
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 (in place of this process)
