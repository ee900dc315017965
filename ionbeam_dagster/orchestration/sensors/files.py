"""The sensor of sources whose windows change: files that were added, mended or removed, days published again.

Belongs here: run requests for the windows whose content changed. A source that tells what changed is not asked by the
clock: a window is collected when there is something new to collect. One that is asked by the clock may have its past
windows looked at, or collected, again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window, gaps, merge, window_of, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.orchestration.partitions import contiguous_runs, tags_of_run
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.sources import NOT_KNOWN

RUNS_A_TICK = 10
LOOKS_A_TICK = 5
LOOKED_AT_EVERY = timedelta(hours=1)
COLLECTED_WITHIN = timedelta(hours=3)
"""After its time to be collected again; a window that fails for so long is given up."""


def is_looked_at_again(source: SourceSettings) -> bool:
    """Whether past windows of a source, which is asked by the clock, may change."""
    return _looked_back(source) > timedelta(0) and not source.tells_changes


def _looked_back(source: SourceSettings) -> timedelta:
    """How long after a window could first be collected it may be due again."""
    again = [after + COLLECTED_WITHIN for after in source.config.collect_again_after]
    return max([source.config.look_again_for, *again])


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
        description=f"Collects the windows of {source.name} whose content changed since they were collected.",
    )
    def changes(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        known, waiting = _read(context.cursor)
        try:
            if source.tells_changes:
                changed, cursor = ionbeam.platform.sources[source.name].changes(known)
            else:
                changed, cursor = _looked_at_again(ionbeam.platform, source, known)
        except SourceError as error:
            return dg.SkipReason(str(error))
        ended, open_yet = _by_partition([*waiting, *changed], source, partitions)
        runs = list(islice(contiguous_runs(ended, source.window_size), RUNS_A_TICK))
        later = [part for stretch in ended for part in gaps(stretch, runs)]
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(asset_selection=list(assets), tags=tags_of_run(run, source.window_size)) for run in runs
            ],
            skip_reason=None if runs else dg.SkipReason(f"nothing of {source.name} changed"),
            cursor=_write(cursor, [*later, *open_yet]),
        )

    return changes


def _looked_at_again(platform: Platform, source: SourceSettings, cursor: str | None) -> tuple[list[Window], str]:
    """The windows that are to be collected again, of a few that were not looked at for an hour, and a new cursor: when
    each was looked at last."""
    now = platform.now()
    looked = {key: datetime.fromisoformat(at) for key, at in json.loads(cursor or "{}").items()}
    until = now - source.window_lag
    past = windows_between(until - _looked_back(source), until, source.window_size)
    collected = {
        window.key: raw
        for window in past
        if window.end <= until and (raw := platform.ledger.raw(source.name, window)) and raw.purged is None
    }
    never = datetime.min.replace(tzinfo=UTC)
    waiting = sorted(collected, key=lambda key: looked.get(key, never))
    due = [key for key in waiting if now - looked.get(key, never) >= LOOKED_AT_EVERY][:LOOKS_A_TICK]
    changed = [collected[key].window for key in due if _is_another(platform, source, collected[key], until)]
    looked = {key: at for key, at in looked.items() if key in collected} | dict.fromkeys(due, now)
    return changed, json.dumps({key: at.isoformat() for key, at in looked.items()})


def _is_another(platform: Platform, source: SourceSettings, raw: RawPartition, until: datetime) -> bool:
    """Whether a window would come out differently than it was collected or, where the source cannot tell, could."""
    moments = [raw.window.end + after for after in source.config.collect_again_after]
    passed = [moment + source.window_lag for moment in moments if moment <= until]
    if passed:
        found = platform.files.found(raw.path)
        if found is not None and found.modified < max(passed):
            return True
    if raw.window.end + source.config.look_again_for <= until:
        return False
    signature = platform.sources[source.name].signature(raw.window)
    return signature != raw.signature and not signature.startswith(NOT_KNOWN)


def _by_partition(
    changed: Iterable[Window], source: SourceSettings, partitions: dg.TimeWindowPartitionsDefinition
) -> tuple[list[Window], list[Window]]:
    """What changed as whole windows of the source: stretches of those that are partitions, and of those that are not
    yet, because they have not ended. What lies before the source's start or after its end is left out."""
    last = partitions.get_last_partition_window()
    reached = last.end if last else partitions.start
    ended, open_yet = [], []
    for stretch in merge(_whole_windows(one, source.window_size) for one in changed):
        ended += _part(stretch, partitions.start, reached)
        open_yet += _part(stretch, reached, partitions.end or stretch.end)
    return ended, open_yet


def _whole_windows(stretch: Window, span: timedelta) -> Window:
    return Window(window_of(stretch.start, span).start, window_of(stretch.end - timedelta(microseconds=1), span).end)


def _part(stretch: Window, start: datetime, end: datetime) -> list[Window]:
    begin, finish = max(stretch.start, start), min(stretch.end, end)
    return [Window(begin, finish)] if begin < finish else []


def _read(cursor: str | None) -> tuple[str | None, list[Window]]:
    if not cursor:
        return None, []
    written = json.loads(cursor)
    return written["source"], [Window(*map(datetime.fromisoformat, ends)) for ends in written["waiting"]]


def _write(cursor: str, waiting: Iterable[Window]) -> str:
    ends = [[window.start.isoformat(), window.end.isoformat()] for window in waiting]
    return json.dumps({"source": cursor, "waiting": ends})
