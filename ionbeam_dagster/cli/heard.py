"""`ionbeam heard`: which stations fell silent, how much of each came, how late, and how much of it is doubted.

Belongs here: how it is shown. Does not belong here: what is silent (domain/silence.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_client.text import visible
from ionbeam_dagster.cli.terminal import SOURCES, console, load_config
from ionbeam_dagster.domain.times import in_short

if TYPE_CHECKING:
    import polars as pl

    from ionbeam_dagster.domain.silence import Told
    from ionbeam_dagster.pipeline.lately import Lately

_NAMED = 5


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
    collected = "" if source.completeness is None else f"; {source.completeness:.1%} of a day was collected"
    yield f"{source.rows:,} rows of a day, {source.set_aside:,} more set aside{collected}"
    if source.late is not None and source.latest is not None:
        yield f"half of it comes {in_short(source.late)} late at most, 95 % of it {in_short(source.latest)}"
    if found.judged:
        tests = _most(found.tests, found.judged)
        share = f"{found.doubted / found.judged:.1%} of {found.judged:,} values are doubted"
        yield f"{share}: {tests}" if tests else share
    if found.aside.height:
        named = ", ".join(f"{why} ({rows:,})" for why, rows in found.aside.head(_NAMED).iter_rows())
        yield f"set aside: {named}; `ionbeam quarantine show` has the rows"


def _most(counted: pl.DataFrame, of: int) -> str:
    return ", ".join(f"{what.replace('_', ' ')} {rows / of:.1%}" for what, rows in counted.head(_NAMED).iter_rows())


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
    headings = ("station", "last heard", "usually every", "of a day", "of a week", "late", "doubted", "set aside", "")
    table = Table(*headings)
    for row in stations.iter_rows(named=True):
        doubted = _share(row["flagged"]) + (f" ({row['tests']})" if row["tests"] else "")
        aside = f"{row['set_aside']:,} ({row['why']})" if row["set_aside"] else ""
        table.add_row(
            escape(visible(row["station"])),
            f"{row['last']:%Y-%m-%d %H:%M}" if row["last"] is not None else "never",
            _duration(row["interval"]) or "too few rows",
            _share(row["completeness"]),
            _share(row["completeness_week"]),
            _duration(row["latest"]),
            escape(doubted),
            escape(visible(aside)),
            "[red]silent[/red]" if row["silent"] else "",
        )
    return table


def _share(share: float | None) -> str:
    return f"{share:.0%}" if share is not None else ""


def _duration(duration: Any) -> str:
    return in_short(duration) if duration is not None else ""
