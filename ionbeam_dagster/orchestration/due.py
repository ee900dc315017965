"""The condition that asks the agenda: which windows of an asset have work to be done, whatever Dagster remembers.

Belongs here: `Due`, a condition that is true for the windows that the agenda gives out, and that has their tries
counted. It remembers nothing, so that a lost cursor, down-time or a fresh Dagster instance change nothing. Does not
belong here: what is due (pipeline/agenda), or how that is combined with what Dagster knows (automation.py).
"""

from __future__ import annotations

from datetime import datetime

import dagster as dg

from ionbeam_dagster.orchestration.holders import worker_is_alive
from ionbeam_dagster.orchestration.internals import keys_of, subset_of
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import Stage, Work
from ionbeam_dagster.stores.ledger.leases import is_held


class Due(dg.AutomationCondition[dg.AssetKey]):
    """True for the windows of which the agenda has work at `stage` that may begin.

    To stand last in its chain of conditions, so that being true is being requested. It is silent while a worker does
    the work: this is the safety net.
    """

    done_by_worker = True
    """Whether the work is done by `ionbeam worker` where one is alive."""

    def __init__(self, ionbeam: PlatformResource | WatchedPlatform, stage: Stage, of: str, why: str) -> None:
        self._ionbeam = ionbeam
        self._stage = stage
        self._of = of
        self._why = why
        self._asked = False

    @property
    def name(self) -> str:
        return f"to_{self._stage}"

    @property
    def description(self) -> str:
        return self._why

    def work(self, now: datetime) -> list[Work]:
        """What may begin now, the newest window first; the first time whatever was postponed is looked at again."""
        afresh, self._asked = not self._asked, True
        return agenda.due_of(self._ionbeam.platform, self._stage, self._of, now, afresh)

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        if context.candidate_subset.is_empty:
            return dg.AutomationResult(context, context.candidate_subset)
        now, platform = context.evaluation_time, self._ionbeam.platform
        if self.done_by_worker and worker_is_alive(platform):
            return dg.AutomationResult(context, context.get_empty_subset())
        held = platform.ledger.leases.held()
        free = [one for one in self.work(now) if not is_held(held, one.stage, one.of, one.window)]
        work = {one.window.key: one for one in agenda.probed(platform, self._stage, self._of, free)}
        wanted = subset_of(context, work).compute_intersection(context.candidate_subset)
        agenda.begin(platform, [work[key] for key in keys_of(wanted)], now)
        return dg.AutomationResult(context, wanted)
