"""`ionbeam heard`: which stations fell silent, how much of each came, how late, and how much of it is doubted.

Belongs here: how it is shown. Does not belong here: what is silent (domain/silence.py), or what each number is called
(health/heard_words.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_client.text import visible
from ionbeam_dagster.cli.terminal import SOURCES, console, load_config

if TYPE_CHECKING:
    import polars as pl

    from ionbeam_dagster.domain.silence import Told
    from ionbeam_dagster.pipeline.lately import Lately


def heard(
    sources: Annotated[list[str] | None, SOURCES] = None,
    most: Annotated[int, typer.Option(min=1, help="Stations of a source that are shown.")] = 50,
    every: Annotated[bool, typer.Option("--every", help="Show also stations that are not silent.")] = False,
) -> None:
    """Show which stations fell silent: each is expected as often as it usually comes.

    Of each: when it was last heard, its usual interval, the share of what was expected that came in a day and in a
    week, how late it comes, the share of its values that quality control doubts, and its rows that were set aside. Of
    each source: the same, and why. docs/monitoring.md tells how each is reckoned.

    Example: `ionbeam heard ioncannon --every`
    """
    from ionbeam_dagster.pipeline.heard import up_to_date
    from ionbeam_dagster.pipeline.lately import lately
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    for name in sources or platform.config.sources:
        source = platform.source(name)
        found = up_to_date(platform, name)
        if found is None:
            console.print(f"{name}: nothing was heard yet", highlight=False)
            continue
        _show(name, found, most, every)
        for line in _of_source(lately(platform, source, platform.now()), found):
            console.print(f"  {visible(line)}", highlight=False, markup=False, soft_wrap=True)


def _of_source(source: Lately, found: Told) -> Iterator[str]:
    from ionbeam_dagster.health.heard_words import doubted, failed_tests, how_late, named, percent, rows_of_a_day

    collected = "" if source.completeness is None else f"; {percent(source.completeness)} of a day was collected"
    yield f"{rows_of_a_day(source)}{collected}"
    if late := how_late(source):
        yield late
    if found.judged:
        yield f"{doubted(found)} of {found.judged:,} values are doubted{failed_tests(found)}"
    if found.aside.height:
        yield f"set aside{named(found.aside)}; `ionbeam quarantine show` has the rows"


def _show(name: str, found: Told, most: int, every: bool) -> None:
    silent = found.silent
    colour = "yellow" if silent.height else "green"
    console.print(
        f"[bold]{escape(name)}[/bold] until {found.until:%Y-%m-%d %H:%M}: {found.heard:,} stations heard in "
        f"a week, [{colour}]{silent.height:,} of them fell silent[/{colour}]",
        highlight=False,
    )
    others = found.stations.filter(~found.stations["silent"])
    shown = silent.vstack(others) if every else silent
    if shown.height:
        console.print(_table(shown.head(most)))
    if shown.height > most:
        console.print(f"  ... and {shown.height - most:,} more (--most)", style="dim")


def _table(stations: pl.DataFrame) -> Table:
    from ionbeam_dagster.health.heard_words import OF_A_STATION, of_a_station

    table = Table(*OF_A_STATION, "")
    for row in stations.iter_rows(named=True):
        station, last, interval, *others = (escape(visible(cell)) for cell in of_a_station(row))
        silent = "[red]silent[/red]" if row["silent"] else ""
        table.add_row(station, last, interval or "too few rows", *others, silent)
    return table
