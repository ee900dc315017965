"""`ionbeam ledger`: the platform's memory of what was collected, claimed, built and exported."""

from __future__ import annotations

import typer

from ionbeam_dagster.cli.terminal import console, load_config
from ionbeam_dagster.pipeline.recovery import recover_platform

app = typer.Typer(help="The ledger: the platform's memory of what happened.", no_args_is_help=True)


@app.command()
def rebuild() -> None:
    """Put into the ledger what it lacks of the past, as raw files, dataset files and the observations tell it.

    A ledger that is new or was lost does this by itself when it is first used. What it has is left alone.
    """
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    before = platform.ledger.recovered()
    found = recover_platform(platform)
    if found:
        platform.ledger.note_recovery(str(found))
    after = platform.ledger.recovered()
    if after is None or after == before:
        console.print("the ledger lacks nothing that the stores hold")
    else:
        console.print(f"the ledger was made again: {after[1]}", highlight=False, markup=False)
