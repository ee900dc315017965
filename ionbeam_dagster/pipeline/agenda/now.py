"""What may be done now, of each product.

Belongs here: which stages there are of what, and how what the ledger tells of by itself and what is open become one
list. It costs what is open, not what exists. Does not belong here: what is work of one stage (a module each).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from ionbeam_dagster.domain.cycles import CYCLE
from ionbeam_dagster.domain.decisions import Build, Wait
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.agenda.building import assess, assess_due, building, to_build
from ionbeam_dagster.pipeline.agenda.collecting import is_to_come, still_to_collect, triggered
from ionbeam_dagster.pipeline.agenda.exporting import to_export, to_export_cycle
from ionbeam_dagster.pipeline.agenda.ingesting import to_ingest
from ionbeam_dagster.pipeline.agenda.work import Stage, Work, note
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt

MOST = 500
"""Windows of one product that are given out at once, newest first; the rest follow."""


def due(platform: Platform, now: datetime) -> list[Work]:
    """All that may be done now: of each product the newest windows first, at most MOST of them."""
    return [work for stage, of in products(platform) for work in due_of(platform, stage, of, now)]


def products(platform: Platform) -> list[tuple[Stage, str]]:
    """What there may be work of, in the order in which it is done."""
    found: list[tuple[Stage, str]] = []
    for name, source in platform.config.sources.items():
        found += [("collect", name), ("ingest", name)] if source.kind == "pull" else [("ingest", name)]
    for name, dataset in platform.config.datasets.items():
        found += [("build", name), *(("export", f"{name}/{format}") for format in dataset.exports)]
        found += [("export_cycle", f"{name}/{format}") for format in dataset.cycle_exports]
    return found


def due_of(platform: Platform, stage: Stage, of: str, now: datetime, afresh: bool = False) -> list[Work]:
    """What may be done now of one product, at most MOST windows: what was tried less often first, then the newest.

    Work that was tried in vain waits (stores/ledger/attempts.py). With `afresh` also dataset windows are looked at that
    were postponed: the policy may be another one than then.
    """
    opened = {one.window: one for one in platform.ledger.attempts.open(stage, of)}
    found = {work.window: work for work in derived(platform, stage, of, now, afresh)}
    given: list[Work] = []
    none_any_longer: dict[Window, str] = {}
    for window in _in_turn(found.keys() | opened.keys(), opened):
        if len(given) >= MOST:
            break
        work = found.get(window)
        if work is None and stage == "collect" and is_to_come(opened[window], now):
            continue  # the clock was put back
        if work is None and opened[window].may_begin(now):
            work = still_due(platform, stage, of, opened[window], now)
            if work is None and not _waits(platform, stage, of, opened[window], now):
                none_any_longer[window] = opened[window].token
        if work is not None and _may_begin(opened.get(window), work, now):
            given.append(work)
    platform.ledger.attempts.settle(stage, of, none_any_longer, now)
    if stage == "export_cycle":
        for cycle in none_any_longer:
            _note_cycle(platform, of, cycle, now)
    return given


def _waits(platform: Platform, stage: Stage, of: str, opened: Attempt, now: datetime) -> bool:
    """Whether a window whose builds fail waits for more to arrive: that it fails is not forgotten meanwhile."""
    if stage != "build" or not opened.failures:
        return False
    return isinstance(assess(platform, platform.dataset(of), opened.window, now), Wait)


def _in_turn(windows: Iterable[Window], opened: Mapping[Window, Attempt]) -> list[Window]:
    newest_first = sorted(windows, reverse=True)
    return sorted(newest_first, key=lambda window: opened[window].tries if window in opened else 0)


def ready(platform: Platform, stage: Stage, of: str, work: Iterable[Work], now: datetime) -> list[Work]:
    """Of work of one product, what may begin: it was not tried in vain, or long enough ago."""
    opened = {one.window: one for one in platform.ledger.attempts.open(stage, of)}
    return [one for one in work if _may_begin(opened.get(one.window), one, now)]


def _may_begin(opened: Attempt | None, work: Work, now: datetime) -> bool:
    return opened is None or opened.token != work.token or opened.may_begin(now)


def derived(platform: Platform, stage: Stage, of: str, now: datetime, afresh: bool) -> Iterator[Work]:
    """The work that the ledger itself tells of."""
    if stage == "collect":
        source = platform.source(of)
        if source.kind == "pull" and not source.tells_changes:
            yield from triggered(platform, source, now)
    elif stage == "ingest" and platform.source(of).sent:
        for window in platform.ledger.waiting(of):
            if work := to_ingest(platform, of, window):
                yield work
    elif stage == "build":
        dataset = platform.dataset(of)
        for window in platform.ledger.due(of, None if afresh else now):
            decision = assess_due(platform, dataset, window, now)
            if isinstance(decision, Build):
                yield building(of, window, decision)


def still_due(platform: Platform, stage: Stage, of: str, opened: Attempt, now: datetime) -> Work | None:
    """What there is to do of a window that is open, now that it is looked at again."""
    window = opened.window
    if window.span != _span_of(platform, stage, of):
        return None  # the configuration is another one now
    match stage:
        case "collect":
            return still_to_collect(platform, of, opened, now)
        case "ingest":
            return to_ingest(platform, of, window)
        case "build":
            return to_build(platform, of, window, now, renew=platform.config.automation.remake_outdated)
        case "export":
            return to_export(platform, of, window, platform.config.automation.remake_outdated)
        case "export_cycle":
            return to_export_cycle(platform, of, window, now, platform.config.automation.remake_outdated)


def _span_of(platform: Platform, stage: Stage, of: str) -> timedelta:
    if stage == "export_cycle":
        return CYCLE
    if stage in ("collect", "ingest"):
        return platform.source(of).window_size
    return platform.dataset(of.partition("/")[0]).span


def _note_cycle(platform: Platform, of: str, cycle: Window, now: datetime) -> None:
    """Have a cycle looked at when more can be said of it: at its end, or when it waits for windows no longer."""
    cut_off = platform.config.cycle_exporters[of.partition("/")[2]].settings.cycle_cut_off
    moment = next((moment for moment in (cycle.end, cycle.end + cut_off) if moment > now), None)
    if moment is not None:
        note(platform, [Work("export_cycle", of, cycle, f"from {moment.isoformat()}", "it waits")], now, moment)
