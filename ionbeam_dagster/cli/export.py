"""`ionbeam export`: files that the platform wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ionbeam_dagster.cli.terminal import console, frame_table, refused_as_message

app = typer.Typer(help="Files that the platform wrote.", no_args_is_help=True)


@app.command("show")
def export_show(file: Annotated[Path, typer.Argument(help="Any file that the platform wrote.")]) -> None:
    """Show what is inside a file: raw partition, quarantine, dataset window, ODB-2 or GeoParquet."""
    from ionbeam_dagster.show import NotOurs, contents

    with refused_as_message(NotOurs):
        found = contents(file)
    console.print(f"[bold]{file.name}[/bold]: {found.kind}", highlight=False)
    for fact, value in found.facts.items():
        console.print(f"  {fact}: {value}", highlight=False)
    for frame in (found.columns, found.head):
        if frame.width:
            console.print(frame_table(frame))
