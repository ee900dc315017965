"""Alerts without Prometheus: people are told of each trouble once when it begins, and once when it ends.

Belongs here: what is a trouble, and when somebody is told. Does not belong here: the message's way (messages.py), or
what is remembered (stores/ledger/alerts.py).

One process of all does it at a time. Nothing waits for it: it has a thread of its own, and a webhook or mail server
that is away is tried again at every look, for as long as it takes, also when the trouble has ended meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from threading import Event, Thread

from ionbeam_dagster.config.sections import AlertSettings
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import DAY, HOUR
from ionbeam_dagster.errors import IonbeamError, StoreError
from ionbeam_dagster.health.findings import Finding, matter_of
from ionbeam_dagster.health.heard_words import percent
from ionbeam_dagster.health.messages import Message, NotSent, Way
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.matters import Matter
from ionbeam_dagster.pipeline.heard import silent_in_words, up_to_date
from ionbeam_dagster.pipeline.lately import lately
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.alerts import Alert
from ionbeam_dagster.stores.ledger.holding import Job

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds from the end of one look to the next."""
_SOURCES_AGAIN, _STATIONS_AGAIN = timedelta(minutes=1), HOUR
_LEARNT_AFTER = DAY
"""A source that is new here is caught up with at first: how late it usually is, and how much of a day comes, is known
once it was looked at for so long."""
_PATIENCE = 5.0
"""Seconds that a look waits for what is looked for apart: a week of stations is summed for minutes when it is lost."""
_WARNING = " (warning)"
"""Behind the subject of a warning: an error of the same subject is told as well, and for itself."""
_BLIND = frozenset({"ledger", "failures", "health"})
"""Subjects whose errors mean that others cannot be looked at."""


@dataclass(slots=True)
class _Kind:
    """Findings whose subjects begin with one of `subjects`, looked for `every` so often; None: they never could be."""

    subjects: tuple[str, ...]
    every: timedelta
    find: Callable[[datetime], Iterable[Finding]]
    findings: list[Finding] | None = None
    again: datetime | None = None
    _looking: Thread | None = None

    def is_time(self, now: datetime) -> bool:
        if self._looking is not None and self._looking.is_alive():
            return False
        return self.again is None or now >= self.again or self.again - now > self.every

    def look(self, now: datetime) -> None:
        """Find them, in a thread of their own: what takes long is found for a later look, and no other waits for it.

        Until then, and where it fails, what was found before holds.
        """
        self.again = now + self.every
        self._looking = Thread(target=self._find, args=(now,), name=f"alerts: {self.subjects[0]}", daemon=True)
        self._looking.start()
        self._looking.join(_PATIENCE)

    def _find(self, now: datetime) -> None:
        try:
            self.findings = list(self.find(now))
        except (IonbeamError, OSError) as error:
            log.warning("%s... cannot be looked for: %s", self.subjects[0], error)
        except BaseException:  # polars panics with one that is no Exception
            log.exception("%s... cannot be looked for", self.subjects[0])


class Alerting:
    """Tells of a platform's troubles by every one of `ways`."""

    def __init__(self, platform: Platform, settings: AlertSettings, watch: Watch, ways: Sequence[Way]) -> None:
        self._platform, self._settings, self._watch, self._ways = platform, settings, watch, ways
        self._known: dict[str, Alert] = {}
        self._stored: dict[str, Alert] | None = None
        self._said: dict[str, set[str]] = {}
        """What was told of each subject, but for numbers: what joins it is told, too."""
        self._away: set[int] = set()
        """Ways that did not take a message at this look: none of the others waits for them."""
        self._sending = [Matter(log) for _ in ways]
        self._kinds = [
            _Kind(("silence of ", "lateness of ", "gaps of "), _SOURCES_AGAIN, self._of_sources),
            _Kind(("stations of ",), _STATIONS_AGAIN, self._of_stations),
        ]
        self._stop = Event()

    def start(self) -> None:
        Thread(target=self._run, name="alerts", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self.look()
            except BaseException:  # polars panics with one that is no Exception; whatever it is, it is tried again
                log.exception("alerts could not be told; again in a moment")

    def look(self) -> None:
        """See what is wrong now, and tell of what began or ended."""
        if not self._is_ours():
            self._known, self._stored, self._said = {}, None, {}
            return
        if not self._watch.findings():
            return  # nobody has looked yet
        self._remember()
        now = self._platform.now()
        found = self._troubles(now)
        self._away.clear()
        for subject, words in found.items():
            known = self._known.get(subject, Alert(subject, now, words))
            told = known.told and not self._is_joined(known, words)
            self._known[subject] = replace(known, words=words, told=told, since=min(known.since, now))  # a clock ahead
        for alert in list(self._known.values()):
            lasted = now - alert.since
            if alert.subject in found:
                if not alert.told and lasted >= self._settings.after:
                    self._begins(alert, now)
            elif not _is_open(alert.subject, found):
                self._ends(alert, now)
        self._save()

    def _begins(self, alert: Alert, now: datetime) -> None:
        if self._tell(Message("begins", alert.subject, alert.words, alert.since, now)):
            self._known[alert.subject] = replace(alert, told=True)
            self._said.setdefault(alert.subject, set()).update(_matters(alert.words))
            self._save()

    def _ends(self, alert: Alert, now: datetime) -> None:
        was_short = not alert.told and now - alert.since < self._settings.after
        if was_short or self._tell(Message("ended", alert.subject, alert.words, alert.since, now)):
            del self._known[alert.subject]
            self._said.pop(alert.subject, None)
            self._save()

    def _is_joined(self, known: Alert, words: str) -> bool:
        """Whether a matter is there that was not told of a subject: another disk, another store."""
        if any(known.subject.startswith(kind.subjects) for kind in self._kinds):
            return False  # a source each
        said = self._said.setdefault(known.subject, _matters(known.words))
        return not said.issuperset(_matters(words))

    # -- what is wrong -------------------------------------------------------------------------------------------

    def _troubles(self, now: datetime) -> dict[str, str]:
        """By subject, what is wrong and what to do."""
        told: dict[str, list[str]] = {}
        for one in self._watch.findings():
            if one.severity in ("warning", "error"):
                subject = one.subject if one.severity == "error" else one.subject + _WARNING
                told.setdefault(subject, []).append(f"{one.words}. {one.remedy}")
        can_ask = can_ask_ledger(self._platform)
        for kind in self._kinds:
            if can_ask and kind.is_time(now):
                kind.look(now)
            findings = kind.findings
            for one in findings or ():
                told.setdefault(one.subject, []).append(f"{one.words}. {one.remedy}")
            if findings is None:  # it was never seen: what was remembered holds
                remembered = (one for one in self._known.values() if one.subject.startswith(kind.subjects))
                told |= {one.subject: one.words.splitlines() for one in remembered}
        return {subject: "\n".join(lines) for subject, lines in told.items()}

    def _of_sources(self, now: datetime) -> Iterator[Finding]:
        wanted = self._settings
        for name, source in self._platform.config.sources.items():
            found = lately(self._platform, source, now, 2 * wanted.silence)
            looked_for = now - self._platform.ledger.alerts.looked_since(name, now)
            if found.silent_for > wanted.silence <= looked_for:
                since = now - found.silent_for if found.newest is None else found.newest
                words = f"nothing of {name} is newer than {since:%Y-%m-%d %H:%M}"
                if found.arrived_at is not None and now - found.arrived_at <= wanted.silence:
                    words += f", though rows came until {found.arrived_at:%Y-%m-%d %H:%M}: it sends again what is old"
                yield Finding(f"silence of {name}", "warning", words, f"`ionbeam gaps {name}` shows since when and why")
            if looked_for < _LEARNT_AFTER:
                continue
            if wanted.lateness is not None and found.latest is not None and found.latest > wanted.lateness:
                words = f"{name} comes {in_short(found.latest)} late, or later, in one hour of twenty"
                yield Finding(f"lateness of {name}", "warning", words, "see what of its way is slow")
            share = found.completeness
            if wanted.completeness is not None and share is not None and share < wanted.completeness:
                words = f"{percent(share)} of a day of {name} was collected"
                remedy = f"`ionbeam gaps {name}` shows each gap, and how it is filled"
                yield Finding(f"gaps of {name}", "warning", words, remedy)

    def _of_stations(self, _: datetime) -> Iterator[Finding]:
        share = self._settings.silent_stations
        if share is None:
            return
        for name in self._platform.config.sources:
            found = up_to_date(self._platform, name)
            if found is not None and found.silent.height > share * found.heard:
                yield Finding(
                    f"stations of {name}", "warning", silent_in_words(found), f"`ionbeam heard {name}` shows each"
                )

    # -- what is remembered --------------------------------------------------------------------------------------

    @cached_property
    def _job(self) -> Job:
        return self._platform.ledger.job("alerts")

    def _is_ours(self) -> bool:
        """Whether this process tells; where the ledger cannot say, several may: better twice than never."""
        try:
            return self._job.is_ours or self._job.acquire()
        except (StoreError, OSError):
            return True

    def _remember(self) -> None:
        """Take up what others were told, once the ledger can say so."""
        if self._stored is not None:
            return
        try:
            self._stored = {one.subject: one for one in self._platform.ledger.alerts.all()}
        except (StoreError, OSError):
            return
        for subject, one in self._stored.items():
            here = self._known.get(subject)
            self._known[subject] = one if here is None else replace(one, told=one.told or here.told)

    def _save(self) -> None:
        """Let the ledger remember what is known here; what it does not take is tried again at the next look."""
        if self._stored is None:
            return
        alerts = self._platform.ledger.alerts
        with suppress(StoreError, OSError):
            for subject in self._stored.keys() - self._known.keys():
                alerts.end(subject)
                del self._stored[subject]
            for subject, alert in self._known.items():
                if self._stored.get(subject) != alert:
                    alerts.keep(alert)
                    self._stored[subject] = alert

    def _tell(self, message: Message) -> bool:
        """Whether somebody was told: one way is enough, and those that failed are in the log."""
        told = False
        for place, way in enumerate(self._ways):
            if place in self._away:
                continue
            try:
                way(message)
                told = True
                self._sending[place].goes_well("alerts are taken again")
            except NotSent as error:
                self._away.add(place)
                self._sending[place].goes_wrong(str(error), f"{error}; it is tried again")
            except Exception:  # the others, and the troubles that follow, are told all the same
                log.exception("an alert on %s could not be sent; it is tried again", message.subject)
        return told


def _matters(words: str) -> set[str]:
    return set(map(matter_of, words.splitlines()))


def _is_open(subject: str, found: Mapping[str, str]) -> bool:
    """Whether a subject that is not found may go on: it cannot be looked at, or is worse than a warning by now."""
    is_blind = subject not in _BLIND and not _BLIND.isdisjoint(found)
    return is_blind or subject.removesuffix(_WARNING) in found
