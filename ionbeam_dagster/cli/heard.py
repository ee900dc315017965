"""`ionbeam heard`: which stations fell silent, how much of each came, how late, and how much of it is doubted.

Belongs here: how it is shown. Does not belong here: what is silent (domain/heard.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_client.text import visible
from ionbeam_dagster.cli.terminal import DATASETS, console, load_config
from ionbeam_dagster.domain.times import in_short

if TYPE_CHECKING:
    import polars as pl

    from ionbeam_dagster.pipeline.heard import StationsHeard


def heard(
    datasets: Annotated[list[str] | None, DATASETS] = None,
    days: Annotated[int, typer.Option(min=1, help="So many days up to the newest window are looked at.")] = 1,
    most: Annotated[int, typer.Option(min=1, help="Stations of a dataset that are shown.")] = 50,
    every: Annotated[bool, typer.Option("--every", help="Show also stations that are not silent.")] = False,
) -> None:
    """Show which stations fell silent: each is expected as often as it usually comes.

    Of each: when it was last heard, its usual interval, the share of what was expected that came, and the share of its
    values that quality control doubts. Of each source: rows, rows set aside, and how late they come.

    Example: `ionbeam heard ioncannon --days 7`
    """
    from ionbeam_dagster.domain.windows import DAY
    from ionbeam_dagster.pipeline.heard import heard as heard_of
    from ionbeam_dagster.pipeline.heard import lately
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    for name in datasets or platform.config.datasets:
        dataset = platform.dataset(name)
        found = heard_of(platform, dataset, days * DAY)
        if found is None:
            console.print(f"{name}: nothing was built yet", highlight=False)
            continue
        _show(name, found, most, every)
        for one in lately(platform, dataset, found.start, found.until):
            told = f"  {one.source}: {one.rows:,} rows, {one.set_aside:,} more set aside (`ionbeam quarantine show`); "
            late = f"half of it comes {in_short(one.late)} late at most, 95 % of it {in_short(one.latest)}"
            console.print(told + late, highlight=False, markup=False, soft_wrap=True)


def _show(name: str, found: StationsHeard, most: int, every: bool) -> None:
    stations = found.stations
    silent = stations.filter("silent") if stations.height else stations
    colour = "yellow" if silent.height else "green"
    console.print(
        f"[bold]{escape(name)}[/bold] {found.start:%Y-%m-%d %H:%M} .. {found.until:%Y-%m-%d %H:%M}: "
        f"{stations.height:,} stations heard, [{colour}]{silent.height:,} of them fell silent[/{colour}]",
        highlight=False,
    )
    if found.unread:
        told = f"{found.unread} windows could not be read; `ionbeam doctor --files` has them made again"
        console.print(told, style="yellow", highlight=False)
    shown = (stations if every else silent) if stations.height else stations
    if shown.height:
        console.print(_table(shown.sort("silent", "last", descending=[True, False]).head(most)))
    if shown.height > most:
        console.print(f"  ... and {shown.height - most:,} more (--most)", style="dim")


def _table(stations: pl.DataFrame) -> Table:
    key = stations.columns[: stations.columns.index("last")]
    table = Table(*map(escape, key), "last heard", "usually every", "came", "doubted", "")
    for row in stations.iter_rows(named=True):
        table.add_row(
            *(escape(visible(str(row[name]))) for name in key),
            f"{row['last']:%Y-%m-%d %H:%M}",
            in_short(row["interval"]) if row["interval"] is not None else "heard too seldom",
            f"{row['completeness']:.0%}" if row["completeness"] is not None else "",
            f"{row['flagged']:.0%}" if row["flagged"] is not None else "",
            "[red]silent[/red]" if row["silent"] else "",
        )
    return table
