"""The sensor of sources whose windows change: files that were added, corrected or removed, days published again.

Belongs here: what changed, put on the agenda, bounded in each tick. A source that tells what changed is not asked by
the clock: a window is collected when there is something new to collect. One that is asked by the clock may have its
past windows looked at, or collected, again. Does not belong here: the collecting, which automation does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window, gaps, window_of, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline import agenda, corrections
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.sources.deadline import within

LOG = logging.getLogger(__name__)
MOST_OPEN = 5000
"""Windows of a source that stand on the agenda at once because they changed; the others wait in the cursor."""
LOOKS_A_TICK = 5
ANSWERED_WITHIN = timedelta(seconds=40)
"""A tick takes no longer; Dagster gives it up after 60 s, and what it asked would go on."""
LOOKED_AT_EVERY = timedelta(hours=1)
COLLECTED_WITHIN = timedelta(hours=3)
"""After its time to be collected again it is noticed at the latest."""


def is_looked_at_again(source: SourceSettings) -> bool:
    """Whether past windows of a source, which is asked by the clock, may change."""
    return _looked_back(source) > timedelta(0) and not source.tells_changes


def _looked_back(source: SourceSettings) -> timedelta:
    """How long after a window could first be collected it may be due again."""
    again = [after + COLLECTED_WITHIN for after in source.config.collect_again_after]
    return max([source.config.look_again_for, *again])


def changes_sensor(ionbeam: PlatformResource | WatchedPlatform, source: SourceSettings) -> dg.SensorDefinition:
    """Puts every window of `source` that overlaps what changed on the agenda.

    Its cursor holds the source's own, and the ranges that were not put there yet. Were it lost, the source would tell
    of everything that it has, and reconciliation finds what was missed.
    """
    settings = ionbeam.platform.config.automation

    @dg.sensor(
        name=f"{source.name}__changes",
        minimum_interval_seconds=settings.interval,
        default_status=dg.DefaultSensorStatus.RUNNING if settings.enabled else dg.DefaultSensorStatus.STOPPED,
        description=f"Has the windows of {source.name} collected whose content changed since they were collected.",
    )
    def changes(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        platform = ionbeam.platform
        known, waiting = _read(context.cursor)
        try:
            with within(ANSWERED_WITHIN):
                if source.corrects:  # before anything of it is collected because it changed
                    corrections.see(platform, source, platform.now())
                if source.tells_changes:
                    changed, cursor = platform.sources[source.name].changes(known)
                else:
                    changed, cursor = _looked_at_again(platform, source, known)
        except SourceError as error:
            return dg.SensorResult(skip_reason=dg.SkipReason(str(error)))
        now = platform.now()
        ended, open_yet = _parted(platform, source, [*waiting, *changed], now)
        room = MOST_OPEN - len(platform.ledger.attempts.open("collect", source.name))
        noted = list(islice(_newest_first(ended, source.window_size), max(room, 0)))
        mark = sha256(cursor.encode()).hexdigest()[:8]
        work = (agenda.replacing(platform, source.name, window, "its content changed", mark) for window in noted)
        agenda.note(platform, list(work), now)
        later = [part for stretch in ended for part in gaps(stretch, noted)]
        told = f"{len(noted)} windows changed" if noted else f"nothing of {source.name} changed"
        return dg.SensorResult(skip_reason=dg.SkipReason(told), cursor=_write(cursor, [*later, *open_yet]))

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
    try:
        return platform.sources[source.name].signature(raw.window) != raw.signature
    except SourceError as error:
        LOG.warning("%s %s: could not be asked whether it changed: %s", source.name, raw.window, error)
        return False


def _parted(
    platform: Platform, source: SourceSettings, changed: Iterable[Window], now: datetime
) -> tuple[list[Window], list[Window]]:
    """What changed as whole windows of the source: stretches of those that can be collected, and of those that cannot
    yet, because they have not ended. What lies before the source's start or after its end is left out."""
    reached = window_of(now - source.window_lag, source.window_size).start
    start, end = platform.range_of(source)
    ended, open_yet = [], []
    whole = (_whole_windows(one, source.window_size) for one in changed)
    for stretch in agenda.without_holes(platform, source, whole):
        ended += _part(stretch, start, min(reached, end or reached))
        open_yet += _part(stretch, max(start, reached), end or stretch.end)
    return ended, open_yet


def _whole_windows(stretch: Window, span: timedelta) -> Window:
    return Window(window_of(stretch.start, span).start, window_of(stretch.end - timedelta(microseconds=1), span).end)


def _part(stretch: Window, start: datetime, end: datetime) -> list[Window]:
    begin, finish = max(stretch.start, start), min(stretch.end, end)
    return [Window(begin, finish)] if begin < finish else []


def _newest_first(stretches: Iterable[Window], span: timedelta) -> Iterator[Window]:
    for stretch in sorted(stretches, reverse=True):
        end = stretch.end
        while end > stretch.start:
            yield Window(end - span, end)
            end -= span


def _read(cursor: str | None) -> tuple[str | None, list[Window]]:
    if not cursor:
        return None, []
    written = json.loads(cursor)
    return written["source"], [Window(*map(datetime.fromisoformat, ends)) for ends in written["waiting"]]


def _write(cursor: str, waiting: Iterable[Window]) -> str:
    ends = [[window.start.isoformat(), window.end.isoformat()] for window in waiting]
    return json.dumps({"source": cursor, "waiting": ends})
