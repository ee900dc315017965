"""Whether others are told of what is given away.

Belongs here: what they were not told of for long, as a finding. Does not belong here: what is given away (wis2/).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.wis2.giving import due
from ionbeam_dagster.wis2.telling import RECENT

SUBJECT = "wis2"
_WAITS = timedelta(minutes=10)
"""How old what others were not told of may be: it is told within seconds."""
_REMEDY = "start `ionbeam wis2 publish --follow`, or see in its log why the broker does not have it"


def wis2(platform: Platform) -> Iterator[Finding]:
    """What of recent windows, or of notices that were made, others were not told of for long."""
    if platform.config.sections.wis2 is None or not can_ask_ledger(platform):
        return
    now = platform.now()
    late = sorted(since for since in _untold(platform, now) if now - since > _WAITS)
    if late:
        words = f"{len(late):,} files are given away, and others are not told of them, the oldest for "
        yield Finding(SUBJECT, "warning", words + in_short(now - late[0]), _REMEDY)
    else:
        yield Finding(SUBJECT, "well", "others are told of what is given away")


def _untold(platform: Platform, now: datetime) -> Iterator[datetime]:
    """Since when others are not told of each of them."""
    settings = platform.config.sections.wis2
    assert settings is not None
    yield from (one.made for one in platform.ledger.notices.open() if one.of.partition("/")[0] in settings.datasets)
    for dataset in settings.datasets:
        for some in due(platform, settings, dataset, now - RECENT):
            for one in some:
                found = None if one.made.path is None else platform.files.found(one.made.path)
                if found is not None:
                    yield found.modified
