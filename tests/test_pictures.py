"""Pictures of windows: what is drawn is what the rows say, whatever the rows are."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageColor

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.domain.quality.plan import quality_fields
from ionbeam_dagster.pictures import aggregates, ground
from ionbeam_dagster.pictures import export as export_pictures
from ionbeam_dagster.pictures import flags as flag_pictures
from ionbeam_dagster.pictures import window as pictures
from ionbeam_dagster.pictures.canvas import Canvas
from ionbeam_dagster.pictures.flags import FAIL, GOOD, SUSPECT
from ionbeam_dagster.pictures.ground import LAND, SEA
from ionbeam_dagster.pictures.window import map_of_windows, window_picture

TEMPERATURE = "air_temperature__K__2.0__point__PT0S"
WIND = "wind_speed__m s-1__10.0__mean__PT10M"
DIRECTION = "wind_from_direction__degree__10.0__mean__PT10M"
START = np.datetime64("2025-01-01T03:00", "us")
EVERY_FIVE = np.arange(0, 60, 5)


def window(
    path: Path,
    lon,
    lat,
    *,
    values: dict[str, object] | None = None,
    minutes: np.ndarray = EVERY_FIVE,
    hour: int = 0,
    station_ids: bool = True,
    **about: object,
) -> Path:
    """An hour of observations at `minutes` of stations that stand still, or (2-D `lon` and `lat`) move."""
    stations, times = len(lon), len(minutes)
    described = [MetadataVariable(column="station_id")] if station_ids else []
    values = {TEMPERATURE: np.full((stations, times), 280.0)} if values is None else values
    schema = canonical_schema(
        [
            IngestionMetadata(
                dataset=DatasetMetadata(name="network"),
                ingestion_map=DataIngestionMap(
                    canonical_variables=[CanonicalVariable.from_canonical_name(name) for name in values],
                    metadata_variables=described,
                ),
            )
        ]
    )
    begin = START + np.timedelta64(hour, "h")
    columns = {
        "datetime": np.tile(begin + (minutes * 60).astype("m8[s]"), stations),
        "lon": np.repeat(lon, times) if np.ndim(lon) == 1 else np.ravel(lon),
        "lat": np.repeat(lat, times) if np.ndim(lat) == 1 else np.ravel(lat),
        "station_id": np.repeat([f"station {number}" for number in range(stations)], times).tolist(),
        **{name: pa.array(np.ravel(value), from_pandas=True) for name, value in values.items()},
    }
    table = pa.table([pa.array(columns[name]).cast(schema.field(name).type) for name in schema.names], schema=schema)
    facts = {
        "dataset": "network",
        "revision": 3,
        "window_start": f"{begin}+00:00",
        "window_end": f"{begin + np.timedelta64(1, 'h')}+00:00",
        **about,
    }
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"ionbeam": json.dumps(facts)})
    return path


@dataclass
class Drawn:
    """What a picture was drawn of, and the canvas on which it was."""

    canvas: Canvas
    found: aggregates.Aggregates | None

    def png(self) -> bytes:
        return self.canvas.png()


@pytest.fixture
def drawn(monkeypatch):
    """Give what was drawn instead of its PNG."""
    found = []

    def aggregated(windows):
        found.append(aggregates.aggregated(windows))
        return found[-1]

    monkeypatch.setattr(pictures, "aggregated", aggregated)
    monkeypatch.setattr(pictures, "png", lambda canvas: Drawn(canvas, found[-1] if found else None))


def words(figure: Drawn) -> str:
    return "\n".join(figure.canvas.words)


def points_of(figure: Drawn) -> pl.DataFrame:
    """Places with a value, in the order in which they are drawn."""
    return figure.found.cells.drop_nulls("value").sort("value", "lon", "lat")


def curves(figure: Drawn) -> list[np.ndarray]:
    """Medians in time, those of each quantity in turn."""
    number = range(len(figure.found.quantities))
    return [pictures._curve(figure.found.series, place)[1] for place in number]


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(BytesIO(png))
    assert (image.format, image.size) == ("PNG", (900, 420))
    return np.asarray(image.convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: str, within: int = 8) -> np.ndarray:
    """Which pixels are of a colour, as nearly as a picture of 256 colours has it."""
    return np.abs(picture.astype(int) - ImageColor.getrgb(colour)).max(axis=-1) <= within


def test_points_are_stations_with_their_means_and_curves_are_medians(tmp_path, drawn):
    random = np.random.default_rng(1)
    lon, lat = random.uniform(5, 15, 300), random.uniform(47, 55, 300)
    temperature = random.normal(283.15, 5, (300, 12))
    wind = np.where(random.random((300, 12)) < 0.5, np.nan, random.gamma(2, 2, (300, 12)))
    direction = random.uniform(0, 360, (300, 12))
    values = {TEMPERATURE: temperature, WIND: wind, DIRECTION: direction}
    figure = window_picture(window(tmp_path / "window.parquet", lon, lat, values=values))
    points = points_of(figure)
    order = np.argsort(temperature.mean(axis=1))
    np.testing.assert_allclose(points["lon", "lat"], np.c_[lon, lat][order])
    np.testing.assert_allclose(points["value"], temperature.mean(axis=1)[order] - 273.15)
    temperatures, winds = curves(figure)
    np.testing.assert_allclose(temperatures, np.median(temperature, axis=0) - 273.15)
    np.testing.assert_allclose(winds, np.nanmedian(wind, axis=0))
    said = words(figure)
    assert "2025-01-01 03:00 – 04:00 UTC   ·   revision 3   ·   300 stations   ·   3,600 rows" in said
    assert "air temperature, 2 m [°C], mean" in said
    assert "wind speed, 10 m, mean, 10 min [m s⁻¹]" in said
    assert "direction" not in said


def test_what_quality_control_found_bad_is_in_no_mean(tmp_path, drawn):
    values = np.full((2, 12), 280.0)
    values[1, 3] = 127.0
    path = window(tmp_path / "window.parquet", [5.0, 6.0], [50.0, 51.0], values={TEMPERATURE: values})
    table = pq.read_table(path)
    flags = pa.array(np.where(np.ravel(values) < 200, 4, 1), pa.uint8())
    pq.write_table(table.append_column(quality_fields(TEMPERATURE)[0], flags), path)
    untested = window(tmp_path / "later.parquet", [5.0], [50.0], hour=1)
    figure = map_of_windows([path, untested])
    np.testing.assert_allclose(points_of(figure)["value"], [6.85, 6.85])


def test_without_air_temperature_the_map_shows_what_has_most_values(tmp_path, drawn):
    wind = np.full((2, 12), np.nan)
    wind[0, :5] = 4.0
    pressure = "surface_air_pressure__Pa__0.0__point__PT0S"
    values = {TEMPERATURE: np.full((2, 12), np.nan), WIND: wind, pressure: np.full((2, 12), 99_050.0)}
    figure = window_picture(window(tmp_path / "window.parquet", [5, 6], [50, 51], values=values))
    assert "surface air pressure [hPa], mean" in words(figure)
    np.testing.assert_allclose(points_of(figure)["value"], 990.5)


def test_of_several_datasets_each_has_a_curve_of_its_own_however_its_values_were_aggregated(tmp_path, drawn):
    """One pauses where the other begins: a median over both would jump."""
    aggregated = "air_temperature__degC__2.0__mean__PT10M"
    first = window(tmp_path / "a.parquet", [5, 6], [50, 51], dataset="points", minutes=np.arange(0, 30, 5),
                   values={TEMPERATURE: np.full((2, 6), 283.15)})  # fmt: skip
    second = window(tmp_path / "b.parquet", [7], [52], dataset="means", minutes=np.arange(0, 60, 5),
                    values={aggregated: np.full((1, 12), 20.0)})  # fmt: skip
    figure = map_of_windows([first, second])
    series = figure.found.series.partition_by("dataset", as_dict=True)
    means, points = (pictures._curve(series[name,], 0)[1].tolist() for name in ("means", "points"))
    assert (means, points) == ([20.0] * 12, pytest.approx([10.0] * 6))
    said = figure.canvas.words
    assert said.index("points") == said.index("means") + 1
    picture, colours = pixels(figure.png())[:, 540:], pictures._colours(2)
    (warm, _), (cold, at) = (np.nonzero(near(picture[70:], colour)) for colour in colours)
    assert warm.mean() + 100 < cold.mean(), "the curve of the one lies above that of the other"
    assert at.max() < 180, "the other one pauses"
    assert all(near(picture[:70], colour).any() for colour in colours), "the legend"
    np.testing.assert_allclose(points_of(figure)["value"], [10, 10, 20])
    assert "air temperature, 2 m [°C]" in words(figure) and "10 min" not in words(figure)


def test_cold_lies_west_of_warm_across_the_date_line(tmp_path):
    random = np.random.default_rng(1)
    lon = np.r_[random.uniform(172, 179, 40), random.uniform(-179, -172, 40)]
    temperature = np.repeat([270.0, 300.0], 40)[:, None] + np.zeros((80, 12))
    lat = random.uniform(-24, -10, 80)
    png = window_picture(window(tmp_path / "window.parquet", lon, lat, values={TEMPERATURE: temperature}))
    red, green, blue = np.moveaxis(pixels(png)[40:385, 55:430], -1, 0)
    cold = np.argwhere((red < 80) & (green < 60) & (blue < 120))[:, 1]
    warm = np.argwhere((red > 100) & (green < 40) & (blue < 40))[:, 1]
    assert len(warm) > 100
    assert np.median(cold) + 100 < np.median(warm)


@pytest.mark.parametrize("station_ids", [True, False])
def test_a_drive_is_a_track_and_a_pause_is_a_gap_in_the_curve(tmp_path, drawn, station_ids):
    minutes = np.r_[0:15:0.1, 45:60:0.1]
    lon, lat, temperature = 35 + minutes / 500, 31 + np.sin(minutes / 10) / 10, 290 + minutes / 10
    path = tmp_path / "window.parquet"
    window(path, lon[None], lat[None], values={TEMPERATURE: temperature}, minutes=minutes, station_ids=station_ids)
    figure = window_picture(path)
    assert ("1 station " if station_ids else " places ") in words(figure)
    assert points_of(figure).height > 100
    assert bool(figure.found.tracks.height) is station_ids
    medians = curves(figure)[0]
    assert np.flatnonzero(np.isnan(medians)).tolist() == [np.count_nonzero(medians < 292 - 273.15)]
    assert (np.diff(medians[~np.isnan(medians)]) > 0).all()


def test_far_outliers_do_not_make_a_dot_of_the_network(tmp_path, drawn):
    lon, lat = np.r_[np.linspace(4, 7, 50), -68.3, -63.0], np.r_[np.linspace(51, 53, 50), 12.1, 17.5]
    figure = window_picture(window(tmp_path / "window.parquet", lon, lat))
    west, east, *_ = figure.found.extent
    assert (west, east) == (4, 7)
    assert "2 places outside this map" in words(figure)
    assert "52 stations" in words(figure)


def test_what_was_not_collected_is_hatched(tmp_path, drawn):
    gaps = [["2025-01-01T03:30:00+00:00", "2025-01-01T03:45:00+00:00"]]
    figure = window_picture(window(tmp_path / "window.parquet", [5, 6], [50, 51], gaps=gaps, coverage=0.75))
    assert "75 % of the window collected" in words(figure)
    assert "hatched: not collected" in words(figure)
    _, at = np.nonzero(near(np.asarray(figure.canvas._image), "#f3f4f6", 0))  # as it is drawn, three times as large
    left, wide = 0.605 * 2700, 0.37 * 2700
    assert [at.min(), at.max()] == pytest.approx([left + wide / 2, left + wide * 3 / 4], abs=3)


def test_several_windows_share_one_map_and_one_time_axis(tmp_path, drawn):
    values = [np.full((2, 12), 280.0 + hour) for hour in range(3)]
    files = [
        window(tmp_path / f"{hour}.parquet", [5, 6], [50, 51], values={TEMPERATURE: values[hour]}, hour=hour)
        for hour in range(3)
    ]
    other = window(tmp_path / "3.parquet", [5, 7], [50, 52], values={WIND: values[0]}, hour=3)
    figure = map_of_windows([*files, other])
    said = words(figure)
    assert "2025-01-01 03:00 – 07:00 UTC   ·   4 windows   ·   2 stations   ·   96 rows" in said
    np.testing.assert_allclose(points_of(figure)["value"], [281 - 273.15] * 2)
    medians = curves(figure)[0]
    np.testing.assert_allclose(medians, np.repeat([280, 281, 282], 12) - 273.15)


@pytest.mark.parametrize(
    ("lon", "lat", "values", "said"),
    [
        ([], [], None, "no observations"),
        ([5.0], [50.0], None, "air temperature, 2 m [°C], mean 6.9"),
        ([5.0, 6.0], [50.0, 51.0], {TEMPERATURE: np.full((2, 12), np.nan)}, "no values"),
        ([5.0, 6.0], [50.0, 51.0], {DIRECTION: np.full((2, 12), 90.0)}, "wind from direction"),
        ([0.0, 0.0], [90.0, -90.0], None, "2 stations"),
        (np.linspace(-180, 180, 50), np.linspace(-89, 89, 50), None, "50 stations"),
    ],
    ids=["no rows", "one station", "no values", "only directions", "poles", "globe"],
)
def test_a_picture_for_every_window(tmp_path, monkeypatch, lon, lat, values, said):
    path = window(tmp_path / "window.parquet", np.array(lon), np.array(lat), values=values)
    assert pixels(window_picture(path)).std() > 5
    monkeypatch.setattr(pictures, "png", lambda canvas: Drawn(canvas, None))
    assert said in words(window_picture(path))


def test_large_windows_are_sampled_without_missing_a_station(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(aggregates, "SAMPLED_ROWS", 2000)
    random = np.random.default_rng(1)
    temperature = random.normal(283.15, 1, (1500, 12)) + np.arange(12)
    lon, lat = random.uniform(5, 15, 1500), random.uniform(47, 55, 1500)
    figure = window_picture(window(tmp_path / "window.parquet", lon, lat, values={TEMPERATURE: temperature}))
    assert "1,500 stations" in words(figure)
    medians = curves(figure)[0]
    np.testing.assert_allclose(medians, 10 + np.arange(12), atol=0.5)
    assert points_of(figure).height > 1400, "every cell of the map has all its rows"


def test_pictures_are_small_repeatable_and_may_be_drawn_by_threads(tmp_path):
    random = np.random.default_rng(1)
    temperature = random.normal(283, 5, (1000, 12))
    lon, lat = random.uniform(5, 15, 1000), random.uniform(47, 55, 1000)
    path = window(tmp_path / "window.parquet", lon, lat, values={TEMPERATURE: temperature})
    with ThreadPoolExecutor(4) as threads:
        drawings = list(threads.map(window_picture, [path] * 4))
    assert len(set(drawings)) == 1
    assert len(drawings[0]) < 60_000


@pytest.mark.parametrize(
    ("place", "lon", "lat", "is_land"),
    [
        ("Paris", 2.35, 48.86, True),
        ("North Sea", 3.0, 56.0, False),
        ("Caspian Sea", 51.0, 41.5, False),
        ("Chukotka", -175.0, 66.5, True),
        ("Chukotka, seen from Japan", 185.0, 66.5, True),
        ("South Pole", 10.0, -89.5, True),
        ("Fiji", 178.0, -17.8, True),
        ("Pacific", -150.0, 0.0, False),
    ],
)
def test_land_is_where_it_is(place, lon, lat, is_land):
    around = (lon - 5, lon + 5, lat - 5, lat + 5)
    crossings = 0
    outline = ground._outlines("land", around)
    for ring in outline.to_polygons(closed_only=False):
        (x1, y1), (x2, y2) = ring[:-1].T, ring[1:].T
        crosses = (y1 > lat) != (y2 > lat)
        at = x1[crosses] + (lat - y1[crosses]) / (y2 - y1)[crosses] * (x2 - x1)[crosses]
        crossings += np.count_nonzero(at > lon)
    assert bool(crossings % 2) is is_land, place


def test_the_knmi_day(tmp_path, real_data, drawn):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(real_data / "knmi" / "20221231.nc") as day:
        lon, lat = day["lon"][0].filled(), day["lat"][0].filled()
        temperature = np.ma.filled(day["ta"][:], np.nan) + 273.15
    minutes = np.arange(144) / 3
    path = window(tmp_path / "window.parquet", lon, lat, values={TEMPERATURE: temperature}, minutes=minutes)
    figure = window_picture(path)
    assert "55 stations" in words(figure)
    assert "3 places outside this map" in words(figure)
    measured = temperature[(lat > 40) & np.isfinite(temperature).any(axis=1)]
    np.testing.assert_allclose(points_of(figure)["value"], np.sort(np.nanmean(measured, axis=1)) - 273.15)


def test_an_export_is_drawn_with_the_spread_and_flags_of_what_it_took(tmp_path):
    path = window(tmp_path / "w.parquet", [5.0, 6.0], [50.0, 51.0], values={
        TEMPERATURE: np.r_[np.linspace(280, 290, 23), 999.0], WIND: np.full(24, 3.0)})  # fmt: skip
    table = pq.read_table(path)
    flags = pa.array([1] * 20 + [3] * 3 + [4], pa.uint8())
    pq.write_table(table.append_column(quality_fields(TEMPERATURE)[0], flags), path)
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_pictures, "png", lambda canvas: seen.setdefault("canvas", canvas).png())
        picture = pixels(export_pictures.export_picture([path], [TEMPERATURE]))
    said = seen["canvas"].words
    assert any("1 good, 0 suspect, 1 bad" in words for words in said)
    assert said[-4:] == ["air temperature", "24 values, K", "280", "290"]
    spread = picture[:, 450:]
    good, suspect, bad = (np.count_nonzero(near(spread, colour)) for colour in (GOOD, SUSPECT, FAIL))
    assert (good / bad, suspect / bad) == (pytest.approx(20, rel=0.25), pytest.approx(3, rel=0.25))
    assert export_pictures.export_picture([path], [TEMPERATURE, WIND]).startswith(b"\x89PNG")
    assert export_pictures.export_picture([path], []) is None


def test_what_was_flagged_is_drawn_with_the_tests_that_flagged_it(tmp_path):
    temperature = "air_temperature__degC__2.0__point__PT0S"
    flags = {"flag": pa.uint8(), "tests_applied": pa.uint32(), "tests_failed": pa.uint32()}
    fields = [(name, pa.float64()) for name in ("lat", "lon", temperature)]
    schema = pa.schema([*fields, *((f"{temperature}__{kind}", arrow_type) for kind, arrow_type in flags.items())])
    schema = schema.set(2, schema.field(2).with_metadata({"role": "variable"}))
    rows = [(50 + i / 10, 5 + i / 10, 20.0, [1, 3, 4][i % 3], 3, [0, 8, 1][i % 3]) for i in range(30)]
    columns = dict(zip(schema.names, zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}, schema), tmp_path / "w.parquet")
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flag_pictures, "png", lambda canvas: seen.setdefault("canvas", canvas).png())
        picture = pixels(flag_pictures.flags_picture(tmp_path / "w.parquet"))
    said = seen["canvas"].words
    assert any("10 good, 10 suspect, 10 bad" in words for words in said)
    assert {words for words in said if ":" in words} >= {"air temperature: gross range", "air temperature: spike"}
    assert said.count("10") == 2, "how many values failed each"
    bars, a_map = picture[:, 670:], picture[:, :420]
    for colour in (SUSPECT, FAIL):
        assert np.count_nonzero(near(bars, colour)) > 10_000
        assert 100 < np.count_nonzero(near(a_map, colour)) < 10 * np.pi * 4**2


def test_a_curve_rises_with_its_values_and_the_warm_lie_over_the_cold(tmp_path):
    values = np.linspace(280, 290, 12) + np.array([[0.0], [0.001]])
    path = window(tmp_path / "window.parquet", [5.0, 5.0001], [50.0, 50.0], values={TEMPERATURE: values})
    picture = pixels(window_picture(path))
    row, column = np.nonzero(near(picture[60:380, 545:], pictures.CURVES[0]))
    assert np.corrcoef(row, column)[0, 1] < -0.99
    assert np.ptp(column) > 300 and np.ptp(row) > 200
    warmest = np.count_nonzero(near(picture[40:385, 50:435], "#7a0403"))
    assert warmest > 20


def test_dots_are_where_their_places_are():
    canvas, box, extent = Canvas(), (0.1, 0.1, 0.5, 0.5), (170.0, 190.0, -20.0, -10.0)
    canvas.draw_map(box, extent)
    canvas.dots(box, extent, np.array([[175.0, -12.5], [200.0, -12.5]]), FAIL, 4.0)
    row, column = np.nonzero(near(pixels(canvas.png()), FAIL))
    assert (column.mean(), row.mean()) == (pytest.approx(900 * 0.225, abs=1), pytest.approx(420 * 0.525, abs=1))
    assert len(row) < 4 * 4**2, "what lies outside of the map is not drawn"


@pytest.mark.parametrize(
    ("lon", "lat", "colour"),
    [(44.0, 41.5, LAND), (51.0, 41.5, SEA), (2.0, 47.0, LAND), (3.2, 56.0, SEA), (-175.0, 67.2, LAND)],
)
def test_land_and_sea_are_painted(lon, lat, colour):
    canvas, box, extent = Canvas(), (0.1, 0.1, 0.8, 0.8), (lon - 4, lon + 4, lat - 4, lat + 4)
    canvas.draw_map(box, extent)
    assert near(pixels(canvas.png()), colour)[208:212, 452:455].mean() > 0.5
