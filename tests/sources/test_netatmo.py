"""Netatmo by EDR, over real HTTP: areas that share nothing and lose nothing, and what the service may do wrong."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
from netatmo_service import Esoh, Weather, coverage

from ionbeam_client.cf import check_metadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources.netatmo.edr import COUNTRIES, Area, NetatmoConfig, NetatmoEdr, tiles_of
from ionbeam_dagster.testing.service import empty, html, redirected, slow, status, truncated

HOUR = timedelta(hours=1)
FULL = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
WINDOW = Window(FULL - 2 * HOUR, FULL - HOUR)
TEMPERATURE = "air_temperature:2.0:point:PT0S"
HUMIDITY = "relative_humidity:2.0:point:PT0S"
WIND = "wind_speed:2.0:mean:PT5M"
BOX = (4.0, 50.0, 7.0, 53.0)


def moment(minutes: float) -> str:
    return (WINDOW.start + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def one(station: str, lon: float, lat: float, value: object = 1.5, minutes: float = 5) -> dict:
    return coverage(station, lon, lat, {TEMPERATURE: [value]}, [moment(minutes)])


def source(service: Esoh, folder, **settings: object) -> NetatmoEdr:
    given = {"countries": (), "areas": {"box": BOX}, "max_retries": 1, "timeout_seconds": 2, "data_path": folder}
    return NetatmoEdr("netatmo", NetatmoConfig(base_url=service.url, **given | settings))


def rows(feed: NetatmoEdr, window: Window = WINDOW) -> list[dict]:
    batches = list(feed.fetch(window))
    return pa.Table.from_batches(batches).to_pylist() if batches else []


@pytest.fixture
def esoh(monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", lambda seconds: None)
    with Esoh() as service:
        yield service


def test_every_station_once_whatever_the_areas(esoh, tmp_path):
    borders = [(4 + x, 50 + y) for x in range(4) for y in range(4)]  # corners and edges of the nine pieces
    inside = [(4.5, 50.5), (6.99999, 52.99999), (5.0000001, 51.0)]
    esoh.coverages = [one(f"s{number}", *place) for number, place in enumerate(borders + inside)]
    for tiles in (1, 3, 7):
        found = rows(source(esoh, tmp_path, tiles=tiles))
        assert sorted(row["station_id"] for row in found) == sorted(f"s{n}" for n in range(len(esoh.coverages)))
    overlapping = source(esoh, tmp_path, areas={"box": BOX, "again": (3.0, 49.0, 6.5, 52.5)})
    assert len(rows(overlapping)) == len(esoh.coverages)
    esoh.most = 2
    before = len(esoh.seen)
    assert len(rows(source(esoh, tmp_path, tiles=1))) == len(esoh.coverages)
    assert len(esoh.seen) - before > 5  # it was cut into pieces


def test_tiles_share_no_place_and_leave_none_out():
    areas = [piece for box in (COUNTRIES["france"], COUNTRIES["italy"]) for piece in Area(*box).cut(3)]
    grid = pl.DataFrame({"lon": [x / 4 for x in range(-24, 80)]}).join(
        pl.DataFrame({"lat": [y / 4 for y in range(140, 210)]}), how="cross"
    )
    owned = grid.select(pl.sum_horizontal(tile.own().cast(pl.Int8) for tile in tiles_of(areas)).alias("owners"))
    whole = grid.select(Area(*COUNTRIES["france"]).holds() | Area(*COUNTRIES["italy"]).holds()).to_series()
    assert owned["owners"].to_list() == whole.cast(int).to_list()


def test_windows_are_half_open_and_parameters_of_several_coverages_are_one_row(esoh, tmp_path):
    other_key = one("s1", 4.5, 50.5, minutes=0)
    other_key["metocean:wigosId"] = other_key.pop("rodeo:wigosId")
    esoh.coverages = [
        other_key,
        coverage("s1", 4.5, 50.5, {HUMIDITY: ["80"]}, [moment(0)]),
        one("s1", 4.5, 50.5, 9.9, minutes=60),
        one("0-20000-0-06280", 4.6, 50.5),
        one("s2", 4.7, 50.5, None),
        coverage("s3", 4.8, 50.5, {"air_temperature:2.0:mean:PT1M": [3.0]}, [moment(5)]),
    ]
    feed = source(esoh, tmp_path)
    [row] = rows(feed)
    assert row["station_id"] == row["platform_id"] == "s1"
    assert (row[TEMPERATURE], row[HUMIDITY], row[WIND]) == (1.5, 80.0, None)
    assert row["datetime"] == WINDOW.start and row["mobility"] == "fixed"
    assert feed.problems() == ["1 stations of other networks in one area were left out (exclude_stations)"]
    assert len(rows(source(esoh, tmp_path, exclude_stations="^$"))) == 2


def test_nothing_there_is_an_empty_window_and_every_failure_is_one(esoh, tmp_path):
    assert rows(source(esoh, tmp_path)) == []
    esoh.coverages = [one("s1", 4.5, 50.5)]
    for fault, told in [
        (status(500), "500 Internal Server Error"),
        (status(404), "check base_url"),
        (status(429, retry_after="4000"), "429"),
        (truncated, "broke off"),
        (empty, "is no JSON"),
        (html, "is no JSON .*DOCTYPE"),
        (redirected("http://127.0.0.1:9/elsewhere"), "no connection"),
    ]:
        esoh.break_("area", fault, times=99)
        with pytest.raises(SourceError, match=told):
            rows(source(esoh, tmp_path))
        esoh.repair()
    for fault in (status(500), status(429, retry_after="1"), truncated):
        esoh.break_("area", fault)
        assert len(rows(source(esoh, tmp_path))) == 1
    with pytest.raises(SourceError, match="404"):
        list(NetatmoEdr("netatmo", NetatmoConfig(base_url=f"{esoh.url}/wrong", data_path=tmp_path)).fetch(WINDOW))


def test_an_answer_that_takes_too_long_is_asked_for_in_pieces(esoh, tmp_path):
    esoh.coverages = [one("s1", 4.5, 50.5), one("s2", 6.5, 52.5)]
    esoh.break_("area", slow(1), times=1)
    feed = source(esoh, tmp_path, tiles=1, timeout_seconds=0.3, max_retries=0)
    assert sorted(row["station_id"] for row in rows(feed)) == ["s1", "s2"]
    assert len(esoh.seen) == 5


def test_passwords_go_home_and_into_no_error(esoh, tmp_path):
    esoh.username, esoh.password = "someone", "very-secret"
    esoh.coverages = [one("s1", 4.5, 50.5)]
    assert len(rows(source(esoh, tmp_path, username="someone", password="very-secret"))) == 1
    with pytest.raises(SourceError, match="401") as failure:
        rows(source(esoh, tmp_path, username="someone", password="mistyped-secret"))
    assert "mistyped-secret" not in str(failure.value)
    with Esoh([one("s9", 4.5, 50.5)]) as elsewhere:
        esoh.break_("area", redirected(f"{elsewhere.url}/collections/observations/area"), times=99)
        with pytest.raises(SourceError):
            rows(source(esoh, tmp_path, username="someone", password="very-secret"))
        assert all("authorization" not in request.headers for request in elsewhere.seen)


def test_what_the_service_says_of_a_bad_request_is_told(esoh, tmp_path):
    esoh.break_("area", lambda reply: reply.of_json({"detail": {"coords": "Invalid or unparseable wkt"}}, 400))
    with pytest.raises(SourceError, match="Invalid or unparseable wkt"):
        rows(source(esoh, tmp_path))
    esoh.known = {TEMPERATURE}  # none of the others has data today
    esoh.coverages = [one("s1", 4.5, 50.5)]
    assert len(rows(source(esoh, tmp_path))) == 1


def test_a_window_that_the_service_keeps_no_more_is_a_failure(esoh, tmp_path):
    old = Window(FULL - 30 * HOUR, FULL - 29 * HOUR)
    with pytest.raises(SourceError, match=r"keeps 1 day, 0:00:00 only.*netatmo_archive"):
        rows(source(esoh, tmp_path), old)
    assert not esoh.seen


def test_units_are_those_that_are_declared(esoh, tmp_path):
    kelvin = one("s1", 4.5, 50.5, 273.15)
    kelvin["parameters"][TEMPERATURE]["unit"] = {"symbol": {"value": "K", "type": "http://example.org"}}
    esoh.coverages = [kelvin]
    assert rows(source(esoh, tmp_path))[0][TEMPERATURE] == 0.0
    kelvin["parameters"][TEMPERATURE]["unit"] = {"label": {"en": "percent"}}
    with pytest.raises(SourceError, match=r"has air_temperature:2.0:point:PT0S in 'percent'"):
        rows(source(esoh, tmp_path))
    assert [p for p in check_metadata(source(esoh, tmp_path).metadata) if p.severity == "error"] == []


def test_the_samples_of_e_soh_become_a_dataset_value_for_value(esoh, real_data, platform_of):
    names = ["test_single_covjson", "test_multiple_covjson", "test_coverages_covjson"]
    documents = [json.loads((real_data / "esoh" / f"{name}.json").read_text()) for name in names]
    samples = [one for document in documents for one in document.get("coverages", [document])]
    parameters = sorted({name for one in samples for name in one["ranges"]})
    expected: dict[tuple, dict] = {}
    for sample in samples:
        esoh.coverages.append(sample)
        for place, text in enumerate(sample["domain"]["axes"]["t"]["values"]):
            values = {name: found["values"][place] for name, found in sample["ranges"].items()}
            expected.setdefault((sample["rodeo:wigosId"], datetime.fromisoformat(text)), {}).update(values)
    platform = platform_of(
        f"""
  netatmo: {{base_url: '{esoh.url}', countries: [netherlands], history: P9999D, exclude_stations: '^$', exports: [],
    start: 2022-12-31, parameters: {json.dumps(parameters)}}}
"""
    )
    window = Window(datetime(2022, 12, 31, tzinfo=UTC), datetime(2022, 12, 31, 1, tzinfo=UTC))
    now = datetime.now(UTC)
    collect(platform, platform.source("netatmo"), window, now)
    ingest(platform, platform.source("netatmo"), window)
    made = build(platform, platform.dataset("netatmo"), window, now)
    found = pl.read_parquet(made.revision.path)
    canonical = {
        v.column: v.to_canonical_name()
        for v in platform.metadata(platform.source("netatmo")).ingestion_map.canonical_variables
    }
    inside = {key: values for key, values in expected.items() if key[1] < window.end}
    assert found.height == len(inside) == 8
    for row in found.iter_rows(named=True):
        known = {name: row[column] for name, column in canonical.items() if row[column] is not None}
        assert known == inside[row["station_id"], row["datetime"]]


def test_a_network_of_several_countries_at_once(tmp_path):
    with Weather() as service:
        feed = source(service, tmp_path, countries=("norway", "sweden"), areas={})
        began = time.perf_counter()
        found = rows(feed)
        assert len(found) == 200 * 6 and time.perf_counter() - began < 60
        assert rows(feed) == found
