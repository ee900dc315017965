"""Whether what is due is being done.

Belongs here: what the agenda says, as findings, and whether anything moves. Does not belong here: what is due, or what
counts as failing for long (pipeline/agenda).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.health.findings import Finding, Severity
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline import agenda, corrections
from ionbeam_dagster.pipeline.agenda import Work
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt

SUBJECT = "work"
STANDS_STILL = 40.0
"""Seconds after which work that nobody has begun, while nothing else was done, stands still."""
_COMPARED_WITHIN = timedelta(hours=1)
_SHOWN = 10
_PAUSE = 30.0
START = "start `ionbeam worker` (`ionbeam dev` has one), or end one that hangs: what it had begun is then free"


def failing(platform: Platform) -> Iterator[Finding]:
    """What fails, sources that do not answer, and files that nobody compares.

    What fails for less than an hour is a note: it is tried again, and most of it goes by.
    """
    if not can_ask_ledger(platform):
        return
    now = platform.now()
    found = agenda.alike(agenda.failing(platform, now))
    for alike in found[:_SHOWN]:
        words, _, remedy = agenda.in_words(platform, alike).rpartition("; ")
        yield Finding(SUBJECT, _severity(alike, now), words, remedy)
    if rest := found[_SHOWN:]:
        remedy = "`ionbeam status` shows them, and how each is tried now"
        yield Finding(SUBJECT, _severity(rest[0], now), f"{sum(map(len, rest)):,} further windows fail", remedy)
    for source, silence in agenda.silent(platform).items():
        words = f"{source} does not answer since {silence.since:%Y-%m-%d %H:%M} ({silence.windows} windows in a row)"
        yield Finding(SUBJECT, "warning", words, f"see whether its service runs; `ionbeam source check {source}`")
    yield from _corrections_unasked(platform, now)
    compared = platform.ledger.reconciliations.last()
    if platform.config.automation.enabled and compared is not None and now - compared > _COMPARED_WITHIN:
        words = f"files were last compared with the ledger {in_short(now - compared)} ago"
        remedy = "`ionbeam doctor --files` does it now; the sensor `reconciliation` of Dagster's daemon does it always"
        yield Finding(SUBJECT, "warning", words, remedy)
    yield Finding(SUBJECT, "well", "no window fails" if not found else "what fails is tried again by itself")


def _corrections_unasked(platform: Platform, now: datetime) -> Iterator[Finding]:
    for source in (one for one in platform.config.sources.values() if one.corrects):
        seen = platform.ledger.corrections.seen(source.name)
        if seen is not None and now - seen > corrections.ASKED_WITHIN:
            words = f"{source.name} was last asked {in_short(now - seen)} ago what it corrected of its past"
            yield Finding(SUBJECT, "warning", words, corrections.WHO_ASKS.format(source.name))


def _severity(longest_first: Sequence[Attempt], now: datetime) -> Severity:
    return "warning" if now - longest_first[0].since >= agenda.OVERDUE_AFTER else "note"


class Progress:
    """Looks again and again whether work that is due is begun.

    Nothing stands still while somebody who lives works on something, or the list of what is due moves. Only what this
    process has seen itself counts, so that a machine that slept has not stood still.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: set[tuple[str, str, Window]] = set()
        self._beats: dict[str, int] = {}
        self._looked: float | None = None
        self.still = 0.0
        """Seconds for which nothing has moved."""
        self.due: list[Work] = []
        """What was due at the last look, the oldest window first."""

    def look(self, platform: Platform) -> None:
        """Bring `due` and `still` up to date."""
        now = self._clock()
        passed = 0.0 if self._looked is None else min(now - self._looked, _PAUSE)
        self._looked = now
        due = agenda.due(platform, platform.now())
        keys = {(one.stage, one.of, one.window) for one in due}
        beats = {one.holder: one.beats for one in platform.ledger.workers.present()}
        holders = set(platform.ledger.leases.held().values())
        works = any(beats.get(one, 0) != self._beats.get(one, 0) for one in holders)
        moved = bool(self._due - keys) or works
        self.still = 0.0 if not due or moved else self.still + passed
        self._due, self._beats = keys, beats
        self.due = sorted(due, key=lambda work: work.window)

    def findings(self, platform: Platform) -> Iterator[Finding]:
        """Whether work stands still, as far as this process has seen."""
        if not platform.config.automation.enabled or not can_ask_ledger(platform):
            yield Finding(SUBJECT, "well", "nothing is done by itself: automation is off, or nothing was begun yet")
            return
        self.look(platform)
        due = self.due
        if self.still >= STANDS_STILL:
            words = (
                f"work stands still for {self.still:.0f} s: {len(due):,} windows are due and nobody begins one; the "
                f"oldest is {due[0].of} {due[0].window}, to {due[0].stage}"
            )
            yield Finding(SUBJECT, "error", words, START)
            return
        yield Finding(SUBJECT, "well", f"{len(due):,} windows are due")
