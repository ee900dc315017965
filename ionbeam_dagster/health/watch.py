"""Health, looked at again and again in a thread of its own, for processes that stay and are asked.

Belongs here: when it is looked, and what is answered meanwhile. Does not belong here: the checks, or HTTP (the doors,
the web service, and the worker's own page have what `answer` gives).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Set
from importlib.metadata import version
from threading import Event, Thread

from ionbeam_dagster.health import clocks, disks, quality, queues, stores, wis2, work
from ionbeam_dagster.health.examination import Check, Examination
from ionbeam_dagster.health.findings import Finding, matter_of
from ionbeam_dagster.pipeline.platform import Platform

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds from the end of one look to the next."""
_STALE = 45.0
"""Seconds after which what was seen says nothing any longer: the looking itself hangs."""
_ITSELF = "health"
DOORS = frozenset({disks.SUBJECT, queues.DOOR, _ITSELF})
"""Subjects whose errors are the HTTP door's own: it may take no lines, or does not take them in."""


def _checks(
    platform: Platform, progress: work.Progress, growth: queues.Growth, steps: clocks.Steps
) -> dict[str, Check]:
    """What a process that stays looks at: what costs little, and turns within a minute."""
    return {
        stores.LEDGER: lambda: stores.ledger(platform),
        stores.FILES: lambda: stores.files(platform),
        stores.OBSERVATIONS: lambda: stores.observations(platform),
        disks.SUBJECT: lambda: disks.fullness(platform),
        clocks.SUBJECT: lambda: (*clocks.at_a_glance(platform), *steps.findings()),
        quality.SUBJECT: lambda: quality.quality(platform),
        work.SUBJECT: lambda: progress.findings(platform),
        "failures": lambda: work.failing(platform),
        queues.BUS: lambda: growth.findings(platform),
        queues.DOOR: lambda: queues.door(platform),
        queues.MQTT: lambda: queues.mqtt(platform),
        wis2.SUBJECT: lambda: wis2.wis2(platform),
    }


def _matter(one: Finding) -> tuple[str, str, str]:
    return one.subject, one.severity, matter_of(one.words)


class Watch:
    """Looks until `stop`, also at what `further` checks look at. What it found is told to whoever asks, and to the log,
    or whatever `tell` is, when it changes."""

    def __init__(
        self,
        platform: Platform,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
        further: Mapping[str, Check] | None = None,
        tell: Callable[[int, str], object] = log.log,
    ) -> None:
        self.progress, self.growth, steps = work.Progress(), queues.Growth(), clocks.Steps()
        self._examination = Examination({**_checks(platform, self.progress, self.growth, steps), **(further or {})})
        self._every, self._clock, self._tell = every, clock, tell
        self._found: list[Finding] = []
        self._looked = clock()
        self._stop = Event()

    def start(self) -> Watch:
        Thread(target=self._run, name="health", daemon=True).start()
        return self

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except BaseException:  # polars panics with one that is no Exception
                log.exception("health could not be looked at; again in a moment")
            self._stop.wait(self._every)

    def look(self) -> None:
        """Look now."""
        known = {_matter(one) for one in self._found}
        before = {(one.subject, one.severity) for one in self._found}
        self._found = self._examination.look()
        self._looked = self._clock()
        for one in self._found:
            if one.severity in ("warning", "error") and _matter(one) not in known:
                level = logging.ERROR if one.severity == "error" else logging.WARNING
                self._tell(level, f"{one.subject}: {one.words}; {one.remedy}")
        now = {(one.subject, one.severity) for one in self._found}
        for subject in sorted({subject for subject, severity in before - now if severity == "error"}):
            if (subject, "error") not in now:
                self._tell(logging.WARNING, f"{subject}: is well again")

    def findings(self) -> list[Finding]:
        """What was seen last, the gravest first."""
        since = self._clock() - self._looked
        if since > _STALE:
            words = f"nothing was looked at for {since:.0f} s"
            return [Finding(_ITSELF, "error", words, "the process hangs: end it, and start it again"), *self._found]
        return self._found

    def answer(self, in_full: bool, fatal: Set[str] | None = None) -> tuple[int, bytes]:
        """Status and JSON of a page ``/health``, in the form of InfluxDB's, which clients of the door know.

        Not `in_full`, for pages that anybody may see, it says which subjects are not well, and nothing else of them.
        With `fatal`, errors of other subjects are told, and are no reason to fail.
        """
        found = self.findings()
        wrong = sorted({one.subject for one in found if one.severity == "error"})
        is_well = not (wrong if fatal is None else fatal & set(wrong))
        told = f"not well: {', '.join(wrong)}; `ionbeam doctor` tells more"
        message = told if not is_well else f"ready, but {told}" if wrong else "ready"
        document = {
            "name": "ionbeam",
            "status": "pass" if is_well else "fail",
            "message": message,
            "version": version("ionbeam-dagster"),
            "checks": [
                {"name": one.subject, "status": "fail" if one.severity == "error" else "pass"}
                | ({"severity": one.severity, "message": one.words, "remedy": one.remedy} if in_full else {})
                for one in found
            ],
        }
        return (200 if is_well else 503), json.dumps(document).encode()
