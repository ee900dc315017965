"""The sensor of sources that tell what changed: files that were added, mended or removed.

Belongs here: run requests for the windows whose content changed. Such a source is not asked by the clock: a window is
collected when there is something new to collect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.windows import Window, merge, windows_between
from ionbeam_dagster.orchestration.internals import partition_tags
from ionbeam_dagster.orchestration.partitions import contiguous_runs
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.sources import SourceError

RUNS_A_TICK = 10


def tells_changes(source: SourceSettings) -> bool:
    """Whether a source has ``changes(cursor) -> (ranges, cursor)``: what changed since then, and the next cursor."""
    return hasattr(source.type, "changes")


def changes_sensor(
    ionbeam: PlatformResource | WatchedPlatform,
    source: SourceSettings,
    partitions: dg.TimeWindowPartitionsDefinition,
    assets: Sequence[dg.AssetKey],
) -> dg.SensorDefinition:
    """Requests runs of `assets` for every window of `source` that overlaps what changed.

    Its cursor holds the source's own and the ranges that were not requested yet: a tick requests a bounded number of
    runs, and Dagster keeps the cursor only when it has kept the requests.
    """
    settings = ionbeam.platform.config.automation

    @dg.sensor(
        name=f"{source.name}__changes",
        target=dg.AssetSelection.assets(*assets),
        minimum_interval_seconds=settings.interval,
        default_status=dg.DefaultSensorStatus.RUNNING if settings.enabled else dg.DefaultSensorStatus.STOPPED,
        description=f"Collects the windows of {source.name} whose files were added or changed.",
    )
    def changes(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        known, waiting = _read(context.cursor)
        try:
            changed, cursor = ionbeam.platform.sources[source.name].changes(known)  # type: ignore[attr-defined]
        except SourceError as error:
            return dg.SkipReason(str(error))
        windows = _existing(merge([*waiting, *changed]), source, partitions)
        runs = contiguous_runs(windows, source.window_size)
        requested = list(islice(runs, RUNS_A_TICK))
        later = merge(window for run in runs for window in run)
        reason = None if requested else dg.SkipReason(f"nothing of {source.name} changed")
        return dg.SensorResult(
            run_requests=[_request(run, assets) for run in requested],
            skip_reason=reason,
            cursor=_write(cursor, later),
        )

    return changes


def _existing(
    ranges: Iterable[Window], source: SourceSettings, partitions: dg.TimeWindowPartitionsDefinition
) -> Iterator[Window]:
    """The windows that overlap `ranges` and are partitions: not before the source's start, and ended."""
    for stretch in ranges:
        for window in windows_between(stretch.start, stretch.end, source.window_size):
            if partitions.has_partition_key(window.key):
                yield window


def _request(run: Sequence[Window], assets: Sequence[dg.AssetKey]) -> dg.RunRequest:
    return dg.RunRequest(asset_selection=list(assets), tags=partition_tags(run[0].key, run[-1].key))


def _read(cursor: str | None) -> tuple[str | None, list[Window]]:
    if not cursor:
        return None, []
    written = json.loads(cursor)
    return written["source"], [Window(*map(datetime.fromisoformat, ends)) for ends in written["waiting"]]


def _write(cursor: str, waiting: Iterable[Window]) -> str:
    ends = [[window.start.isoformat(), window.end.isoformat()] for window in waiting]
    return json.dumps({"source": cursor, "waiting": ends})
