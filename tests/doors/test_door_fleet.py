"""A fleet reports late, twice, out of order, overlapping and into the void, to a door that dies before it answers."""

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from door_samples import FLEET, HOUR, TEMPERATURE, bring_up_to_date, opened, points
from fleet import DyingDoor, Fleet

from ionbeam_dagster.domain.windows import window_of


@pytest.mark.parametrize(
    ("devices", "hours", "step", "a_report", "deaths", "dies"),
    [
        (20, 1, timedelta(minutes=1), 10, 1, 0.05),
        pytest.param(
            1_000, 24, timedelta(minutes=10), 12, 8, 0.002, marks=[pytest.mark.soak, pytest.mark.timeout(3_000)]
        ),
    ],
)
def test_every_reading_of_a_fleet_is_there_once(platform_of, tmp_path, devices, hours, step, a_report, deaths, dies):
    platform = platform_of(FLEET, automation="{enabled: false}")
    random.seed(7)
    begun = window_of(datetime.now(UTC), HOUR)
    first = window_of(begun.start - (hours + 1) * HOUR, HOUR)
    fleet = Fleet(devices, hours * HOUR // step - 1, a_report, first.start, step)
    with DyingDoor(tmp_path, deaths, dies) as door:
        counted = fleet.send_all(door)
        assert door.died == deaths
    truth = fleet.truth()
    assert 0 < counted <= truth.height  # what was answered into the void was counted there
    with opened(platform) as (again, _):
        again.flush.run()
    ended = datetime.now(UTC)
    arrivals = [window_of(begun.start + n * HOUR, HOUR) for n in range(-1, (ended - begun.start) // HOUR + 2)]
    bring_up_to_date(platform)
    raws = {raw.path: raw.rows for window in arrivals for raw in platform.ledger.sent("garden", window)}
    assert sum(raws.values()) == truth.height  # not only the same points: no raw partition has a reading twice
    windows = [window_of(first.start + n * HOUR, HOUR) for n in range(hours)]
    rows = pl.concat([points(platform, window).select("station_id", "datetime", TEMPERATURE) for window in windows])
    found = rows.sort("station_id", "datetime")
    assert found.height == truth.height and found.drop(TEMPERATURE).equals(truth.drop(TEMPERATURE))
    assert (found[TEMPERATURE] - truth[TEMPERATURE]).abs().max() < 1e-9
