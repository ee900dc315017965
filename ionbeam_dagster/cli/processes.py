"""Commands that stay until they are stopped: the Dagster UI, the bridge to the broker."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ionbeam_dagster.cli.terminal import dagster_home, load_config, refused_as_message
from ionbeam_dagster.config import CONFIG_VARIABLE


def dev(port: Annotated[int, typer.Option(help="Where the UI listens, on this machine only.")] = 3000) -> None:
    """Start `dagster dev` with this configuration: the UI, its sensors and its automation. Ctrl-C stops it."""
    config = load_config()
    home = dagster_home(config)
    os.environ |= {CONFIG_VARIABLE: str(config.path.absolute()), "DAGSTER_HOME": str(home)}
    dagster = Path(sys.executable).with_name("dagster")
    os.execv(dagster, [str(dagster), "dev", "-m", "ionbeam_dagster.definitions", "--port", str(port)])


def bridge() -> None:
    """Take in what clients send, and announce what is built, as it happens. Ctrl-C stops it.

    `ionbeam dev` does the same every few seconds; both may run side by side. What arrives is ingested and built by
    Dagster, which is told of it when DAGSTER_HOME is set.
    """
    from ionbeam_dagster.pipeline import PipelineError, Platform

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with refused_as_message(PipelineError):
        served = Platform(load_config()).bridge
    if not os.environ.get("DAGSTER_HOME"):
        served.run_forever()
        return
    from dagster import DagsterInstance

    from ionbeam_dagster.orchestration.reports import report_arrivals

    with DagsterInstance.get() as instance:
        served.run_forever(lambda: report_arrivals(served.inbox, instance, 1.0))
