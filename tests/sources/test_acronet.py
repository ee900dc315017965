"""Acronet over real HTTP: units, what means missing, the login that ends in the middle, and the storm at Chiavari."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa
import pytest
from acronet_service import LOGIN, MISSING, Webdrops

from ionbeam_client.cf import check_metadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources.acronet import Acronet, AcronetConfig
from ionbeam_dagster.testing.service import Reply, empty, html, redirected, status, truncated

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)
PLACE = (43.9, 7.7)
KNOT = 1852 / 3600


def source(service: Webdrops, folder, **settings: object) -> Acronet:
    given = {"username": "someone", "password": "very-secret", "client_secret": "client-secret", "max_retries": 1}
    config = AcronetConfig(
        base_url=f"{service.url}/app/", token_endpoint=f"{service.url}{LOGIN}", data_path=folder, **given | settings
    )
    return Acronet("acronet", config)


def rows(feed: Acronet, window: Window = WINDOW) -> list[dict]:
    batches = list(feed.fetch(window))
    return pa.Table.from_batches(batches).to_pylist() if batches else []


@pytest.fixture
def webdrops(monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", lambda seconds: None)
    with Webdrops() as service:
        service.add("TERMOMETRO", "-19_2", "Bajardo", PLACE, "°C", {NOON: 20.5, NOON + HOUR / 6: MISSING})
        yield service


def test_units_missing_values_and_the_edges_of_a_window(webdrops, tmp_path):
    webdrops.add("ANEMOMETRO_RAFFICA", "-19_5", "Bajardo", PLACE, "m/s", {NOON: 10.0})
    webdrops.add("ANEMOMETRO", "-19_6", "Bajardo", PLACE, "km/h", {NOON: 36.0, NOON + HOUR: 1.0})
    webdrops.add("IGROMETRO", "-19_7", "Bajardo", PLACE, "%", {NOON: 57.0})
    webdrops.add("BAROMETRO", "-19_8", "Bajardo", PLACE, "hPa", {NOON: 1003.5})
    webdrops.add("PLUVIOMETRO", "-19_9", "Bajardo", PLACE, "mm", {NOON: 0.4, NOON + HOUR / 6: 0.0})
    webdrops.add("IDROMETRO", "-19_10", "Bajardo", PLACE, "m", {NOON: 1.0})
    feed = source(webdrops, tmp_path)
    first, second = rows(feed)
    assert first["ANEMOMETRO_RAFFICA"] == pytest.approx(10 * KNOT, rel=1e-12)
    assert first["ANEMOMETRO"] == pytest.approx(10.0)
    kept = {name: first[name] for name in ("TERMOMETRO", "IGROMETRO", "BAROMETRO", "PLUVIOMETRO")}
    assert kept == {"TERMOMETRO": 20.5, "IGROMETRO": 57.0, "BAROMETRO": 1003.5, "PLUVIOMETRO": 0.4}
    assert (first["station_id"], first["station_name"], first["lat"], first["lon"]) == ("-19", "Bajardo", *PLACE)
    assert (second["TERMOMETRO"], second["PLUVIOMETRO"]) == (None, 0.0)
    assert feed.problems() == ["sensors of class IDROMETRO are not kept"]
    units = {v.column: v.cf_unit for v in feed.metadata.ingestion_map.canonical_variables}
    assert units["PLUVIOMETRO"] == "kg m-2" and units["IGROMETRO"] == "%" and units["BAROMETRO"] == "hPa"
    assert [p for p in check_metadata(feed.metadata) if p.severity == "error"] == []


def test_days_are_asked_for_three_at_a_time(webdrops, tmp_path):
    webdrops.series["TERMOMETRO"]["-19_2"] = {NOON + day * 24 * HOUR: float(day) for day in range(8)}
    found = rows(source(webdrops, tmp_path), Window(NOON, NOON + 7 * 24 * HOUR))
    assert [row["TERMOMETRO"] for row in found] == [float(day) for day in range(7)]
    assert len(webdrops.paths("data/TERMOMETRO")) == 3


def test_a_token_that_ends_in_the_middle_is_renewed(webdrops, tmp_path):
    webdrops.uses = 2
    assert len(rows(source(webdrops, tmp_path))) == 1
    assert (webdrops.logins, webdrops.refreshes) == (1, 1)
    webdrops.break_(LOGIN, status(400), times=1)  # no refresh: a new login
    feed = source(webdrops, tmp_path)
    with pytest.raises(SourceError, match="400"):
        rows(feed)
    assert len(rows(feed)) == 1
    with pytest.raises(SourceError, match="401") as failure:
        rows(source(webdrops, tmp_path, password="mistyped-secret"))
    assert "mistyped-secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("place", "fault", "told"),
    [
        ("data/", status(500), "500"),
        ("data/", empty, "is empty"),
        ("list/", empty, "is empty"),
        ("data/", html, "is not JSON"),
        ("list/", truncated, "broke off"),
        ("data/", redirected("http://127.0.0.1:9/elsewhere"), "no connection"),
        ("data/", lambda reply: Reply.of_json({"error": "x"}), "is no list"),
        (
            "data/",
            lambda reply: Reply.of_json([{"sensorId": "-19_2", "timeline": ["2026"], "values": []}]),
            "more times",
        ),
        (
            "data/",
            lambda reply: Reply.of_json([{"sensorId": "-19_2", "timeline": ["noon"], "values": [1]}]),
            "not YYYY",
        ),
        ("list/", lambda reply: Reply.of_json([{"id": "-19_2", "mu": "furlong"}]), "cannot become 'degC'"),
    ],
)
def test_a_failure_is_never_an_empty_window(webdrops, tmp_path, place, fault, told):
    webdrops.break_(place, fault, times=99)
    with pytest.raises(SourceError, match=told):
        rows(source(webdrops, tmp_path))


def test_classes_that_are_not_told_are_those_that_we_know(webdrops, tmp_path):
    webdrops.break_("classes", empty, times=99)
    assert len(rows(source(webdrops, tmp_path))) == 1
    webdrops.sensors.clear()
    assert rows(source(webdrops, tmp_path)) == []


def test_the_storm_at_marina_di_chiavari_comes_out_right(webdrops, real_data, platform_of):
    """Two days of a real station, in km h-1 and local time on its page: gusts of 136 km h-1 are 38 m s-1."""
    text = (real_data / "acronet" / "marina_chiavari_2022-08-18.csv").read_text()
    series: dict[str, dict[datetime, float]] = {}
    for line in text.splitlines():
        when, value = line.split(";")
        if when == "Data":
            name = value
            continue
        local = datetime.strptime(when, "%d/%m/%Y %H:%M").replace(tzinfo=ZoneInfo("Europe/Rome"))
        series.setdefault(name, {})[local.astimezone(UTC)] = float(value)
    mean, direction, gust = (series[name] for name in ("velocità media", "direzione media", "velocità raffica"))
    place = (44.313, 9.322)
    webdrops.add("ANEMOMETRO", "-77_1", "Marina", place, "km/h", mean)
    webdrops.add("DIREZIONEVENTO", "-77_2", "Marina", place, "gradi", direction)
    webdrops.add("ANEMOMETRO_RAFFICA", "-77_3", "Marina", place, "", {t: v / 1.852 for t, v in gust.items()})
    platform = platform_of(
        f"""
  acronet: {{base_url: '{webdrops.url}/app/', token_endpoint: '{webdrops.url}{LOGIN}', username: someone,
    password: very-secret, client_secret: client-secret, start: 2022-08-18, aggregation_span: P1D, exports: []}}
  scheduler: {{windows: [{{source_name: acronet, window_size: P1D}}]}}
"""
    )
    day = Window(datetime(2022, 8, 18, tzinfo=UTC), datetime(2022, 8, 19, tzinfo=UTC))
    now = datetime.now(UTC)
    collect(platform, platform.source("acronet"), day, now)
    ingest(platform, platform.source("acronet"), day)
    found = pl.read_parquet(build(platform, platform.dataset("acronet"), day, now).revision.path)
    expected = sorted(time for time in mean if day.start <= time < day.end)
    assert found["datetime"].to_list() == expected and len(expected) > 100
    speed, gusts = (
        found["wind_speed__m s-1__10.0__mean__PT10M"],
        found["wind_speed_of_gust__m s-1__10.0__maximum__PT10M"],
    )
    assert speed.to_list() == pytest.approx([mean[time] / 3.6 for time in expected], rel=1e-9)
    assert gusts.to_list() == pytest.approx([gust[time] / 3.6 for time in expected], rel=1e-9)
    assert gusts.max() == pytest.approx(136.04 / 3.6)
    assert found["wind_from_direction__degree__10.0__mean__PT10M"].to_list() == [direction[time] for time in expected]
