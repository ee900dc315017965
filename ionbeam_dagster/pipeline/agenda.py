"""The agenda: what there is to do, of which window, and why. It alone decides that.

Belongs here: `Work`, `due` (from the ledger, for every tick; it costs what is open, not what exists), what a range
needs that a person asks for, and what is remembered of work that was begun. Nothing asks anybody else: automation,
`ionbeam run`, the bridge, `ionbeam status` and retention ask here. Does not belong here: the comparison of files with
the ledger (reconciliation.py), when a window can be built (domain/windows.py decides), or the doing.

Work is derived from what there is: it is due while what there is was not made from its token. What the ledger has no
index of (a raw partition without a claim, a revision without its exports, what reconciliation found) is noted in the
ledger as open, and is looked at again before it is given out: a note is no opinion. Noting may fail between two writes;
reconciliation then finds what was not noted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import pyarrow as pa

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.cycles import CYCLE, cycle_of
from ionbeam_dagster.domain.decisions import Build, Decision, Sealed, Unchanged, Wait
from ionbeam_dagster.domain.records import BuiltRevision, Claim, RawPartition
from ionbeam_dagster.domain.windows import EPOCH, Window, windows_between
from ionbeam_dagster.errors import PipelineError, SourceError
from ionbeam_dagster.pipeline.build import as_found, is_whole, look_at, made_by
from ionbeam_dagster.pipeline.cycles import outlook_of
from ionbeam_dagster.pipeline.export import made_otherwise
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.soundness import is_sound
from ionbeam_dagster.stores.ledger.attempts import Attempt
from ionbeam_dagster.stores.ledger.silences import Silence

Stage = Literal["collect", "ingest", "build", "export", "export_cycle"]
MOST = 500
"""Windows of one product that are given out at once, newest first; the rest follow."""
TOLD_AFTER = timedelta(hours=1)
"""What failed for so long is told to people, and tried on."""
SILENT_AFTER = 2
"""Windows of a source in a row that took longer than they may, after which it is asked for one window at a time."""
_MOST_LOOKED_AT = 300
NOT_TRIED = "not tried"
"""How the reason begins of a window that failed because the run that it was in came to its end before."""

# What the token of a window to be collected begins with, where it is no trigger of the clock.
LOST, CHANGED, REPLACES = "lost", "changed", "replaces"


@dataclass(frozen=True, slots=True)
class Work:
    """One line of the agenda: what is to be done of a window, and why.

    `of` is a source, a dataset, or ``<dataset>/<format>``. `token` says from what it would be made: it stays the same
    while the work does.
    """

    stage: str
    of: str
    window: Window
    token: str
    reason: str


# --- what is due ------------------------------------------------------------------------------------------------------


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
    found = {work.window: work for work in _derived(platform, stage, of, now, afresh)}
    given: list[Work] = []
    none_any_longer: list[Window] = []
    for window in _in_turn(found.keys() | opened.keys(), opened):
        if len(given) >= MOST:
            break
        work = found.get(window)
        if work is None and stage == "collect" and window.start >= now:
            continue  # it comes again where the clock was put back
        if work is None and opened[window].may_begin(now):
            work = _still(platform, stage, of, opened[window], now)
            if work is None:
                none_any_longer.append(window)
        if work is not None and _may_begin(opened.get(window), work, now):
            given.append(work)
    platform.ledger.attempts.settle(stage, of, none_any_longer)
    if stage == "export_cycle":
        for cycle in none_any_longer:
            _note_cycle(platform, of, cycle, now)
    return given


def _in_turn(windows: Iterable[Window], opened: Mapping[Window, Attempt]) -> list[Window]:
    newest_first = sorted(windows, reverse=True)
    return sorted(newest_first, key=lambda window: opened[window].tries if window in opened else 0)


def ready(platform: Platform, stage: Stage, of: str, work: Iterable[Work], now: datetime) -> list[Work]:
    """Of work of one product, what may begin: it was not tried in vain, or long enough ago."""
    opened = {one.window: one for one in platform.ledger.attempts.open(stage, of)}
    return [one for one in work if _may_begin(opened.get(one.window), one, now)]


def _may_begin(opened: Attempt | None, work: Work, now: datetime) -> bool:
    return opened is None or opened.token != work.token or opened.may_begin(now)


def _derived(platform: Platform, stage: Stage, of: str, now: datetime, afresh: bool) -> Iterator[Work]:
    """The work that the ledger itself tells of."""
    if stage == "collect" and platform.source(of).kind == "pull" and not platform.source(of).tells_changes:
        yield from _triggered(platform, platform.source(of), now)
    elif stage == "ingest" and platform.source(of).sent:
        for window in platform.ledger.waiting(of):
            if work := to_ingest(platform, of, window):
                yield work
    elif stage == "build":
        for window in platform.ledger.due(of, None if afresh else now):
            decision = _assess_due(platform, of, window, now)
            if isinstance(decision, Build):
                yield _building(of, window, decision)


def _still(platform: Platform, stage: Stage, of: str, opened: Attempt, now: datetime) -> Work | None:
    """What there is to do of a window that is open, now that it is looked at again."""
    window = opened.window
    if window.span != _span_of(platform, stage, of):
        return None  # the configuration is another one now
    match stage:
        case "collect":
            return _still_to_collect(platform, of, opened, now)
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


# --- collect ----------------------------------------------------------------------------------------------------------


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


def looked_back(platform: Platform, source: SourceSettings, now: datetime) -> Iterator[tuple[Window, datetime]]:
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
    first, end = platform.range_of(source.name)
    return window.start >= first and (end is None or window.start < end)


def _triggered(platform: Platform, source: SourceSettings, now: datetime) -> Iterator[Work]:
    """Windows of which a trigger moment has passed since they were last collected."""
    for window, triggered in looked_back(platform, source, now):
        known = platform.ledger.raw(source.name, window)
        if _is_older(platform, known, triggered) or _lacks_its_end(platform, known, now):
            yield Work("collect", source.name, window, triggered.isoformat(), f"to be collected since {triggered}")


def _is_older(platform: Platform, known: RawPartition | None, triggered: datetime) -> bool:
    """Whether a raw partition is not there, or was written before `triggered`; what retention took is not missed."""
    if known is not None and known.purged is not None:
        return False
    found = platform.files.found(known.path) if known is not None else None
    return found is None or found.modified < triggered


def _lacks_its_end(platform: Platform, known: RawPartition | None, now: datetime) -> bool:
    """Whether a window has ended, and was asked for before: its file may have been written after its last trigger."""
    if known is None or known.purged is not None or now < known.window.end:
        return False
    return any(claim.collected.end < known.window.end for claim in platform.ledger.claims_of([known.ingestion]))


def is_lost(platform: Platform, known: RawPartition | None) -> bool:
    """Whether the file of a raw partition is gone, and retention did not take it."""
    return known is not None and known.purged is None and not platform.files.exists(known.path)


def needs_collecting(platform: Platform, source: str, window: Window) -> bool:
    """Whether a window was never collected to its end, lost its raw partition, or would come out differently now.

    A raw partition that retention purged is not lost: all that is made of it is there.
    """
    known = platform.ledger.raw(source, window)
    if known is None or is_lost(platform, known) or _lacks_its_end(platform, known, platform.now()):
        return True
    try:
        return known.signature != platform.sources[source].signature(window)
    except SourceError:
        return True  # collecting it tells the reason


def _still_to_collect(platform: Platform, source: str, opened: Attempt, now: datetime) -> Work | None:
    window = opened.window
    if not has_window(platform, platform.source(source), window):
        return None
    known = platform.ledger.raw(source, window)
    kind, *marks = opened.token.split(" ")
    if kind == LOST:
        needed = known is None or is_lost(platform, known)
    elif kind == CHANGED:
        needed = needs_collecting(platform, source, window)
    elif kind == REPLACES:
        needed = written_at(platform, known) == marks[0]
    else:
        triggered = datetime.fromisoformat(opened.token)
        needed = _is_older(platform, known, triggered) or _lacks_its_end(platform, known, now)
    return Work("collect", source, window, opened.token, opened.reason) if needed else None


def written_at(platform: Platform, known: RawPartition | None) -> str:
    """When the file of a raw partition was written, as a part of a token; "never" where there is none."""
    found = platform.files.found(known.path) if known is not None else None
    return found.modified.isoformat() if found is not None else "never"


def replacing(platform: Platform, source: str, window: Window, reason: str, mark: str = "") -> Work:
    """The work of collecting a window again, whatever its raw partition holds; of another `mark` it is other work."""
    before = written_at(platform, platform.ledger.raw(source, window))
    return Work("collect", source, window, f"{REPLACES} {before} {mark}".strip(), reason)


# --- ingest -----------------------------------------------------------------------------------------------------------


def to_ingest(platform: Platform, source: str, window: Window) -> Work | None:
    """The ingestion of a window's raw partition (of several that were sent, the last), if it is still to be done."""
    if platform.source(source).sent:
        raw = next(reversed(_waiting_raws(platform, source, window)), None)
    else:
        known = platform.ledger.raw(source, window)
        raw = known if known is not None and not platform.ledger.claims_of([known.ingestion]) else None
    if raw is None:
        return None
    return Work("ingest", source, window, raw.ingestion, "its raw partition is not ingested as it is now")


def _waiting_raws(platform: Platform, source: str, window: Window) -> list[RawPartition]:
    """What clients sent for a window of `source` and is not ingested yet, in order of arrival."""
    sent = platform.ledger.sent(source, window)
    claimed = {claim.id for claim in platform.ledger.claims_of([raw.ingestion for raw in sent])}
    return [raw for raw in sent if raw.ingestion not in claimed]


# --- build ------------------------------------------------------------------------------------------------------------


def assess(platform: Platform, dataset: str, window: Window, now: datetime) -> Decision:
    """What `decide` says of a dataset window, on what the ledger knows of it."""
    return look_at(platform, dataset, window, now).decision


def _assess_due(platform: Platform, dataset: str, window: Window, now: datetime) -> Decision:
    """The same of a window that the ledger calls due; where the answer is not to build it, the ledger is told for how
    long it holds, so that nobody asks again before it can be another one."""
    seen = look_at(platform, dataset, window, now)
    if not isinstance(seen.decision, Build):
        until = seen.decision.until if isinstance(seen.decision, Wait) else None
        platform.ledger.postpone(dataset, window, seen.claims, until)
    return seen.decision


def outlook(platform: Platform, claim: Claim, now: datetime) -> dict[Window, Decision]:
    """What is to be said of the dataset windows that a claim touches: of the newest, where they are very many."""
    touched = platform.touched(claim)
    return {window: assess(platform, claim.dataset, window, now) for window in touched[-_MOST_LOOKED_AT:]}


def to_build(
    platform: Platform, dataset: str, window: Window, now: datetime, insist: bool = False, renew: bool = False
) -> Work | None:
    """The next revision of a dataset window, if one can and should be built now.

    With `insist`, as a person asks for it, also of a window that would wait although something was collected; with
    `renew` also of one whose latest revision is outdated.
    """
    decision = assess(platform, dataset, window, now)
    if isinstance(decision, Build):
        return _building(dataset, window, decision)
    if insist and isinstance(decision, Wait) and platform.ledger.claims(dataset, window):
        return Work("build", dataset, window, "", decision.reason)
    if renew and isinstance(decision, Unchanged) and is_outdated(platform, dataset, window):
        token = f"r{decision.revision.number + 1} {made_by(platform, dataset)}"
        return Work("build", dataset, window, token, "an older quality plan or mapping made it")
    return None


def is_outdated(platform: Platform, dataset: str, window: Window) -> bool:
    """Whether another quality plan or mapping than today's made the latest revision of a window that nobody sealed."""
    latest = platform.ledger.latest_revision(dataset, window)
    if latest is None or latest.facts.made_by in ("", made_by(platform, dataset)):
        return False
    return platform.ledger.sealed(dataset, window) is None


def _building(dataset: str, window: Window, decision: Build) -> Work:
    token = f"r{decision.number} {decision.inputs}"
    return Work("build", dataset, window, token, f"revision {decision.number} can be built")


# --- export -----------------------------------------------------------------------------------------------------------


def export_is_current(platform: Platform, dataset: str, format: str, window: Window) -> bool:
    """Whether the window's export was made from its latest revision and is still there, whole."""
    latest = platform.ledger.latest_revision(dataset, window)
    made = platform.ledger.export(dataset, window, format)
    if latest is None or made is None or made.number != latest.revision.number:
        return False
    if made.path is None:
        return True
    found = platform.files.found(made.path)
    return found is not None and found.size == (made.facts.bytes or found.size)


def to_export(platform: Platform, of: str, window: Window, renew: bool = False) -> Work | None:
    """The export of a window's latest revision, if it is not there as it should be; with `renew`, or is outdated.

    Of a revision that is lost, or is not sound, there is none: another one is to be built first.
    """
    dataset, _, format = of.partition("/")
    latest = platform.ledger.latest_revision(dataset, window)
    current = export_is_current(platform, dataset, format, window)
    if latest is None or (current and not (renew and made_otherwise(platform, dataset, format, window))):
        return None
    found = as_found(platform, latest)
    if found is None or not _is_sound(platform, latest.path):
        return None
    if not found.intact and not _stays(platform, latest):
        return None
    made = platform.ledger.export(dataset, window, format)
    if current:
        reason = "an older exporter made it"
    elif made is not None and made.number == latest.revision.number:
        reason = "its file is lost or damaged"
    else:
        reason = f"revision {latest.revision.number} is not exported"
    token = f"r{latest.revision.number} {platform.config.exporters[format].fingerprint}"
    return Work("export", of, window, token, reason)


def _stays(platform: Platform, latest: BuiltRevision) -> bool:
    """Whether a revision is whole, and the last of its window, although something that it was made of is gone."""
    revision = latest.revision
    decision = assess(platform, revision.dataset, revision.window, platform.now())
    return isinstance(decision, Sealed) and is_whole(platform, latest)


def is_broken(platform: Platform, dataset: str, window: Window) -> bool:
    """Whether the latest revision of a window is there, and may not be exported."""
    latest = platform.ledger.latest_revision(dataset, window)
    return latest is not None and platform.files.exists(latest.path) and not _is_sound(platform, latest.path)


def _is_sound(platform: Platform, path: str) -> bool:
    try:
        with platform.files.parquet(path) as file:
            return is_sound(file)
    except (pa.ArrowInvalid, FileNotFoundError):
        return False


# --- analysis cycles --------------------------------------------------------------------------------------------------


def to_export_cycle(platform: Platform, of: str, cycle: Window, now: datetime, renew: bool = False) -> Work | None:
    """The file of an analysis cycle, if it is to be made, or made again; not of a window that is not sound."""
    dataset, _, format = of.partition("/")
    outlook = outlook_of(platform, dataset, format, cycle, now)
    outdated = renew and made_otherwise(platform, dataset, format, cycle)
    if not (outlook.due or outdated) or any(is_broken(platform, dataset, window) for window in outlook.holds):
        return None
    token = " ".join(f"{held.key}r{number}" for held, number in sorted(outlook.holds.items()))
    return Work("export_cycle", of, cycle, token, outlook.reason)


def _note_cycle(platform: Platform, of: str, cycle: Window, now: datetime) -> None:
    """Have a cycle looked at when more can be said of it: at its end, or when it waits for windows no longer."""
    cut_off = platform.config.cycle_exporters[of.partition("/")[2]].settings.cycle_cut_off
    moment = next((moment for moment in (cycle.end, cycle.end + cut_off) if moment > now), None)
    if moment is not None:
        note(platform, [Work("export_cycle", of, cycle, f"from {moment.isoformat()}", "it waits")], now, moment)


# --- what is remembered of it -----------------------------------------------------------------------------------------


def note(platform: Platform, found: Collection[Work], now: datetime, begin_from: datetime | None = None) -> None:
    """Remember work that nothing in the ledger tells of by itself; it may begin from `begin_from` on (None: at once,
    also by a clock that is put back)."""
    platform.ledger.attempts.note([_opened(work, now, begin_from or EPOCH) for work in found])


def failed_before(platform: Platform, stage: Stage, of: str) -> set[Window]:
    """The open windows of one product that failed themselves the last time, and were not only given up with others."""
    opened = platform.ledger.attempts.open(stage, of)
    return {one.window for one in opened if one.error and not one.error.startswith(NOT_TRIED)}


def begin(platform: Platform, begun: Collection[Work], now: datetime) -> None:
    """Remember that somebody begins work: it is not given out again before it can have failed."""
    platform.ledger.attempts.begin([_opened(work, now, now) for work in begun], now)


def _opened(work: Work, now: datetime, begin_from: datetime) -> Attempt:
    return Attempt(work.stage, work.of, work.window, work.token, work.reason, 0, now, begin_from)


def settle(
    platform: Platform, stage: Stage, of: str, done: Collection[Window], failed: Mapping[Window, str], now: datetime
) -> None:
    """Remember what became of windows that somebody worked on, and note what follows from those that are done.

    What failed stays due, whoever tried it, unless a person asked for what the platform would not have done by itself.
    """
    attempts = platform.ledger.attempts
    if failed:
        opened = {one.window for one in attempts.open(stage, of)}
        begin(platform, _derived_of(platform, stage, of, failed.keys() - opened, now), now)
        attempts.fail(stage, of, failed, now)
    note(platform, list(_following(platform, stage, of, [*done, *failed])), now)
    if not done:
        return
    if stage == "build":
        cycles = {cycle_of(window.start) for window in done}
        formats = [f"{of}/{format}" for format in platform.dataset(of).cycle_exports]
        built = [
            Work("export_cycle", each, cycle, "a window of it was built", "") for each in formats for cycle in cycles
        ]
        note(platform, built, now)
    attempts.settle(stage, of, done)


def _derived_of(platform: Platform, stage: Stage, of: str, windows: Collection[Window], now: datetime) -> list[Work]:
    if stage == "collect":
        return [work for work in _derived(platform, stage, of, now, False) if work.window in windows] if windows else []
    asked = (_still(platform, stage, of, Attempt(stage, of, window, "", "", 0, now, now), now) for window in windows)
    return [work for work in asked if work]


def _following(platform: Platform, stage: Stage, of: str, tried: Iterable[Window]) -> Iterator[Work]:
    """What is to be done of windows now that `stage` is, but for what the ledger itself tells of.

    Also of those that failed: it may have been what followed the work, and not the work.
    """
    follow: list[Callable[[Window], Work | None]] = []
    if stage == "collect":
        follow = [lambda window: to_ingest(platform, of, window)]
    elif stage == "build":
        formats = platform.dataset(of).exports
        follow = [lambda window, format=format: to_export(platform, f"{of}/{format}", window) for format in formats]  # type: ignore[misc]
    yield from (work for window in tried for look in follow if (work := look(window)))


# --- sources that do not answer ---------------------------------------------------------------------------------------


def note_silence(platform: Platform, stage: Stage, of: str, now: datetime) -> None:
    """Remember that a window of a product took longer than it may: of a source that is asked, it does not answer."""
    if stage == "collect":
        platform.ledger.silences.add(of, 1, now)


def end_silence(platform: Platform, source: str) -> None:
    """Remember that a source answered."""
    platform.ledger.silences.end(source)


def silent(platform: Platform) -> dict[str, Silence]:
    """The sources that do not answer, and so are asked for one window at a time."""
    return {name: one for name, one in platform.ledger.silences.all().items() if one.windows >= SILENT_AFTER}


def probed(platform: Platform, stage: Stage, of: str, work: list[Work]) -> list[Work]:
    """Of work that may begin, what is worth beginning: of a source that does not answer, one window."""
    return work[:1] if stage == "collect" and of in silent(platform) else work


# --- what a person is told --------------------------------------------------------------------------------------------


def overdue(platform: Platform, now: datetime) -> list[Attempt]:
    """Open work that fails since TOLD_AFTER or longer, the longest first; it goes on being tried."""
    known = set(products(platform))
    found = [one for one in platform.ledger.attempts.open() if one.tries and now - one.since >= TOLD_AFTER]
    return sorted((one for one in found if (one.stage, one.product) in known), key=lambda one: one.since)


def outdated(platform: Platform, dataset: str, start: datetime, end: datetime) -> list[Window]:
    """The windows of [start, end) whose revision, or an export of it, an older version or other settings made."""
    formats = platform.dataset(dataset).exports
    windows = [one.revision.window for one in platform.ledger.revisions(dataset, start, end)]
    return [
        window
        for window in windows
        if is_outdated(platform, dataset, window)
        or any(made_otherwise(platform, dataset, format, window) for format in formats)
    ]


def misfits(platform: Platform) -> list[str]:
    """What of the configuration does not fit what is in the stores, a sentence each."""
    found = []
    for dataset in platform.config.datasets:
        try:
            platform.check_span(dataset)
        except PipelineError as error:
            found.append(str(error))
    return found
