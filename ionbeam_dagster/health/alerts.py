"""Alerts without Prometheus: people are told of each trouble once when it begins, and once when it ends.

Belongs here: what is a trouble, and when somebody is told. Does not belong here: the message's way (messages.py), or
what is remembered (stores/ledger/alerts.py).

One process of all does it at a time. Nothing waits for it: it has a thread of its own, and a webhook or mail server
that is away is tried again at every look, for as long as it takes, also when the trouble has ended meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event, Thread

from ionbeam_dagster.config.sections import AlertSettings
from ionbeam_dagster.domain.decisions import coverage
from ionbeam_dagster.domain.lateness import usual_lateness
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import DAY, HOUR, WEEK, Window
from ionbeam_dagster.domain.windows import gaps as gaps_of
from ionbeam_dagster.errors import IonbeamError, StoreError
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.messages import Message, NotSent, Way
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.pipeline.heard import heard
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.alerts import Alert

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds from the end of one look to the next."""
_SOURCES_AGAIN, _STATIONS_AGAIN = timedelta(minutes=1), HOUR
_NAMED = 20


@dataclass(slots=True)
class _Seen:
    """Findings of a kind, and when they are to be looked for again."""

    findings: list[Finding]
    again: datetime | None = None


class Alerting:
    """Tells of a platform's troubles by every one of `ways`."""

    def __init__(self, platform: Platform, settings: AlertSettings, watch: Watch, ways: Sequence[Way]) -> None:
        self._platform, self._settings, self._watch, self._ways = platform, settings, watch, ways
        self._job = platform.ledger.job("alerts")
        self._known: dict[str, Alert] | None = None
        self._sources, self._stations = _Seen([]), _Seen([])
        self._stop = Event()

    def start(self) -> None:
        Thread(target=self._run, name="alerts", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self.look()
            except Exception:  # whatever it is, it is tried again
                log.exception("alerts could not be told; again in a moment")

    def look(self) -> None:
        """See what is wrong now, and tell of what began or ended."""
        if not self._is_ours():
            self._known = None
            return
        now = self._platform.now()
        if self._known is None:
            self._known = self._remembered()
        found = self._troubles(now)
        for subject, words in found.items():
            known = self._known.get(subject)
            self._keep(Alert(subject, now, words) if known is None else replace(known, words=words))
        for alert in list(self._known.values()):
            goes_on, lasted = alert.subject in found, now - alert.since
            if goes_on and not alert.told and lasted >= self._settings.after:
                if self._tell(Message("begins", alert.subject, alert.words, alert.since, now)):
                    self._keep(replace(alert, told=True))
            elif not goes_on and (
                (not alert.told and lasted < self._settings.after)
                or self._tell(Message("ended", alert.subject, alert.words, alert.since, now))
            ):
                self._forget(alert.subject)

    # -- what is wrong -------------------------------------------------------------------------------------------

    def _troubles(self, now: datetime) -> dict[str, str]:
        """By subject, what is wrong and what to do."""
        found = [one for one in self._watch.findings() if one.severity in ("warning", "error")]
        if can_ask_ledger(self._platform):
            with suppress(IonbeamError, OSError):  # the findings tell of it; what was seen before holds meanwhile
                if _is_time(self._sources, now):
                    self._sources = _Seen(list(self._of_sources(now)), now + _SOURCES_AGAIN)
                if _is_time(self._stations, now):
                    self._stations = _Seen(list(self._of_stations()), now + _STATIONS_AGAIN)
        told: dict[str, list[str]] = {}
        for one in [*found, *self._sources.findings, *self._stations.findings]:
            told.setdefault(one.subject, []).append(f"{one.words}. {one.remedy}")
        return {subject: "\n".join(lines) for subject, lines in told.items()}

    def _of_sources(self, now: datetime) -> Iterator[Finding]:
        ledger, wanted = self._platform.ledger, self._settings
        for name, source in self._platform.config.sources.items():
            first, last = self._platform.range_of(source)
            if last is not None and last < now - DAY:
                continue  # it has given all that it has
            settled = now - source.window_lag - source.window_size
            since = min(settled - DAY, now - 2 * wanted.silence)
            claims = [one for one in ledger.claims_between(source.dataset, since, now) if one.source == name]
            newest = max((one.collected.end for one in claims if one.rows), default=max(since, first))
            if now - newest > wanted.silence:
                words = f"nothing of {name} is newer than {newest:%Y-%m-%d %H:%M}"
                yield Finding(f"silence of {name}", "warning", words, f"`ionbeam gaps {name}` shows since when and why")
            late = usual_lateness(ledger.lateness(name, now - WEEK, now))
            if wanted.lateness is not None and late > wanted.lateness:
                words = f"{name} comes {in_short(late)} late, or later, in one hour of twenty"
                yield Finding(f"lateness of {name}", "warning", words, "see what of its way is slow")
            if wanted.completeness is not None and first < settled:
                day = Window(max(settled - DAY, first), settled)
                share = coverage(day, gaps_of(day, [one.collected for one in claims]))
                if share < wanted.completeness:
                    words = f"{share:.1%} of a day of {name} was collected"
                    remedy = f"`ionbeam gaps {name}` shows each gap, and how it is filled"
                    yield Finding(f"gaps of {name}", "warning", words, remedy)

    def _of_stations(self) -> Iterator[Finding]:
        if self._settings.silent_stations is None:
            return
        for name, dataset in self._platform.config.datasets.items():
            found = heard(self._platform, dataset, DAY)
            if found is None or found.stations.is_empty():
                continue
            silent = found.stations.filter("silent")
            if silent.height > self._settings.silent_stations * found.stations.height:
                ids = ", ".join(str(row[0]) for row in silent.head(_NAMED).iter_rows())
                more = f" and {silent.height - _NAMED} more" if silent.height > _NAMED else ""
                words = f"{silent.height:,} of {found.stations.height:,} stations fell silent: {ids}{more}"
                yield Finding(f"stations of {name}", "warning", words, f"`ionbeam heard {name}` shows each")

    # -- what is remembered --------------------------------------------------------------------------------------

    def _is_ours(self) -> bool:
        """Whether this process tells; where the ledger cannot say, several may: better twice than never."""
        try:
            return self._job.is_ours or self._job.acquire()
        except (StoreError, OSError):
            return True

    def _remembered(self) -> dict[str, Alert]:
        try:
            return {one.subject: one for one in self._platform.ledger.alerts.all()}
        except (StoreError, OSError):
            return {}

    def _keep(self, alert: Alert) -> None:
        assert self._known is not None
        if self._known.get(alert.subject) != alert:
            self._known[alert.subject] = alert
            with suppress(StoreError, OSError):  # it is known here
                self._platform.ledger.alerts.keep(alert)

    def _forget(self, subject: str) -> None:
        assert self._known is not None
        del self._known[subject]
        with suppress(StoreError, OSError):
            self._platform.ledger.alerts.end(subject)

    def _tell(self, message: Message) -> bool:
        """Whether somebody was told: one way is enough, and those that failed are in the log."""
        told = False
        for way in self._ways:
            try:
                way(message)
                told = True
            except NotSent as error:
                log.error("%s; it is tried again", error)
        return told


def _is_time(seen: _Seen, now: datetime) -> bool:
    return seen.again is None or now >= seen.again or seen.again - now > _STATIONS_AGAIN
