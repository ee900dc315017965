"""`ionbeam receive` that dies: with the chance DIES after a report is durable and before its answer, and with the
chance DIES_BEFORE (without it a quarter of the other) before it is durable.

Belongs here: that death. Does not belong here: who starts it again (fleet.py).
"""

import os
import random
import signal

from ionbeam_dagster.cli import app
from ionbeam_dagster.doors.http.reports import Once

chance = float(os.environ["DIES"])
before = float(os.environ.get("DIES_BEFORE", chance / 4))
take = Once.take


def perhaps_die(of):
    if random.random() < of:
        os.kill(os.getpid(), signal.SIGKILL)


def take_and_perhaps_die(*arguments):
    perhaps_die(before)
    count = take(*arguments)
    perhaps_die(chance)
    return count


Once.take = take_and_perhaps_die
app()
