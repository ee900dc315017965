"""The sensor that compares files, sources and ledger every few minutes, and puts on the agenda what does not agree.

Its ticks also tell the pages of assets what fails for long. Belongs here: how long a tick may take, and what it says.
Does not belong here: the comparison (pipeline/reconciliation.py), or the work, which automation does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from time import monotonic

import dagster as dg

from ionbeam_dagster.orchestration.overdue import report_overdue
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline.reconciliation import Reconciled, reconciling

EVERY = timedelta(minutes=3)
"""How long after the end of a comparison the next one begins."""
SECONDS = 20.0
"""How long a tick may go on; a comparison that takes longer goes on in the next one."""
_LOOKED_EVERY = 30
_SHOWN = 10


class _Comparison:
    """A comparison that goes on from tick to tick; a process that ends begins the next one anew."""

    def __init__(self) -> None:
        self._steps: Iterator[None] | None = None
        self.found = Reconciled()

    def go_on(self, ionbeam: PlatformResource | WatchedPlatform, now: datetime) -> bool:
        """Compare for at most SECONDS; whether it came to its end."""
        if self._steps is None:
            self.found = Reconciled()
            self._steps = reconciling(ionbeam.platform, now, self.found)
        steps, self._steps = self._steps, None  # what fails begins anew
        until = monotonic() + SECONDS
        for _ in steps:
            if monotonic() > until:
                self._steps = steps
                return False
        return True

    @property
    def goes_on(self) -> bool:
        return self._steps is not None


def reconciliation_sensor(ionbeam: PlatformResource | WatchedPlatform) -> dg.SensorDefinition:
    """``reconciliation``, one for the whole platform."""
    comparison = _Comparison()
    automation = ionbeam.platform.config.automation

    @dg.sensor(
        name="reconciliation",
        minimum_interval_seconds=_LOOKED_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING if automation.enabled else dg.DefaultSensorStatus.STOPPED,
        description=(
            "Compares all files with the ledger: what is lost, damaged or from the future is made again by automation, "
            "and what a person has to do stands in the tick's log."
        ),
    )
    def reconciliation(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        reported = json.loads(context.cursor or "[]")
        overdue = report_overdue(ionbeam.platform, context.instance, ionbeam.platform.now(), reported)
        return dg.SensorResult(skip_reason=compare(context), cursor=json.dumps(overdue))

    def compare(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = ionbeam.platform.now()
        last = ionbeam.platform.ledger.reconciliations.last()
        ago = "never" if last is None else f"{(now - last) // timedelta(seconds=1)} s ago"
        if not comparison.goes_on and last is not None and timedelta(0) <= now - last < EVERY:
            return dg.SkipReason(f"files were last compared with the ledger {ago}")
        if not comparison.go_on(ionbeam, now):
            return dg.SkipReason(f"files are being compared with the ledger; that was last finished {ago}")
        found = comparison.found
        for told in found.for_a_person[:_SHOWN]:
            context.log.error(told)
        for work in found.work[:_SHOWN]:
            context.log.warning(f"{work.of} {work.window}: {work.reason}; to {work.stage}")
        return dg.SkipReason(
            f"files were compared with the ledger: {len(found.work)} windows to be made again, "
            f"{len(found.for_a_person)} for a person to look at"
        )

    return reconciliation
