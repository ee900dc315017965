"""GeoParquet windows, judged by readers and a validator that are not ours."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from publishing import published_export

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import canonical_schema
from ionbeam_dagster.errors import ExportError
from ionbeam_dagster.exporters import geoparquet
from ionbeam_dagster.exporters.geoparquet import GeoParquetExporter, hilbert, not_above

TEMPERATURE = "air_temperature__K__2.0__point__PT0S"
RAIN = "precipitation_amount__kg m-2__0.0__sum__PT5M"
START = np.datetime64("2025-01-01", "us")


def schema_with(*described: str) -> pa.Schema:
    variables = [CanonicalVariable.from_canonical_name(name) for name in (TEMPERATURE, RAIN)]
    columns = [MetadataVariable(column=name) for name in described]
    return canonical_schema(
        [
            IngestionMetadata(
                dataset=DatasetMetadata(name="network"),
                ingestion_map=DataIngestionMap(canonical_variables=variables, metadata_variables=columns),
            )
        ]
    )


def dataset(
    folder: Path,
    stations: int,
    times: int,
    *,
    lon: tuple[float, float] = (5, 15),
    lat: tuple[float, float] = (47, 55),
    moving: bool = False,
    described: tuple[str, ...] = ("station_id",),
) -> Path:
    """A canonical file of `stations` x `times` rows, ordered as the dataset store orders them."""
    random = np.random.default_rng(7)
    station = np.repeat(np.arange(stations), times)
    jitter = random.normal(0, 0.01, len(station)) if moving else 0.0
    east = random.uniform(*lon, stations)[station] + jitter
    temperature = random.normal(280, 5, len(station))
    columns = {
        "datetime": np.tile(START + np.arange(times) * np.timedelta64(5, "m"), stations),
        "lat": random.uniform(*lat, stations)[station] + jitter,
        "lon": (east + 180) % 360 - 180,
        TEMPERATURE: pa.array(temperature, mask=temperature < 275),
        RAIN: pa.nulls(len(station), pa.float64()),
        **{name: [f"{name} {number:05d}" for number in station] for name in described},
    }
    schema = schema_with(*described)
    table = pa.table([pa.array(columns[name]).cast(schema.field(name).type) for name in schema.names], schema=schema)
    return write(folder / "dataset.parquet", table)


def write(path: Path, table: pa.Table) -> Path:
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"ionbeam": json.dumps({"dataset": "network", "revision": 3})})
    return path


def export(dataset_file: Path, target: Path):
    return published_export(GeoParquetExporter(), dataset_file, target), pq.read_table(target)


@pytest.fixture
def bucketed(monkeypatch):
    """Take the way of large files with small ones."""
    monkeypatch.setattr(geoparquet, "ROWS_IN_MEMORY", 1000)
    monkeypatch.setattr(geoparquet, "ROWS_PER_BATCH", 500)


def validate(path: Path) -> None:
    command = shutil.which("geoparquet-validator", path=Path(sys.executable).parent)
    assert command, "geoparquet-validator is not installed beside this Python (it is in the dev extra)"
    checked = subprocess.run([command, "check", path, "--class", "all"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "network",
    [
        {"stations": 1, "times": 1},
        {"stations": 1, "times": 3000},
        {"stations": 300, "times": 12},
        {"stations": 1000, "times": 120},
        {"stations": 100, "times": 600, "moving": True},
        {"stations": 300, "times": 200, "lon": (170, 190), "lat": (-25, -10)},
        {"stations": 300, "times": 200, "lon": (-180, 180), "lat": (-90, 90)},
    ],
    ids=["one row", "one station", "small", "three row groups", "moving", "antimeridian", "globe"],
)
def test_the_validator_finds_no_fault_and_duckdb_the_same_values(tmp_path, network):
    source = dataset(tmp_path, **network)
    report, _ = export(source, tmp_path / "window.parquet")
    rows = network["stations"] * network["times"]
    assert (report.rows, report.stations) == (rows, network["stations"])
    validate(tmp_path / "window.parquet")
    columns = ", ".join(f'"{name}"' for name in pq.read_schema(source).names)
    differing = f"""
        (SELECT {columns} FROM read_parquet($1) EXCEPT ALL SELECT {columns} FROM read_parquet($2)) UNION ALL
        (SELECT {columns} FROM read_parquet($2) EXCEPT ALL SELECT {columns} FROM read_parquet($1))
    """
    with duckdb.connect() as connection:
        assert connection.execute(differing, [str(source), str(tmp_path / "window.parquet")]).fetchall() == []


def test_geometry_bbox_and_metadata_say_what_the_rows_say(tmp_path):
    source = dataset(tmp_path, 1000, 120)
    report, table = export(source, tmp_path / "window.parquet")
    assert table.schema.names == ["id", "geometry", "bbox", *pq.read_schema(source).names]
    point = np.dtype([("order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])
    decoded = np.frombuffer(b"".join(table["geometry"].to_pylist()), point)
    np.testing.assert_array_equal(decoded["x"], table["lon"])
    np.testing.assert_array_equal(decoded["y"], table["lat"])
    geo = json.loads(table.schema.metadata[b"geo"])
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    assert (
        geo["columns"]["geometry"]["bbox"] == [lon.min(), lat.min(), lon.max(), lat.max()] == report.read_back["extent"]
    )
    assert report.read_back["values"][TEMPERATURE] == len(table) - table[TEMPERATURE].null_count
    assert report.read_back["values"][RAIN] == 0
    assert json.loads(table.schema.metadata[b"ionbeam"]) == {"dataset": "network", "revision": 3}
    assert table.schema.field(TEMPERATURE).metadata == schema_with().field(TEMPERATURE).metadata
    assert ds.dataset(tmp_path / "window.parquet").schema.metadata[b"geo"], "PyGeoAPI looks for it here"


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("described", [("station_id",), ("device", "owner"), ()])
def test_ids_are_unique_and_survive_a_rebuild_with_one_more_row(tmp_path, moving, described):
    table = pq.read_table(dataset(tmp_path, 40, 50, moving=moving, described=described))
    key = [*described, "lat", "lon"] if "station_id" not in described else ["station_id"]
    table = table.sort_by([(name, "ascending") for name in [*key, "datetime"]])
    without_a_row = pa.concat_tables([table.slice(0, 777), table.slice(778)])
    place = ["datetime", "lat", "lon"]

    def ids_of(rows: pa.Table) -> dict[tuple, str]:
        _, written = export(write(tmp_path / "one.parquet", rows), tmp_path / "window.parquet")
        ids = written["id"].to_pylist()
        assert len(set(ids)) == len(ids)
        return dict(zip(zip(*(written[name].to_pylist() for name in place), strict=True), ids, strict=True))

    before, after = ids_of(without_a_row), ids_of(table)
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_ids_never_change(tmp_path):
    _, table = export(dataset(tmp_path, 1, 2), tmp_path / "window.parquet")
    assert table["id"].to_pylist() == [
        "20250101T000000Z-1ed3f64f19091e82",
        "20250101T000500Z-1ed3f64f19091e82",
    ]


def test_parts_of_a_second_show_in_the_id(tmp_path):
    table = pq.read_table(dataset(tmp_path, 1, 2))
    times = pa.array(START + np.array([1, 500_000], "m8[us]")).cast(pa.timestamp("us", "UTC"))
    source = write(tmp_path / "fast.parquet", table.set_column(0, table.schema.field(0), times))
    ids = export(source, tmp_path / "window.parquet")[1]["id"].to_pylist()
    assert [one.split("-")[0] for one in ids] == ["20250101T000000.000001Z", "20250101T000000.500Z"]


@pytest.mark.parametrize(
    "network",
    [
        {"stations": 60, "times": 200},
        {"stations": 60, "times": 200, "moving": True},
        {"stations": 1, "times": 12_000},
        {"stations": 3, "times": 4000},
    ],
    ids=["fixed", "moving", "one station", "few stations"],
)
def test_a_file_that_is_sorted_on_disk_is_the_one_sorted_in_memory(tmp_path, network, bucketed, monkeypatch):
    source = dataset(tmp_path, **network)
    export(source, tmp_path / "on disk.parquet")
    monkeypatch.setattr(geoparquet, "ROWS_IN_MEMORY", 1_000_000)
    export(source, tmp_path / "in memory.parquet")
    export(source, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "in memory.parquet").read_bytes()
    assert (tmp_path / "on disk.parquet").read_bytes() == (tmp_path / "in memory.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.parquet",
        "dataset.parquet",
        "in memory.parquet",
        "on disk.parquet",
    ]


def test_a_station_lies_in_one_piece_in_the_order_of_time(tmp_path):
    _, table = export(dataset(tmp_path, 200, 24), tmp_path / "window.parquet")
    station = np.array(table["station_id"].to_pylist())
    assert np.count_nonzero(station[1:] != station[:-1]) == 199
    same = station[1:] == station[:-1]
    assert (np.diff(table["datetime"].to_numpy())[same] > np.timedelta64(0)).all()


def test_a_window_without_rows_leaves_no_file(tmp_path):
    target = tmp_path / "window.parquet"
    export(dataset(tmp_path, 3, 3), target)
    empty = write(tmp_path / "empty.parquet", schema_with("station_id").empty_table())
    for _ in range(2):
        report = published_export(GeoParquetExporter(), empty, target)
        assert (report.rows, report.stations) == (0, 0)
        assert not target.exists()


def test_a_column_that_is_named_like_an_added_one_is_kept_under_another_name(tmp_path):
    source = dataset(tmp_path, 3, 3, described=("ID", "bbox", "bbox_", "station_id"))
    report, table = export(source, tmp_path / "window.parquet")
    assert report.plan.mapped["ID"] == "ID_"
    assert report.plan.mapped["bbox"] == "bbox__"
    assert report.plan.mapped["station_id"] == "station_id"
    assert table["ID_"].to_pylist()[0].startswith("ID 0000")
    assert report.plan.left_out == {}
    validate(tmp_path / "window.parquet")


def test_two_rows_of_one_station_and_time_are_refused(tmp_path, bucketed):
    table = pq.read_table(dataset(tmp_path, 20, 100))
    twice = pa.concat_tables([table.slice(0, 1500), table.slice(1499)])
    with pytest.raises(ExportError, match=r"1 rows repeat the station_id and time.*2025-01-01T08:15"):
        published_export(GeoParquetExporter(), write(tmp_path / "twice.parquet", twice), tmp_path / "window.parquet")
    assert not list(tmp_path.glob("*window*")) + list(tmp_path.glob(".*"))


def test_what_does_not_read_back_is_not_published(tmp_path, monkeypatch):
    source = dataset(tmp_path, 3, 3)
    _, before = export(source, tmp_path / "window.parquet")
    boxes = geoparquet._boxes
    monkeypatch.setattr(geoparquet, "_boxes", lambda table: boxes(table.set_column(2, "lon", [before["lat"]])))
    with pytest.raises(ExportError, match="points in their box: 0, not 9"):
        export(source, tmp_path / "window.parquet")
    assert pq.read_table(tmp_path / "window.parquet").equals(before)
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_dataset_file_is_named(tmp_path):
    damaged = dataset(tmp_path, 3, 3)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(ExportError, match=r"window\.parquet: was not written from .*dataset\.parquet: "):
        published_export(GeoParquetExporter(), damaged, tmp_path / "window.parquet")


@given(st.lists(st.floats(-180, 180), min_size=1))
def test_a_box_holds_its_point_as_tightly_as_can_be(values):
    exact = np.array(values)
    below, above = not_above(exact), -not_above(-exact)
    assert below.dtype == np.float32
    assert ((below <= exact) & (exact <= above)).all()
    assert (np.nextafter(below, np.float32(np.inf)) >= above).all()


@given(st.integers(0, 2**16 - 2), st.integers(0, 2**16 - 2))
def test_the_curve_visits_each_cell_of_a_block_once_in_neighbouring_steps(x, y):
    x, y = x // 8 * 8, y // 8 * 8
    across, up = (grid.ravel() for grid in np.meshgrid(np.arange(x, x + 8), np.arange(y, y + 8)))
    position = hilbert(across, up)
    order = np.argsort(position)
    np.testing.assert_array_equal(position[order], position.min() + np.arange(64))
    assert (np.abs(np.diff(across[order])) + np.abs(np.diff(up[order])) == 1).all()
