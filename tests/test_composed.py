"""The whole platform of deployments/compose as processes: a smoke test through all of it, with two workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from composed import MINUTE, NAMES, done_twice, exported, logs, minute, running, sending, sources, until

from ionbeam_dagster.domain.windows import windows_between

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


def test_two_workers_do_all_of_it_and_no_window_twice(tmp_path, request):
    end = minute(datetime.now(UTC)) - timedelta(minutes=datetime.now(UTC).minute % 2)
    start = end - timedelta(minutes=10)
    wanted = list(windows_between(start, end, 2 * MINUTE))
    with (
        running(tmp_path, sources(start, "PT2M"), request) as (composed, platform),
        sending(platform, tmp_path) as sent,
    ):
        until(lambda: all(exported(platform, name, wanted) for name in NAMES), 900, lambda: logs(composed))
        until(lambda: any(exported(platform, "crowd", [one]) for one in list(sent)), 300, lambda: logs(composed))
        composed.wait(list(composed.services), 600)
        assert not any(done_twice(platform, name, start) for name in NAMES)
