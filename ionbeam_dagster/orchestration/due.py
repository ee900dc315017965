"""Conditions that ask the ledger: which windows have work to be done, whatever Dagster remembers.

Belongs here: `Due`, a condition that is true while there is work (so that a lost cursor, down-time or a fresh Dagster
instance heals by itself) and that asks for the same work a bounded number of times (so that what cannot succeed is not
tried for ever), and its kinds. Does not belong here: how they are combined with what Dagster knows (automation.py).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.cycles import CYCLE
from ionbeam_dagster.domain.decisions import Build
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import EPOCH, Window, window_from_key, window_of, windows_between
from ionbeam_dagster.orchestration.internals import keys_of, subset_of
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline.build import assess_due
from ionbeam_dagster.pipeline.cycles import outlook_of
from ionbeam_dagster.pipeline.ingest import waiting_raws
from ionbeam_dagster.pipeline.platform import Platform

TRIES = 2
TRIED_AGAIN_AFTER = timedelta(minutes=10)
MOST_A_TICK = 500
"""Windows that one asset asks for in one tick, newest first; the rest follow in the next ones."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: the work (a token that changes when the work does), how often, and when last."""

    token: str
    times: int
    last: datetime


class Due(dg.AutomationCondition[dg.AssetKey]):
    """True for windows for which `token` names work that was not asked for in vain too often.

    To stand last in its chain of conditions, so that being true is being requested.
    """

    def __init__(self, ionbeam: PlatformResource | WatchedPlatform, span: timedelta) -> None:
        self._ionbeam = ionbeam
        self._span = span

    @abstractmethod
    def token(self, platform: Platform, window: Window, now: datetime) -> str | None:
        """What there is to do for `window`, as a text that stays the same while the work does; None: nothing."""

    def candidates(self, context: dg.AutomationContext[dg.AssetKey], platform: Platform) -> Iterable[Window]:
        """The windows to look at: those that the conditions before this one left."""
        return (window_from_key(key, self._span) for key in keys_of(context.candidate_subset))

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        platform, now = self._ionbeam.platform, context.evaluation_time
        asked = _read(context.cursor)
        candidates = sorted(self._open_to_request(context, platform), reverse=True)
        work = {window.key: token for window in candidates if (token := self.token(platform, window, now)) is not None}
        wanted = [key for key, token in work.items() if _worth_asking(asked.get(key), token, now)][:MOST_A_TICK]
        kept = {key: entry for key, entry in asked.items() if key in work or self._still(platform, key, entry, now)}
        for key in wanted:
            times = kept[key].times + 1 if key in kept and kept[key].token == work[key] else 1
            kept[key] = Asked(work[key], times, now)
        return dg.AutomationResult(context, subset_of(context, wanted), cursor=_write(kept))

    def _open_to_request(self, context: dg.AutomationContext[dg.AssetKey], platform: Platform) -> Iterator[Window]:
        if context.candidate_subset.is_empty:
            return
        looked_at = {window.key: window for window in self.candidates(context, platform)}
        open_ones = subset_of(context, looked_at).compute_intersection(context.candidate_subset)
        yield from (looked_at[key] for key in keys_of(open_ones))

    def _still(self, platform: Platform, key: str, entry: Asked, now: datetime) -> bool:
        return self.token(platform, window_from_key(key, self._span), now) == entry.token


class ToCollect(Due):
    """The source is to be asked for the window: a trigger moment has passed since it last was."""

    def __init__(
        self, ionbeam: PlatformResource | WatchedPlatform, source: SourceSettings, lookback: timedelta
    ) -> None:
        super().__init__(ionbeam, source.window_size)
        self._source = source
        self._reach = max(lookback, source.window_size)

    @property
    def name(self) -> str:
        return "to_collect"

    @property
    def description(self) -> str:
        late = f", {self._source.window_lag} late" if self._source.window_lag else ""
        return f"Triggered (every {self._source.trigger_interval}{late}) since it was last collected"

    def candidates(self, context: dg.AutomationContext[dg.AssetKey], platform: Platform) -> Iterable[Window]:
        until = context.evaluation_time - self._source.window_lag
        return windows_between(until - self._reach, until, self._span)

    def token(self, platform: Platform, window: Window, now: datetime) -> str | None:
        triggered = last_trigger(self._source, window, now)
        if triggered is None or window.end <= now - self._source.window_lag - self._reach:
            return None
        known = platform.ledger.raw(self._source.name, window)
        if known is not None and known.purged is not None:
            return None
        found = platform.files.found(known.path) if known is not None else None
        return triggered.isoformat() if found is None or found.modified < triggered else None


class ToIngest(Due):
    """The window's raw partition has not been ingested as it is now."""

    def __init__(self, ionbeam: PlatformResource | WatchedPlatform, source: SourceSettings) -> None:
        super().__init__(ionbeam, source.window_size)
        self._source = source

    @property
    def name(self) -> str:
        return "to_ingest"

    @property
    def description(self) -> str:
        return "The raw partition has not been ingested as it is now"

    def candidates(self, context: dg.AutomationContext[dg.AssetKey], platform: Platform) -> Iterable[Window]:
        if self._source.kind == "external":
            return platform.ledger.waiting(self._source.name)
        return super().candidates(context, platform)

    def token(self, platform: Platform, window: Window, now: datetime) -> str | None:
        raw = not_ingested(platform, self._source.name, window)
        return raw.ingestion if raw else None


class ToBuild(Due):
    """`decide` says Build."""

    def __init__(self, ionbeam: PlatformResource | WatchedPlatform, dataset: str, span: timedelta) -> None:
        super().__init__(ionbeam, span)
        self._dataset = dataset
        self._looked = False

    @property
    def name(self) -> str:
        return "to_build"

    @property
    def description(self) -> str:
        return "What arrived for the window can, and should, be built now"

    def candidates(self, context: dg.AutomationContext[dg.AssetKey], platform: Platform) -> Iterable[Window]:
        """The windows that are due and whose answer can be another one than when it was asked for last.

        The first time all that are due: the policy may be another one than when they were postponed.
        """
        now = context.evaluation_time if self._looked else None
        self._looked = True
        return platform.ledger.due(self._dataset, now)

    def token(self, platform: Platform, window: Window, now: datetime) -> str | None:
        decision = assess_due(platform, self._dataset, window, now)
        return decision.inputs if isinstance(decision, Build) else None


class ToExport(Due):
    """The window has a revision that was not exported in this format."""

    def __init__(self, ionbeam: PlatformResource | WatchedPlatform, dataset: str, format: str, span: timedelta) -> None:
        super().__init__(ionbeam, span)
        self._dataset = dataset
        self._format = format

    @property
    def name(self) -> str:
        return "to_export"

    @property
    def description(self) -> str:
        return f"The latest revision has not been exported as {self._format}"

    def token(self, platform: Platform, window: Window, now: datetime) -> str | None:
        latest = platform.ledger.latest_revision(self._dataset, window)
        if latest is None:
            return None
        made = platform.ledger.export(self._dataset, window, self._format)
        return None if made and made.number == latest.revision.number else f"r{latest.revision.number}"


class ToExportCycle(Due):
    """The analysis cycle's file is to be made, or made again."""

    def __init__(self, ionbeam: PlatformResource | WatchedPlatform, dataset: str, format: str) -> None:
        super().__init__(ionbeam, CYCLE)
        self._dataset = dataset
        self._format = format

    @property
    def name(self) -> str:
        return "to_export_cycle"

    @property
    def description(self) -> str:
        return (
            "The windows of the cycle, or those that were built until its cut-off, are not in its file as they are now"
        )

    def token(self, platform: Platform, window: Window, now: datetime) -> str | None:
        outlook = outlook_of(platform, self._dataset, self._format, window, now)
        if not outlook.due:
            return None
        return " ".join(f"{held.key}r{number}" for held, number in sorted(outlook.holds.items()))


def not_ingested(platform: Platform, source: str, window: Window) -> RawPartition | None:
    """The raw partition of a window (of several that were sent: the last), if it is not ingested as it is now."""
    if platform.source(source).kind == "external":
        return next(reversed(waiting_raws(platform, source, window)), None)
    raw = platform.ledger.raw(source, window)
    if raw is None:
        return None
    dataset = platform.dataset(platform.source(source).dataset)
    claims = platform.ledger.claims(dataset.name, window_of(window.start, dataset.span))
    return None if any(claim.id == raw.ingestion for claim in claims) else raw


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


def _worth_asking(before: Asked | None, token: str, now: datetime) -> bool:
    if before is None or before.token != token:
        return True
    return before.times < TRIES and now - before.last >= TRIED_AGAIN_AFTER


def _read(cursor: str | None) -> dict[str, Asked]:
    written = json.loads(cursor) if cursor else {}
    return {key: Asked(token, times, datetime.fromisoformat(last)) for key, (token, times, last) in written.items()}


def _write(asked: dict[str, Asked]) -> str:
    return json.dumps({key: (entry.token, entry.times, entry.last.isoformat()) for key, entry in asked.items()})
