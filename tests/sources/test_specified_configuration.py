"""The specification's configuration, with addresses and accounts filled in, runs all its sources and nothing else."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import codc
import dagster as dg
import polars as pl
import pytest
import yaml
from meteotracker_service import MeteoTrackers, synthetic_drive
from netatmo_service import Weather
from sensor_community_service import Archive, synthetic_day
from test_config import SPECIFICATION

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import run_range
from ionbeam_dagster.pipeline.recovery import open_platform

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

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
        yield open_platform(IonbeamConfig.load(place))


def test_every_source_goes_all_the_way_to_its_exports_and_nothing_else_runs(platform):
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1, minutes=30)  # the EDR service keeps a day
    begins = {"ioncannon": SEVEN, "meteotracker": SEVEN, "sensor_community": SEVEN, "netatmo": an_hour_ago}
    with dg.DagsterInstance.ephemeral() as instance:
        for name, begin in begins.items():
            window = window_of(begin, platform.config.sources[name].window_size)
            done = run_range(platform, name, window.start, window.end, instance)
            assert [one for one in done if one.failure] == []
        ran = {key.to_user_string() for key in instance.all_asset_keys()}
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}

    stages = ("raw", "observations", "dataset", "odb", "pygeoapi")
    assert ran == {f"{name}/{stage}" for name in begins for stage in stages}
    stations = {f"{name}/{asset}" for name in begins for asset in ("stations", "heard")}
    known = build_definitions(WatchedPlatform(platform)).resolve_asset_graph().get_all_asset_keys()
    assert {key.to_user_string() for key in known} == ran | stations | {
        "pygeoapi_config",
        "retention",
        "history",
        "report",
    }
    assert {path.name for path in Path("data-raw").iterdir() if path.is_dir()} >= set(begins)
    assert {path.name for path in Path("data-projections").glob("*/*")} == set(begins)

    rows = dict.fromkeys(begins, 0)
    for path in Path("data-projections").glob("*/*/*"):
        name, format = path.parent.name, path.parent.parent.name
        dataset = pl.read_parquet(Path("data", name, f"{path.stem}_r1.parquet"))
        if format == "odb":
            warmth = dataset["air_temperature__degC__2.0__point__PT0S"].drop_nulls()
            found = codc.read_odb(str(path), columns=["varno@body", "obsvalue@body"], single=True)
            kelvin = found[found["varno@body"] == 39]["obsvalue@body"].to_list()
            # Rows of one analysis stand before those of the next; a first moment may be of the one before.
            assert sorted(kelvin) == pytest.approx(sorted(warmth + 273.15), rel=1e-6) and kelvin
        else:
            assert pl.read_parquet(path).height == dataset.height
            rows[name] += dataset.height
    assert rows.pop("netatmo") > 200
    assert rows == {"ioncannon": 1000, "meteotracker": 200, "sensor_community": 6 * 24}
