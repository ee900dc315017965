"""Checks done side by side, each in a thread of its own: one that hangs is told of, and holds up no other.

Belongs here: how checks are run. Does not belong here: what they look at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Thread

from ionbeam_dagster.errors import IonbeamError
from ionbeam_dagster.health.findings import SEVERITIES, Finding, of_error
from ionbeam_dagster.health.stores import LEDGER
from ionbeam_dagster.stores.ledger import LedgerError

log = logging.getLogger(__name__)

WITHIN = 30.0
"""Seconds in which a check has to answer."""

Check = Callable[[], Iterable[Finding]]


class _Running:
    """One check, as it is being done."""

    def __init__(self, subject: str, check: Check) -> None:
        self.since = time.monotonic()
        self.findings: list[Finding] = []
        self._subject, self._check = subject, check
        self.thread = Thread(target=self._run, name=f"check {subject}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.findings = list(self._check())
        except LedgerError as error:  # whoever asks it meets it
            self.findings = [of_error(LEDGER, error)]
        except (IonbeamError, OSError) as error:
            self.findings = [of_error(self._subject, error)]
        except BaseException as error:  # as polars panics; whatever is wrong with one check, the others are heard
            log.exception("%s cannot be looked at", self._subject)
            self.findings = [of_error(self._subject, error)]


class Examination:
    """Checks by their subjects, to be done once or again and again."""

    def __init__(self, checks: Mapping[str, Check], within: float = WITHIN) -> None:
        self._checks = checks
        self._within = within
        self._running: dict[str, _Running] = {}

    def look(self) -> list[Finding]:
        """What all of them find, the gravest first; takes `within` seconds at most."""
        for subject, check in self._checks.items():
            known = self._running.get(subject)
            if known is None or not known.thread.is_alive():
                self._running[subject] = _Running(subject, check)
        until = time.monotonic() + self._within
        found: list[Finding] = []
        for subject, running in self._running.items():
            running.thread.join(max(0.0, until - time.monotonic()))
            found += [_hangs(subject, running)] if running.thread.is_alive() else running.findings
        return sorted(_told_once(found), key=lambda one: -SEVERITIES.index(one.severity))


def _hangs(subject: str, running: _Running) -> Finding:
    words = f"no answer for {time.monotonic() - running.since:.0f} s"
    return Finding(subject, "error", words, "see whether a server, or a disk, that it asks hangs")


def _told_once(findings: Iterable[Finding]) -> Iterable[Finding]:
    """A store that is away is the same fault to every check that asks it."""
    return {(one.words, one.remedy): one for one in reversed(list(findings))}.values()
