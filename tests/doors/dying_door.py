"""`ionbeam receive` that dies: with the chance DIES, before a report is durable, or after it and before its answer.

Belongs here: that death. Does not belong here: who starts it again (fleet.py).
"""

import os
import random
import signal

from ionbeam_dagster.cli import app
from ionbeam_dagster.doors.http.reports import Once

chance = float(os.environ["DIES"])
take = Once.take


def perhaps_die(of):
    if random.random() < of:
        os.kill(os.getpid(), signal.SIGKILL)


def take_and_perhaps_die(*arguments):
    perhaps_die(chance / 4)
    count = take(*arguments)
    perhaps_die(chance)
    return count


Once.take = take_and_perhaps_die
app()
