"""`ionbeam export`: files that the platform wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ionbeam_dagster.cli.terminal import console, frame_table, load_config
from ionbeam_dagster.errors import PipelineError, UnknownFile
from ionbeam_dagster.stores.files import is_address, name_of

if TYPE_CHECKING:
    from ionbeam_dagster.config import DatasetSettings
    from ionbeam_dagster.domain.windows import Window
    from ionbeam_dagster.pipeline.platform import Platform

app = typer.Typer(help="Files that the platform wrote.", no_args_is_help=True)


@contextmanager
def _fetched(file: str) -> Iterator[Path]:
    """A local path of the file; only S3 needs the configuration, which tells where it is."""
    if not is_address(file):
        yield Path(file)
        return
    from ionbeam_dagster.pipeline.recovery import open_platform

    try:
        with open_platform(load_config()).files.fetched(file) as local:
            yield local
    except FileNotFoundError as error:
        raise UnknownFile(f"{file}: there is no such file") from error


def not_exported(platform: Platform, dataset: DatasetSettings, windows: Sequence[Window]) -> Iterator[str]:
    """Lines about variables of the newest of `windows` that is built, and that a format does not take."""
    import pyarrow.parquet as pq

    from ionbeam_dagster.pipeline.damage import readable

    for window in reversed(windows):
        built = platform.ledger.latest_revision(dataset.name, window)
        if built is None:
            continue
        if not platform.files.exists(built.path):
            return  # what is lost is told elsewhere
        try:
            with readable(platform, built) as local:
                schema = pq.read_schema(local)
        except PipelineError as error:
            yield str(error)
            return
        for format, plan in platform.plans(dataset, schema).items():
            if names := sorted({name.partition("__")[0] for name in plan.left_out}):
                yield f"{dataset.name}: not exported as {format}: {', '.join(names)}; `ionbeam config check` says why"
        return


@app.command("show")
def export_show(
    file: Annotated[str, typer.Argument(help="Any file that the platform wrote, also s3://bucket/...")],
) -> None:
    """Show what is inside a file: raw partition, quarantine, dataset window, or an export in any format."""
    from ionbeam_dagster.pipeline.show import contents

    with _fetched(file) as local:
        found = contents(local)
    console.print(f"[bold]{name_of(file)}[/bold]: {found.kind}", highlight=False)
    for fact, value in found.facts.items():
        console.print(f"  {fact}: {value}", highlight=False)
    for frame in (found.columns, found.head):
        if frame.width:
            console.print(frame_table(frame))


@app.command()
def clients() -> None:
    """List who follows the windows of which dataset (`ionbeam_client.windows`): what they have, and what they lack.

    A name can be given by anybody who may ask the service. Removing its file below `.confirmed` forgets a client.
    """
    from rich.table import Table

    from ionbeam_dagster.edr.clients import clients as all_clients

    table = Table()
    for column in ("dataset", "client", "has", "lacks", "confirmed last (UTC)"):
        table.add_column(column, justify="right" if column in ("has", "lacks") else "left")
    for one in all_clients(load_config()):
        table.add_row(one.dataset, one.name, f"{one.has:,}", f"{one.lacks:,}", f"{one.at:%Y-%m-%d %H:%M:%S}")
    console.print(table if table.row_count else "Nobody has confirmed a window.")
