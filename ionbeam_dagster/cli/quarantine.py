"""Commands about what was set aside: rows that could not be used, with their reasons; and the lines in which others
tell of it.

Belongs here: what was left out, set aside or merged of windows, told where its reader looks. Does not belong here: what
is kept (kept.py), and why a row cannot be used (domain/canonical.py, the sources).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_dagster.cli.terminal import FROM, SOURCES, TO, asked_range, console, counted, load_config
from ionbeam_dagster.domain.windows import Window, merge, window_of
from ionbeam_dagster.errors import SourceError

if TYPE_CHECKING:
    import polars as pl

    from ionbeam_dagster.domain.records import BuiltRevision
    from ionbeam_dagster.pipeline.platform import Platform

app = typer.Typer(help="Rows that could not be used, with their reasons.", no_args_is_help=True)

REASON = "reason"
WHOLE = "whole"
_OURS = ("row", REASON, WHOLE, "x_file", "x_row")


@dataclass(frozen=True, slots=True)
class SetAside:
    """The rows of one ingestion that could not be used, and the file that holds them (it may have been purged);
    `whole` are those that are not in their window without the value that could not be read (None: it is not known).
    `refused` are those that the time-series server would not take."""

    source: str
    window: Window
    rows: int
    location: str
    whole: int | None = None
    refused: bool = False

    def first(self, platform: Platform, most: int) -> pl.DataFrame | None:
        """The first rows; None when the file is no longer there, or cannot be read."""
        import polars as pl

        from ionbeam_dagster.stores.damage import UNREADABLE

        try:
            batches = list(_limited(platform.quarantine.rows(self.location), most))
            return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches))).head(most) if batches else pl.DataFrame()
        except UNREADABLE:
            return None

    def reason(self, platform: Platform) -> str:
        """Why the first of them could not be used."""
        first = self.first(platform, 1)
        if first is None and platform.files.exists(self.location):
            if platform.source(self.source).kind == "door":
                return "its file cannot be read"  # nobody can be asked for the rows again
            again = f"`ionbeam reingest {self.source} {self.window.as_options}` writes it again"
            return f"its file cannot be read; {again}"
        if first is None or not first.height:
            return "why is no longer known"
        exact = first["x_problem"][0] if "x_problem" in first.columns else None
        return str(exact or first[REASON][0])


def _limited(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        rows -= batch.num_rows
        if rows <= 0:
            return


def set_aside(platform: Platform, source: str, start: datetime, end: datetime) -> list[SetAside]:
    """What was set aside of what a source gave for [start, end), in order of time."""
    settings = platform.source(source)
    dataset = platform.dataset(settings.dataset)
    claims = platform.ledger.claims_between(dataset.name, window_of(start, dataset.span).start, end)
    found = []
    for claim in claims:
        if claim.source != source or not claim.quarantined:
            continue
        if settings.sent:
            location = platform.quarantine.path(source, claim.collected, claim.id)
        else:
            of_source = window_of(claim.collected.start, settings.window_size)
            location = platform.quarantine.path(source, of_source)
        refused_at = platform.quarantine.refused_path(dataset.name, claim.id)
        refused = platform.quarantine.count(refused_at)
        if refused:
            found.append(SetAside(source, claim.collected, refused, refused_at, refused, refused=True))
        if claim.quarantined > refused:
            whole = platform.quarantine.whole(location)
            found.append(SetAside(source, claim.collected, claim.quarantined - refused, location, whole))
    return sorted(found, key=lambda one: one.window)


def set_aside_rows(found: Sequence[SetAside]) -> str:
    """How many rows were set aside, and how many of them as a whole."""
    rows, whole = sum(one.rows for one in found), 0
    for one in found:
        if one.whole is None:
            return f"{counted(rows, 'row')} set aside, whole or a value of them"
        whole += one.whole
    if whole in (0, rows):
        return f"{counted(rows, 'row')} set aside, {'whole' if whole else 'for a value alone'}"
    return f"{counted(rows, 'row')} set aside, {whole:,} whole and {rows - whole:,} for a value alone"


def lines_about(platform: Platform, source: str, windows: Sequence[Window]) -> Iterator[str]:
    """Lines about the rows of a source's windows that were set aside."""
    if not windows:
        return
    start, end = min(window.start for window in windows), max(window.end for window in windows)
    stretches = merge(windows)
    aside = set_aside(platform, source, start, end)
    aside = [one for one in aside if any(one.window.overlaps(stretch) for stretch in stretches)]
    for refused in (False, True):
        those = [one for one in aside if one.refused == refused]
        if those:
            rows = counted(sum(one.rows for one in those), "row")
            what = f"{rows} refused by the time-series server" if refused else set_aside_rows(those)
            yield (
                f"{source}: {what}, in {counted(len(those), 'window')}; the first, of "
                f"{those[0].window}: {those[0].reason(platform)}; `ionbeam quarantine show {source}` shows them"
            )


def clock_lines(platform: Platform, source: str) -> Iterator[str]:
    """A line about what was collected of a source by a clock that was ahead."""
    from ionbeam_dagster.pipeline.agenda import from_the_future

    if claims := from_the_future(platform, platform.source(source)):
        reached = max(claim.collected.end for claim in claims)
        again = "the windows are collected again once they have passed"
        if platform.source(source).sent:
            again = "what clients sent stays"
        yield (
            f"{source}: {counted(len(claims), 'range')} until {reached:%Y-%m-%d %H:%M} came in by a clock that was "
            f"ahead (it is {platform.now():%Y-%m-%d %H:%M} UTC now); {again}"
        )


def merged(dataset: str, built: Sequence[BuiltRevision]) -> Iterator[str]:
    """A line about rows of one station and time, of which each dataset window has one."""
    repeated = [one.facts.duplicates for one in built if one.facts.duplicates]
    if repeated:
        yield (
            f"{dataset}: {counted(sum(repeated), 'row')} had the station and time of another, in "
            f"{counted(len(repeated), 'window')}; they are one point, with the value that came last (but those more "
            "than a kilometre from the last are left out: `ionbeam stations list` names stations at two places)"
        )


def left_out(platform: Platform, source: str) -> list[str]:
    """Lines about observations of a source that have no window: before its start, after its end, far in the future."""
    try:
        extent = platform.sources[source].extent()
    except SourceError:
        return []  # its problems tell
    return [f"{source}: {line}" for line in platform.source(source).left_out(extent, platform.now())]


@app.command("list")
def list_(
    sources: Annotated[list[str] | None, SOURCES] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
) -> None:
    """List the windows of which rows were set aside, whole or a value of them, with the first reason of each and the
    file that has them.

    Example: `ionbeam quarantine list loggers --from 2026-06-01`
    """
    platform, found = _found(sources, start, end)
    if not found:
        console.print("No row was set aside.")
        return
    table = Table("source", "window", "rows", "the first reason", "file")
    for one in found:
        place = escape(one.location) if platform.files.exists(one.location) else "removed"
        rows = f"{one.rows:,}" if one.whole in (None, one.rows) else f"{one.rows:,} ({one.whole:,} whole)"
        table.add_row(escape(one.source), str(one.window), rows, escape(one.reason(platform)), place)
    console.print(table)


@app.command()
def show(
    sources: Annotated[list[str] | None, SOURCES] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
    most: Annotated[int, typer.Option(help="How many rows to show.")] = 20,
) -> None:
    """Show rows that were set aside, with their reason, file and line; one that only lost a value is in its window.

    Example: `ionbeam quarantine show loggers --most 100`
    """
    import polars as pl

    platform, found = _found(sources, start, end)
    left = most
    for one in found:
        rows = one.first(platform, left) if left > 0 else None
        if rows is None:
            if left > 0 and platform.files.exists(one.location):
                told = f"{one.source} {one.window}: {set_aside_rows([one])}; {one.reason(platform)}"
                console.print(told, highlight=False, markup=False)
            continue
        left -= rows.height
        rows = _true_reason_first(rows)
        columns = [name for name in _OURS if name in rows.columns and rows[name].null_count() < rows.height]
        table = Table(
            title=escape(f"{one.source} {one.window}: {set_aside_rows([one])}"),
            title_justify="left",
        )
        others = [name for name in rows.columns if name not in _OURS and rows[name].null_count() < rows.height]
        for name in [*columns, *others]:
            table.add_column(escape(name), overflow="fold")
        shown = rows.select(*columns, *others)
        if WHOLE in shown.columns:
            shown = shown.with_columns(pl.when(WHOLE).then(pl.lit("yes")).otherwise(pl.lit("a value")).alias(WHOLE))
        for row in shown.iter_rows():
            table.add_row(*("" if value is None else escape(str(value)) for value in row))
        console.print(table)
    many = sum(one.rows for one in found)
    if not many:
        console.print("No row was set aside.")
    elif many > most:
        console.print(
            f"{most:,} of {many:,} rows; --most shows more, `ionbeam quarantine list` the files", highlight=False
        )


def _true_reason_first(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with what their source says of each before what follows from it: what cannot be split has no time."""
    import polars as pl

    if "x_problem" not in rows.columns:
        return rows
    return rows.with_columns(pl.concat_str("x_problem", REASON, separator="; ", ignore_nulls=True).alias(REASON)).drop(
        "x_problem"
    )


def _found(sources: Sequence[str] | None, start: str | None, end: str | None) -> tuple[Platform, list[SetAside]]:
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    first, last = asked_range(start, end)
    found = []
    for name in sources or platform.config.sources:
        dataset = platform.dataset(platform.source(name).dataset)
        found += set_aside(platform, name, first or dataset.start, last or platform.now())
    return platform, found
