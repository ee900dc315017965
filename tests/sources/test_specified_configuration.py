"""The specification's configuration, with addresses and accounts filled in, runs all its sources and nothing else."""

from datetime import UTC, date, datetime, timedelta

import pytest
import yaml
from meteotracker_service import MeteoTrackers, synthetic_drive
from netatmo_service import Weather
from sensor_community_service import Archive, synthetic_day
from test_config import SPECIFICATION

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.pipeline import Platform, collect, ingest

SEVEN = datetime(2026, 6, 21, 7, tzinfo=UTC)


@pytest.fixture
def platform(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drive = synthetic_drive("aa1", "me", SEVEN, 10, 44.4, 8.9)
    day = synthetic_day(date(2026, 6, 21), 6, 24)
    with Archive({"2026-06-21": day}) as archive, MeteoTrackers([drive]) as trackers, Weather() as weather:
        said = yaml.safe_load(SPECIFICATION)
        said["sensor_community"]["base_url"] = archive.url
        said["meteotracker"] |= {"base_url": trackers.url, "username": "somebody", "password": "pa55word"}
        said["netatmo"] |= {"base_url": weather.url, "username": "somebody", "password": "pa55word"}
        for server in ("broker", "redis", "influxdb_common"):  # tests/test_back_ends.py has them
            del said[server]
        place = tmp_path / "config.yaml"
        place.write_text(yaml.safe_dump(said))
        yield Platform(IonbeamConfig.load(place))


def test_every_source_is_collected_and_ingested_and_there_are_no_others(platform):
    now = datetime.now(UTC)
    hour_ago = now - timedelta(hours=1, minutes=30)  # the EDR service keeps a day
    moments = {"ioncannon": SEVEN, "meteotracker": SEVEN, "sensor_community": SEVEN, "netatmo": hour_ago}
    assert set(platform.config.sources) == set(moments)
    rows = {}
    for name, moment in moments.items():
        window = window_of(moment, platform.config.sources[name].window_size)
        assert collect(platform, name, window, now).rows > 0
        rows[name] = ingest(platform, name, window).rows
    assert rows["sensor_community"] == 6 * 24
    assert rows["meteotracker"] == 200
    assert rows["ioncannon"] == 1000
    assert rows["netatmo"] > 200
