"""`ionbeam gaps`: what of a range was collected, and what is missing.

Belongs here: the strip of time, and the list of gaps with how to fill each. Does not belong here: the states of dataset
windows (status.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ionbeam_dagster.cli.holes import out_of_time, told_of_holes
from ionbeam_dagster.cli.kept import gone, no_longer_given
from ionbeam_dagster.cli.quarantine import clock_lines, left_out, lines_about, set_aside, set_aside_rows
from ionbeam_dagster.cli.status import print_failing, sources_of
from ionbeam_dagster.cli.terminal import (
    FROM,
    TO,
    asked_range,
    console,
    load_config,
)
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.decisions import coverage
from ionbeam_dagster.domain.windows import Window, merge, window_of
from ionbeam_dagster.domain.windows import gaps as gaps_of

if TYPE_CHECKING:
    from ionbeam_dagster.pipeline.platform import Platform
    from ionbeam_dagster.stores.ledger.attempts import Attempt

SOURCES_OR_DATASETS = typer.Argument(help="Sources, or datasets (their sources are shown); all when none is named.")

_LISTED = 20
"""Gaps that are listed one by one; the strip shows all of them."""


def gaps(
    names: Annotated[list[str] | None, SOURCES_OR_DATASETS] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
) -> None:
    """Show what of a range was collected and what is missing: a strip of time, and each gap with how to fill it.

    Without --from and --to: from the first to the last moment of which anything was collected, or could not be.

    Example: `ionbeam gaps netatmo --from 2026-06-01 --to 2026-07-01`
    """
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    asked = asked_range(start, end)
    for source in sources_of(platform, names or list(platform.config.datasets)):
        _show_gaps(platform, source, *asked)


def _show_gaps(platform: Platform, source: str, start: datetime | None, end: datetime | None) -> None:
    from ionbeam_dagster.health.heard_words import percent
    from ionbeam_dagster.pipeline.agenda import from_the_future, holes

    settings = platform.source(source)
    dataset = platform.dataset(settings.dataset)
    first = window_of(start, dataset.span).start if start else dataset.start
    now = datetime.now(UTC)  # what has not happened yet is no gap
    last = min(end or now, settings.end or now, now)
    claims = platform.ledger.claims_between(dataset.name, first, last)
    suspect = {claim.id for claim in from_the_future(platform, settings) if not settings.sent}
    collected = merge(claim.collected for claim in claims if claim.source == source and claim.id not in suspect)
    came = "heard at the door" if settings.kind == "door" else "collected"
    failing = _failing(platform, source, start, last)
    tried = [*collected, *(one.window for one in failing)]
    begun = max(start, settings.start) if start else min((one.start for one in tried), default=None)
    until = last if end else max((min(one.end, last) for one in tried), default=None)
    if begun is None or until is None or until <= begun:
        nothing_came = f"{source}: nothing was {came} in this range; its start is {settings.start:%Y-%m-%d %H:%M}"
        told = out_of_time(platform, source, start, end) or nothing_came
        console.print(told, highlight=False, markup=False)
        for line in [*clock_lines(platform, source), *left_out(platform, source), *gone(platform, source)]:
            console.print(line, style="yellow", highlight=False, markup=False)
        print_failing(platform, failing)
        return
    asked = Window(begun, until)
    nothing = holes(platform, settings, asked)
    missing = gaps_of(asked, [*collected, *nothing])
    to_collect = asked.span - sum((hole.span for hole in nothing), timedelta())
    lost = sum((gap.span for gap in missing), timedelta())
    done = "listened to at the door" if settings.kind == "door" else "collected"
    share = f"{percent(1.0 - lost / to_collect)} {done}" if to_collect else f"nothing to be {done}"
    told = "no gap" if not missing else f"{len(missing)} gap{'s' * (len(missing) > 1)}"
    if aside := set_aside(platform, source, begun, until):
        told += f", [yellow]{set_aside_rows(aside)}[/yellow]"
    console.print(
        f"\n[bold]{source}[/bold] {begun:%Y-%m-%d %H:%M} .. {until:%Y-%m-%d %H:%M}: {share}, {told}",
        highlight=False,
    )
    console.print(_strip(asked, missing, nothing, max(10, min(console.width, 120) - 2)))
    for line in [
        *told_of_holes(source, nothing),
        *lines_about(platform, source, [asked]),
        *no_longer_given(platform, source, asked),
        *gone(platform, source),
        *clock_lines(platform, source),
        *left_out(platform, source),
    ]:
        console.print(line, style="yellow", highlight=False, markup=False)
    print_failing(platform, failing)
    if missing:
        fill = {"external": "ionbeam reingest", "door": "", "pull": "ionbeam run"}[settings.kind]
        console.print(_gaps_table(missing, dataset, fill, source))


def _failing(platform: Platform, source: str, start: datetime | None, end: datetime) -> list[Attempt]:
    """What of a source fails between `start` (None: whenever) and `end`."""
    from ionbeam_dagster.pipeline.agenda import failing

    found = [one for one in failing(platform, platform.now()) if (one.stage, one.product) in _stages_of(source)]
    return [one for one in found if one.window.start < end and (start is None or one.window.end > start)]


def _stages_of(source: str) -> set[tuple[str, str]]:
    return {("collect", source), ("ingest", source)}


def _strip(asked: Window, missing: Sequence[Window], nothing: Sequence[Window], width: int) -> Text:
    """The range as a bar: solid where it was collected, lighter where partly, red dots where not at all; a dash where
    nothing is there."""
    strip = Text(" ")
    step = asked.span / width
    ends = [gap.end for gap in missing]
    for cell in range(width):
        slice = Window(asked.start + cell * step, asked.start + (cell + 1) * step)
        if any(hole.covers(slice) for hole in nothing):
            strip.append("-", style="dim")
            continue
        within = missing[bisect_right(ends, slice.start) : bisect_right(ends, slice.end) + 1]
        clipped = [
            Window(max(gap.start, slice.start), min(gap.end, slice.end)) for gap in within if gap.overlaps(slice)
        ]
        share = coverage(slice, clipped)
        character = "█" if share > 0.999 else "▓" if share > 0.6 else "▒" if share > 0.3 else "░" if share > 0 else "·"
        strip.append(character, style="green" if share > 0.999 else "yellow" if share > 0 else "red")
    return strip


def _gaps_table(missing: Sequence[Window], dataset: DatasetSettings, command: str, source: str) -> Table:
    table = Table("from", "to", "missing", f"windows of {dataset.name}", "fill it with")
    longest = sorted(sorted(missing, key=lambda gap: gap.span, reverse=True)[:_LISTED])
    for gap in longest:
        first, last = window_of(gap.start, dataset.span), window_of(gap.end - timedelta.resolution, dataset.span)
        fill = f"{command} {source} {gap.as_options}" if command else "what its clients still have"
        windows = (last.end - first.start) // dataset.span
        span = timedelta(seconds=round(gap.span.total_seconds()))
        table.add_row(f"{gap.start:%Y-%m-%d %H:%M}", f"{gap.end:%Y-%m-%d %H:%M}", str(span), f"{windows:,}", fill)
    if len(missing) > len(longest):
        table.caption = f"the {len(longest)} longest of {len(missing):,} gaps"
    return table
