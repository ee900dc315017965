"""How late what a source gives comes in, and what is usual.

Belongs here: what is measured of one ingestion, and the usual lateness of many. Does not belong here: where the
measurements are kept (stores/ledger), or what is waited for (decisions.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from ionbeam_dagster.domain.records import Claim, Lateness
from ionbeam_dagster.domain.windows import DAY

HISTORY = DAY
"""Data that come so late are no late data but a backfill."""


def lateness_of(claim: Claim) -> timedelta:
    """How long after the end of what it collected an ingestion arrived, rounded up to two digits of seconds.

    Rounded, so that a week of any number of ingestions is told in few `Lateness`.
    """
    if claim.arrived_at is None or claim.arrived_at <= claim.collected.end:
        return timedelta(0)
    seconds = math.ceil((claim.arrived_at - claim.collected.end).total_seconds())
    unit = 10 ** max(0, len(str(seconds)) - 2)
    return timedelta(seconds=-(-seconds // unit) * unit)


def usual_lateness(measured: Iterable[Lateness], share: float = 0.95) -> timedelta:
    """The lateness that `share` of the ingestions do not exceed; none where nothing was measured.

    Every hour of arrival weighs the same, so that a backfill, which brings much of long ago at once, is not taken for
    the way in which data usually arrive. What is more than HISTORY late is a backfill for certain, and left out.
    """
    live = [one for one in measured if one.late <= HISTORY]
    an_hour: Counter[datetime] = Counter()
    for one in live:
        an_hour[one.hour] += one.count
    reached = 0.0
    late = timedelta(0)
    for one in sorted(live, key=lambda one: one.late):
        if reached >= share * len(an_hour) - 1e-9:
            break
        late, reached = one.late, reached + one.count / an_hour[one.hour]
    return late
