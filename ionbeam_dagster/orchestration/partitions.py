"""Windows as Dagster partitions, and partitions as windows.

Belongs here: the partitions of an asset, how many of them one run takes, and how windows become runs. Does not belong
here: which windows are wanted (automation.py, runs.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import dagster as dg

from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.windows import (
    DAY,
    HOUR,
    KEY_FORMAT,
    WEEK,
    Window,
    check_span,
    merge,
    window_from_key,
    window_of,
)
from ionbeam_dagster.orchestration.internals import partition_tags

_TICK = timedelta(microseconds=1)


def partitions_for(
    span: timedelta, start: datetime, end: datetime | None = None, with_open: bool = False
) -> dg.TimeWindowPartitionsDefinition:
    """The windows of `span` from the one that holds `start` to the one that `end` closes, keyed as windows are.

    A window is a partition once it has ended; `with_open` adds the one that is still open. Raises ValueError for a span
    that Dagster would silently cut into other windows.
    """
    check_span(span)
    first = window_of(start, span).start
    last = window_of(end - _TICK, span).end if end else None
    return dg.TimeWindowPartitionsDefinition(
        start=first.strftime(KEY_FORMAT),
        end=last.strftime(KEY_FORMAT) if last else None,
        fmt=KEY_FORMAT,
        timezone="UTC",
        cron_schedule=cron_of(span),
        end_offset=int(with_open),
    )


def source_partitions(source: SourceSettings, dataset: DatasetSettings) -> dg.TimeWindowPartitionsDefinition:
    """The windows of a source; they begin where a window of its dataset does, so that no first window lacks a part."""
    aligned = window_of(source.start, max(source.window_size, dataset.span)).start
    return partitions_for(source.window_size, aligned, source.end, with_open=collects_open_window(source))


def dataset_partitions(dataset: DatasetSettings) -> dg.TimeWindowPartitionsDefinition:
    return partitions_for(dataset.span, dataset.start, dataset.end)


def cycle_partitions(dataset: DatasetSettings) -> dg.TimeWindowPartitionsDefinition:
    """The analysis cycles of a dataset, keyed as windows are."""
    last = cycle_of(dataset.end - _TICK).end if dataset.end else None
    return dg.TimeWindowPartitionsDefinition(
        start=cycle_of(dataset.start).key,
        end=last.strftime(KEY_FORMAT) if last else None,
        fmt=KEY_FORMAT,
        timezone="UTC",
        cron_schedule="0 3-21/6 * * *",
    )


def collects_open_window(source: SourceSettings) -> bool:
    """Whether the open window is collected again and again: the source is asked more often than its windows end, or
    clients send when they like."""
    return source.trigger_interval < source.window_size or source.sent


def windows_a_run(span: timedelta) -> int:
    """How many windows one run takes: a day of them, or 24 where that is more. It bounds what a retry repeats."""
    return max(DAY // span, 24)


def windows_of(keys: Iterable[str], span: timedelta) -> list[Window]:
    """The windows behind partition keys, in order of time."""
    return sorted(window_from_key(key, span) for key in keys)


def contiguous_runs(windows: Iterable[Window], span: timedelta) -> Iterator[Window]:
    """`windows`, or stretches of them, as stretches without holes, each short enough for one run."""
    longest = windows_a_run(span) * span
    for stretch in merge(windows):
        start = stretch.start
        while start < stretch.end:
            end = min(start + longest, stretch.end)
            yield Window(start, end)
            start = end


def tags_of_run(stretch: Window, span: timedelta) -> dict[str, str]:
    """The tags of a run for all windows of `span` in `stretch`."""
    return partition_tags(stretch.key, Window(stretch.end - span, stretch.end).key)


def cron_of(span: timedelta) -> str:
    """The cron expression of the moments at which windows of `span` begin."""
    if span == WEEK:
        return "0 0 * * 1"
    if span == DAY:
        return "0 0 * * *"
    if span >= HOUR:
        return f"0 */{span // HOUR} * * *" if span > HOUR else "0 * * * *"
    return f"*/{span // timedelta(minutes=1)} * * * *"
