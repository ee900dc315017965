"""Which windows of a source are to be collected, and why.

Belongs here: the triggers of the clock, and whether what was collected is still what the source would give. Does not
belong here: asking the source (pipeline/collect.py), or who notices that something changed (sensors, reconciliation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import reduce

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import EPOCH, Window, common, gaps, merge, window_of, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.agenda.tokens import Changed, Lost, Replaces, Triggered, read_token
from ionbeam_dagster.pipeline.agenda.work import Work
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt


def last_trigger(source: SourceSettings, window: Window, now: datetime) -> datetime | None:
    """The latest moment, not after `now`, at which `source` was to be asked for `window`; None: there was none yet.

    Triggers follow one another every `trigger_interval` from the epoch on, `window_lag` late. Triggers finer than the
    window ask for the open window again and again, and a last time when it ends; coarser ones ask for all the windows
    that ended since the trigger before.
    """
    clock = now - source.window_lag
    interval = source.trigger_interval
    if interval < source.window_size:
        moment = min(EPOCH + (clock - EPOCH) // interval * interval, window.end)
        reached = moment > window.start
    else:
        moment = EPOCH - (EPOCH - window.end) // interval * interval
        reached = moment <= clock
    return moment + source.window_lag if reached else None


def windows_in_lookback(platform: Platform, source: SourceSettings, now: datetime) -> Iterator[tuple[Window, datetime]]:
    """The windows of the last while that `source` was to be asked for by the clock, each with its last trigger."""
    until = now - source.window_lag
    since = until - max(platform.config.automation.lookback, source.window_size)
    for window in windows_between(since, until, source.window_size):
        if window.end > since and has_window(platform, source, window):
            triggered = last_trigger(source, window, now)
            if triggered is not None:
                yield window, triggered


def has_window(platform: Platform, source: SourceSettings, window: Window) -> bool:
    """Whether a window is one of a source: not before its start, from which on its dataset's windows are whole."""
    first, end = platform.range_of(source)
    return window.start >= first and (end is None or window.start < end)


def triggered(platform: Platform, source: SourceSettings, now: datetime) -> Iterator[Work]:
    """Windows of which a trigger moment has passed since they were last collected."""
    for window, triggered in windows_in_lookback(platform, source, now):
        known = platform.ledger.raw(source.name, window)
        if _is_older(platform, known, triggered) or _lacks_its_end(platform, known, now):
            yield Work("collect", source.name, window, str(Triggered(triggered)), f"to be collected since {triggered}")


def holes(platform: Platform, source: SourceSettings, range: Window) -> list[Window]:
    """The stretches of `range` of which a source says that it has nothing there, and of which nothing was collected:
    none of their windows is to be.

    They are whole windows of the dataset, and whole cycles where it has files of these, so that what lies beside the
    rows before and behind a hole is complete. Where several sources feed a dataset, each has to say of every window
    that it collected it, or the others' rows would wait: there all of them say that they have nothing.
    """
    dataset = platform.dataset(source.dataset)
    feeding = [platform.source(name) for name in dataset.sources]
    if any(one.sent for one in feeding):
        return []
    span = max(dataset.span, *(one.window_size for one in feeding))
    nothing = reduce(common, (platform.sources[one.name].nothing_in(range) for one in feeding))
    told = [_whole(hole, span, in_cycles=bool(dataset.cycle_exports)) for hole in nothing]
    whole = [one for one in told if one and one.overlaps(range)]
    if not whole:
        return []
    reach = Window(whole[0].start, whole[-1].end)
    collected = [window for one in feeding for window in collected_of(platform, one, reach)]
    unit = source.window_size if len(feeding) == 1 else span  # of a window that one has collected the others tell, too
    left = [_whole(part, unit, in_cycles=False) for one in whole for part in gaps(one, collected)]
    return [Window(max(one.start, range.start), min(one.end, range.end)) for one in left if one and one.overlaps(range)]


def without_holes(platform: Platform, source: SourceSettings, ranges: Iterable[Window]) -> list[Window]:
    """What of `ranges` is to be collected where it changed: all but the source's holes."""
    merged = merge(ranges)
    if not merged:
        return []
    left_out = holes(platform, source, Window(merged[0].start, merged[-1].end))
    return [part for one in merged for part in gaps(one, left_out)]


def collected_of(platform: Platform, source: SourceSettings, range: Window) -> list[Window]:
    """What was collected of a source in `range`, and perhaps beside it; also what retention purged."""
    ledger = platform.ledger
    kept = [raw.window for raw in ledger.raws(source.name, range.end) if raw.window.end > range.start]
    claims = ledger.claims_between(source.dataset, range.start, range.end)
    return kept + [claim.collected for claim in claims if claim.source == source.name]


def _whole(hole: Window, span: timedelta, in_cycles: bool) -> Window | None:
    """The windows of `span` that lie in a hole, or in the cycles in it; None where none does."""
    before = hole.start - timedelta.resolution
    begins, ends = (cycle_of(before).end, cycle_of(hole.end).start) if in_cycles else (hole.start, hole.end)
    start = window_of(begins - timedelta.resolution, span).end
    end = window_of(ends, span).start
    return Window(start, end) if start < end else None


def is_to_come(opened: Attempt, now: datetime) -> bool:
    """Whether a window, or the trigger that it was noted for, is still to come."""
    token = read_token(opened.token)
    return opened.window.start >= now or (isinstance(token, Triggered) and token.at > now)


def _is_older(platform: Platform, known: RawPartition | None, triggered: datetime) -> bool:
    """Whether a raw partition is not there, or its source was asked before `triggered`; what retention took is not
    missed."""
    if known is not None and known.purged is not None:
        return False
    found = platform.files.found(known.path) if known is not None else None
    return known is None or found is None or (known.asked_at or found.modified) < triggered


def _lacks_its_end(platform: Platform, known: RawPartition | None, now: datetime) -> bool:
    """Whether a window is over, with the lag of its source, and was asked for before that."""
    if known is None or known.purged is not None:
        return False
    over = known.window.end + platform.source(known.source).window_lag
    if now < over:
        return False
    if known.asked_at is not None:
        return known.asked_at < over
    return any(claim.collected.end < known.window.end for claim in platform.ledger.claims_of([known.ingestion]))


def is_lost(platform: Platform, known: RawPartition | None) -> bool:
    """Whether the file of a raw partition is gone, and retention did not take it."""
    return known is not None and known.purged is None and not platform.files.exists(known.path)


def needs_collecting(platform: Platform, source: str, window: Window) -> bool:
    """Whether a window was never collected to its end, lost its raw partition, or would come out differently now: also
    where it keeps rows that the source no longer gives, and now says that they are to go.

    A raw partition that retention purged is not lost: all that is made of it is there.
    """
    known = platform.ledger.raw(source, window)
    if known is None or is_lost(platform, known) or _lacks_its_end(platform, known, platform.now()):
        return True
    feed = platform.sources[source]
    try:
        return known.signature != feed.signature(window) or (known.kept > 0 and feed.answers_whole(window))
    except SourceError:
        return True  # collecting it tells the reason


def still_to_collect(platform: Platform, source: str, opened: Attempt, now: datetime) -> Work | None:
    window = opened.window
    if not has_window(platform, platform.source(source), window):
        return None
    known = platform.ledger.raw(source, window)
    match read_token(opened.token):
        case Lost():
            needed = known is None or is_lost(platform, known)
        case Changed():
            needed = needs_collecting(platform, source, window)
        case Replaces(written):
            needed = known is None or known.purged is None or written is None
        case Triggered(at):
            needed = _is_older(platform, known, at) or _lacks_its_end(platform, known, now)
    return Work("collect", source, window, opened.token, opened.reason) if needed else None


def replacing(platform: Platform, source: str, window: Window, reason: str, mark: str = "") -> Work:
    """The work of collecting a window again, whatever its raw partition holds; of another `mark` it is other work."""
    known = platform.ledger.raw(source, window)
    found = platform.files.found(known.path) if known is not None else None
    token = Replaces(found.modified if found is not None else None, mark)
    return Work("collect", source, window, str(token), reason)
