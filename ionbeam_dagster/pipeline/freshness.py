"""Whether sources and datasets are as new as they should be by now, whatever ran or did not run.

Belongs here: what is late, in a sentence each, from what the ledger has and the clock says. Does not belong here: what
fails and since when (agenda), stations (heard.py), or where it is shown.

A run that goes well says little: it may have been of a window of long ago, or have found nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import DAY, Window
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.lately import lately
from ionbeam_dagster.pipeline.platform import Platform

_WINDOWS = 4
"""Windows that may follow before one that is due is late."""
_PATIENCE = timedelta(minutes=10)
_SILENT = timedelta(hours=2)
"""A source may give nothing for so long."""


def source_is_late(platform: Platform, source: SourceSettings, now: datetime) -> str | None:
    """Why a source is not as new as it should be; None: it is, or it is not to give anything now."""
    allowed = source.window_lag + _WINDOWS * source.window_size + _PATIENCE
    found = lately(platform, source, now, 2 * max(allowed, _SILENT))
    if not found.is_to_give:
        return None
    first, last = platform.range_of(source)
    until = now if last is None else min(now, last)
    is_asked = source.kind == "pull" and not source.tells_changes
    reached = max(first, until - DAY - allowed) if found.collected is None else found.collected
    if is_asked and platform.config.automation.enabled and until - reached > allowed:
        return (
            f"no window behind {reached:%Y-%m-%d %H:%M} was collected, though one is due every "
            f"{in_short(source.window_size)}; `ionbeam doctor` tells what stands still"
        )
    if found.silent_for > max(allowed, _SILENT):
        since = until - found.silent_for if found.newest is None else found.newest
        return f"no row is newer than {since:%Y-%m-%d %H:%M}; `ionbeam gaps {source.name}` shows since when and why"
    return None


def dataset_is_late(platform: Platform, dataset: DatasetSettings, now: datetime) -> str | None:
    """Why a dataset is not as new as it should be: what was collected of it waits, or a source of it is late."""
    if platform.config.automation.enabled and (why := _waits(platform, dataset, now)):
        return why
    late = ((name, source_is_late(platform, platform.source(name), now)) for name in dataset.sources)
    return next((f"{name}: {why}" for name, why in late if why is not None), None)


def _waits(platform: Platform, dataset: DatasetSettings, now: datetime) -> str | None:
    allowed = _WINDOWS * dataset.span + _PATIENCE
    latest = platform.ledger.revisions(dataset.name, now - allowed - max(DAY, 2 * dataset.span), now)
    built = {one.revision.window: one for one in latest}
    newest = max(built, default=None)
    waiting = agenda.due_of(platform, "build", dataset.name, now)
    failing = [one.window for one in platform.ledger.attempts.open("build", dataset.name) if one.failures]
    late = sorted(window for window in {*failing, *(one.window for one in waiting)} if now - window.end > allowed)
    if late and (newest is None or late[-1] > newest):
        return (
            f"{len(late):,} windows could be built and are not, the newest of them {late[-1]}; `ionbeam doctor` tells "
            "what stands still or fails"
        )
    settled = [window for window, one in built.items() if now - one.built_at > allowed]
    return _export_is_late(platform, dataset, max(settled)) if settled else None


def _export_is_late(platform: Platform, dataset: DatasetSettings, window: Window) -> str | None:
    made = {one.format for one in platform.ledger.exports(dataset.name, [window], list(dataset.exports))}
    lacking = [format for format in dataset.exports if format not in made]
    if not lacking:
        return None
    return f"{window} was built and is not exported as {', '.join(lacking)}; `ionbeam status {dataset.name}` shows why"
