"""Corrections: what a source changed of its past is collected anew, and confirmed to it once all products hold it.

Belongs here: what a correction still lacks until it is published, and when it is confirmed. Does not belong here: how a
source is asked and told (sources), or the work itself, which the agenda gives out.

A window of a correction is published when it was collected after the correction was first seen, that is ingested, the
dataset windows that it touches hold it, and every export was made of their latest revision. What was published once
stays so: of a correction the ranges that remain are remembered, and each look takes some of them off. A look is
bounded: a correction may reach over years.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from time import monotonic

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.decisions import Build, Sealed, Wait
from ionbeam_dagster.domain.windows import Window, gaps, merge, window_of, windows_between
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.cycles import outlook_of
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.corrections import KnownCorrection

LOOKED_AT = 500
"""Windows of a correction that are looked at in one look."""
SECONDS = 15.0
"""How long one look at all corrections of a source takes at most, beside what the source itself takes."""
MOST_COLLECTED = 2000
"""Windows of a source that corrections have on the agenda at once, to be collected."""
ASKED_WITHIN = timedelta(hours=1)
"""A source that nobody asked for longer may have corrected what nobody knows of."""
WHO_ASKS = "the sensor {}__confirmations of Dagster's daemon asks it: see that `ionbeam dev` runs and the sensor is on"
HELD = "held"
_SHOWN = 4
PUBLISHED = "published"
"""By whom a correction was confirmed that the platform itself confirmed."""
ELSEWHERE = "the source no longer tells of it"

COLLECT, INGEST, BUILD, EXPORT, SEALED, NOT_ENDED = (
    "to be collected", "to be ingested", "to be built", "to be exported", "sealed", "not ended",
)  # fmt: skip
"""What a window of a correction may lack."""


@dataclass(slots=True)
class Look:
    """What one look at the corrections of a source found: those it confirmed, the windows it put on the agenda, what
    the windows that it looked at lack, by the numbers of their corrections, and what a person has to know."""

    confirmed: list[KnownCorrection] = field(default_factory=list)
    noted: int = 0
    lacking: dict[int, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def see(platform: Platform, source: SourceSettings, now: datetime) -> None:
    """Ask a source what it corrected, and remember it. Raises SourceError.

    What it no longer tells was confirmed: by us, where we had begun to, so that only its answer was lost. What it tells
    although we confirmed it is confirmed again.
    """
    feed, memory = platform.sources[source.name], platform.ledger.corrections
    told = feed.corrections()
    memory.see(source.name, told, now)
    for known in memory.open(source.name):
        if known.correction not in told:
            memory.change(source.name, replace(known, by=known.by or ELSEWHERE, closed=now))
    for known in memory.closed(source.name):
        if known.correction in told and known.by == ELSEWHERE:
            memory.change(source.name, replace(known, by="", closed=None))
        elif known.correction in told:
            feed.confirm(known.correction)


def look(platform: Platform, source: SourceSettings, now: datetime) -> Look:
    """Ask a source what it corrected, see what of it is published, have collected what is not, and confirm what is.

    Raises SourceError where the source cannot be asked.
    """
    found = Look()
    see(platform, source, now)
    found.problems += platform.sources[source.name].problems()
    until = monotonic() + SECONDS
    opened = {one.window for one in platform.ledger.attempts.open("collect", source.name)}
    whole = []
    for known in platform.ledger.corrections.open(source.name):
        if monotonic() > until:
            break
        advanced = _advanced(platform, source, known, now, opened, until, found)
        if not advanced.remaining:
            whole.append(advanced)
    if whole:
        _confirm_published(platform, source, whole, now, found)
    return found


def confirm(platform: Platform, source: SourceSettings, id: str, by: str, now: datetime) -> KnownCorrection:
    """Confirm a correction because a person says so, published or not.

    What remains of it and is collected later is brought in as any other window: what the source took back stays.

    Raises PipelineError where none of this id is open, SourceError where the source does not agree.
    """
    see(platform, source, now)
    known = next((one for one in platform.ledger.corrections.open(source.name) if one.correction.id == id), None)
    if known is None:
        ids = [one.correction.id for one in platform.ledger.corrections.open(source.name)]
        raise PipelineError(f"{source.name} tells of no open correction {id!r}; open are: {', '.join(ids) or 'none'}")
    return _confirm(platform, source, known, by, now)


def standing(platform: Platform, source: SourceSettings, known: KnownCorrection, now: datetime) -> Counter[str]:
    """What the windows lack that remain of a correction, of the newest LOOKED_AT of them."""
    some = islice(_newest_first(_remaining(platform, source, known), source.window_size), LOOKED_AT)
    lacks = (_lacks(platform, source, window, known.number, now) for window in some)
    return Counter(one for one in lacks if one)


def state_of(platform: Platform, source: SourceSettings, known: KnownCorrection, lacking: Counter[str]) -> str:
    """What is to be said of a correction, and of what its windows were found to lack."""
    if known.closed is not None:
        what = known.by if known.by == ELSEWHERE else f"confirmed, {known.by}"
        return f"{what}: {known.closed:%Y-%m-%d %H:%M}"
    if known.remaining is None:
        return "open: nobody looked at it yet"
    left = left_of(platform, source, known)
    told = "; ".join(f"{number:,} {what}" for what, number in lacking.most_common(_SHOWN))
    if not left:
        return "rebuilt: to be confirmed"
    if lacking.total() == left and all(what.startswith(SEALED) for what in lacking):
        return f"{HELD}: {told}; `ionbeam unseal` them, or `ionbeam source confirm {source.name} {known.correction.id}`"
    return f"rebuilding: of {left:,} windows that remain {told or 'none was looked at'}"


def range_of(range: Window) -> str:
    return f"{range.start:%Y-%m-%d %H:%M:%S} to {range.end:%Y-%m-%d %H:%M:%S}"


def left_of(platform: Platform, source: SourceSettings, known: KnownCorrection) -> int:
    """How many windows of a correction are not known to be published."""
    span = source.window_size
    return sum(one.span // span for one in _remaining(platform, source, known))


def _advanced(
    platform: Platform, source: SourceSettings, known: KnownCorrection, now: datetime, opened: set[Window],
    until: float, found: Look,
) -> KnownCorrection:  # fmt: skip
    """A correction after a look at some of what remains of it, which is remembered."""
    span = source.window_size
    remaining = _remaining(platform, source, known)
    published, looked_until, lacking = [], known.looked_until, Counter[str]()
    for window in islice(_in_turn(remaining, span, looked_until), LOOKED_AT):
        if monotonic() > until:
            break
        lacks = _lacks(platform, source, window, known.number, now)
        if lacks == COLLECT and window not in opened:
            if len(opened) >= MOST_COLLECTED:  # those before it, too: the next look is at what is being done
                looked_until = None
                break
            work = agenda.replacing(platform, source.name, window, "its source corrected it", f"{known.number}")
            agenda.note(platform, [work], now)
            opened.add(window)
            found.noted += 1
        if lacks is None:
            published.append(window)
        else:
            lacking[lacks] += 1
        looked_until = window.start
    found.lacking[known.number] = lacking
    left = tuple(gap for one in remaining for gap in gaps(one, published))
    advanced = replace(known, remaining=left, looked_until=looked_until)
    platform.ledger.corrections.change(source.name, advanced)
    return advanced


def _remaining(platform: Platform, source: SourceSettings, known: KnownCorrection) -> list[Window]:
    """Whole windows of the source; at first those of the correction's range in which it has any."""
    span = source.window_size
    ranges = [known.correction.range] if known.remaining is None else known.remaining
    reached = [part for one in ranges if (part := platform.reach(source, one))]
    return merge(
        Window(window_of(one.start, span).start, window_of(one.end - timedelta.resolution, span).end) for one in reached
    )


def _newest_first(ranges: Sequence[Window], span: timedelta) -> Iterator[Window]:
    for one in sorted(ranges, reverse=True):
        end = one.end
        while end > one.start:
            yield Window(end - span, end)
            end -= span


def _in_turn(ranges: Sequence[Window], span: timedelta, until: datetime | None) -> Iterator[Window]:
    """The newest first, but those before `until` before the others, so that one that waits holds up none."""
    older = [part for one in ranges if until and (part := _before(one, until))]
    yield from _newest_first(older, span)
    yield from _newest_first([part for one in ranges for part in gaps(one, older)], span)


def _before(one: Window, until: datetime) -> Window | None:
    return Window(one.start, min(one.end, until)) if one.start < until else None


def _lacks(platform: Platform, source: SourceSettings, window: Window, number: int, now: datetime) -> str | None:
    """What a window of a source lacks until what is made of it holds correction `number`; None: nothing."""
    if window.end > now - source.window_lag:
        return NOT_ENDED
    ledger = platform.ledger
    raw = ledger.raw(source.name, window)
    if raw is None or raw.knows < number:
        return COLLECT
    if not ledger.claims_of([raw.ingestion]):
        return INGEST
    dataset = platform.dataset(source.dataset)
    for each in windows_between(window.start, window.end, dataset.span):
        decision = agenda.assess(platform, dataset, each, now)
        if isinstance(decision, Sealed):
            return f"{SEALED}: {dataset.name} {each}"
        if isinstance(decision, Wait):
            return f"{BUILD}: {decision.reason}"
        if isinstance(decision, Build):
            return BUILD
        for format in dataset.exports:
            if not agenda.export_is_current(platform, dataset.name, format, each):
                return f"{EXPORT} as {format}"
        for format in dataset.cycle_exports:
            cycle, exporter = cycle_of(each.start), platform.config.cycle_exporters[format]
            if each in outlook_of(platform, dataset, exporter, cycle, now).late:
                return f"{SEALED}: {dataset.name} {each} in the file of its cycle as {format}"
            made = ledger.export(dataset.name, cycle, format)
            if made is None or (made.facts.holds or {}).get(each.key) != decision.revision.number:
                return f"{EXPORT} as {format}"
    return None


def _confirm_published(
    platform: Platform, source: SourceSettings, whole: Sequence[KnownCorrection], now: datetime, found: Look
) -> None:
    """Confirm what is published, as the source tells it at this moment: what it changed meanwhile is another one."""
    see(platform, source, now)
    open_yet = {one.number for one in platform.ledger.corrections.open(source.name)}
    for known in whole:
        if known.number in open_yet:
            found.confirmed.append(_confirm(platform, source, known, PUBLISHED, now))


def _confirm(
    platform: Platform, source: SourceSettings, known: KnownCorrection, by: str, now: datetime
) -> KnownCorrection:
    begun = replace(known, by=by)
    if not platform.ledger.corrections.change(source.name, begun):
        raise PipelineError(f"{source.name}: correction {known.correction.id} is another one by now; look at it again")
    platform.sources[source.name].confirm(known.correction)
    done = replace(begun, closed=now)
    platform.ledger.corrections.change(source.name, done)
    return done
