"""A child of the worker: does one source's or dataset's work at a time, as its parent says, with all imports done.

It is forked from a server that has imported this module, so that it is there in a moment, and can be killed when its
work hangs. Belongs here: what the child does. Does not belong here: which work is whose (worker.py).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import scipy.spatial  # noqa: F401  # judging, too, would load it when it begins

import ionbeam_dagster.exporters.geoparquet
import ionbeam_dagster.exporters.odb
import ionbeam_dagster.pictures.export
import ionbeam_dagster.pictures.window  # noqa: F401  # drawing takes a second to import
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.health.logs import log_to_stderr
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.orchestration.home import dagster_at, home_of
from ionbeam_dagster.pipeline.recovery import open_platform

SAID_EVERY = 1.0
"""Seconds between two signs of life."""


def work_for(parent: Connection, config_path: str, folder: str) -> None:
    """Do what the parent sends, ``(kind, name)``, and answer with how many runs that made and what went wrong; until it
    sends no more, or is gone."""
    os.setpgid(0, 0)  # an interrupt at the terminal is the parent's: it lets us finish, or kills us
    os.chdir(folder)
    config = IonbeamConfig.load(Path(config_path))
    log_to_stderr(config, usual="warning")
    told = threading.Lock()

    def say(what: object) -> None:
        with told, suppress(OSError):
            parent.send(what)

    def live() -> None:
        """Say so as long as the parent hears it: without it this process ends, whatever it waits for."""
        with suppress(OSError):
            while True:
                with told:
                    parent.send("alive")
                time.sleep(SAID_EVERY)
        os.killpg(0, signal.SIGKILL)

    platform = open_platform(config)
    with dagster_at(home_of(config)) as instance:
        doing = Doing(platform, instance, may_end_process=True)
        threading.Thread(target=live, daemon=True).start()
        say("ready")
        with suppress(EOFError, OSError):
            while True:
                kind, name = parent.recv()
                runs, trouble = 0, ""
                try:
                    runs = doing.source(name) if kind == "source" else doing.dataset(name)
                except Exception as error:
                    trouble = f"{type(error).__name__}: {error}"
                say((runs, trouble))
