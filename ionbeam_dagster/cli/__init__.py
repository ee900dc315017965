"""`ionbeam`, the command line: what the Dagster UI shows and does, from a shell.

Belongs here: commands, one module a subject, and how things look in a terminal. Does not belong here: what they do
(pipeline, orchestration).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ionbeam_dagster.cli import (
    broker,
    config,
    conformance,
    dev,
    doctor,
    export,
    gaps,
    heard,
    history,
    ledger,
    odb,
    processes,
    qc,
    quarantine,
    report,
    run,
    source,
    stations,
    status,
    windows,
    wis2,
)
from ionbeam_dagster.cli.terminal import fail, of_the_disk
from ionbeam_dagster.config import CONFIG_VARIABLE
from ionbeam_dagster.errors import IonbeamError


class _Commands(TyperGroup):
    """All commands: an error of the platform, whichever of them meets it, is a message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:  # typer hides its own context's type
        try:
            return super().invoke(ctx)
        except IonbeamError as error:
            fail(str(error))
        except Exception as error:
            if (said := of_the_disk(error)) is None:
                raise
            fail(said)


app = typer.Typer(
    cls=_Commands,
    help="Crowd-sourced and IoT weather observations as canonical datasets and their exports, window by window.\n\n"
    "Begin with `ionbeam config check`, then `ionbeam run SOURCE --from ... --to ...`, then `ionbeam dev` for the UI.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for command in (
    run.run, status.status, doctor.doctor, heard.heard, report.report, gaps.gaps, windows.rebuild, windows.reingest,
    windows.seal, windows.unseal, windows.purge, history.prune, dev.dev, processes.worker, processes.daemon,
    processes.bridge, processes.receive, processes.mqtt, processes.serve, conformance.conformance,
):  # fmt: skip
    app.command()(command)
app.command("sweep", hidden=True)(windows.purge)  # what it was called
app.add_typer(broker.app, name="broker")
app.add_typer(config.app, name="config")
app.add_typer(export.app, name="export")
app.add_typer(history.app, name="history")
app.add_typer(ledger.app, name="ledger")
app.add_typer(odb.app, name="odb")
app.add_typer(qc.app, name="qc")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(source.app, name="source")
app.add_typer(stations.app, name="stations")
app.add_typer(wis2.app, name="wis2")


@app.callback()
def main(
    config: Annotated[
        Path | None,
        typer.Option(help=f"The platform's YAML. Default: ${CONFIG_VARIABLE}, else one that needs no server."),
    ] = None,
) -> None:
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
