"""The contract of the time-series store, which every implementation passes, and what the segments promise besides."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.canonical import canonical_schema, point_key
from ionbeam_dagster.domain.windows import DAY, HOUR, Window
from ionbeam_dagster.stores import publish
from ionbeam_dagster.stores.timeseries import TimeSeriesStore, bundles, segments
from ionbeam_dagster.stores.timeseries.influxdb import store as influxdb
from ionbeam_dagster.stores.timeseries.influxdb.store import InfluxStore
from ionbeam_dagster.stores.timeseries.segments import SegmentError, SegmentStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
AFTERNOON = Window(NOON, NOON + timedelta(hours=6))
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
HUMIDITY = "relative_humidity__%__2.0__point__PT0S"
STATIONS = ["A", "B b", "C,d", 'E="f"', "G\\h", "Ünïcødé ☂"]

Row = dict[str, Any]


def described(variables: Sequence[tuple[str, str]], metadata: Sequence[str]) -> IngestionMetadata:
    return IngestionMetadata.model_validate(
        {
            "dataset": {"name": "stations"},
            "ingestion_map": {
                "canonical_variables": [
                    {"column": name, "standard_name": name, "cf_unit": unit, "level": 2.0} for name, unit in variables
                ],
                "metadata_variables": [{"column": column} for column in metadata],
            },
        }
    )


FIXED = canonical_schema(
    [described([("air_temperature", "degC"), ("relative_humidity", "%")], ["station_id", "sensor_type"])]
)
MOBILE = canonical_schema([described([("air_temperature", "degC"), ("relative_humidity", "%")], ["owner", "device"])])


FLAGGED = canonical_schema(
    [
        IngestionMetadata.model_validate(
            {
                "dataset": {"name": "stations"},
                "ingestion_map": {
                    "canonical_variables": [
                        {
                            "column": "t",
                            "standard_name": "air_temperature",
                            "cf_unit": "degC",
                            "level": 2.0,
                            "flag_column": "t_code",
                        }
                    ],
                    "metadata_variables": [{"column": "station_id"}],
                },
            }
        )
    ]
)


def row(station: str | None, time: datetime, **values: Any) -> Row:
    named = {} if station is None else {"station_id": station}
    return {"datetime": time, "lat": 50.0, "lon": 8.0, **named, **values}


def frame(rows: Sequence[Row], schema: pa.Schema = FIXED) -> pl.DataFrame:
    """Canonical rows as a store takes them; what a row does not tell is null."""
    return pl.DataFrame(rows, schema=pl.DataFrame(schema.empty_table()).schema)


def seen(
    store: TimeSeriesStore, dataset: str, window: Window = AFTERNOON, schema: pa.Schema = FIXED
) -> list[dict[str, Any]]:
    """All points of a window, as Python rows without their nulls."""
    batches = list(store.read(dataset, window, schema, point_key(schema)))
    assert all(batch.schema == schema for batch in batches)
    return [
        {name: value for name, value in point.items() if value is not None}
        for batch in batches
        for point in batch.to_pylist()
    ]


class CompactedStore(SegmentStore):
    """Segments that are made one file after everything that happens to them."""

    def write(self, dataset: str, *rest: Any) -> int:
        rows = super().write(dataset, *rest)
        compact(self, dataset)
        return rows

    def withdraw(self, dataset: str, ingestion: str) -> None:
        super().withdraw(dataset, ingestion)
        compact(self, dataset)


def compact(store: SegmentStore, dataset: str) -> None:
    """Compact every hour of `dataset`, however few segments it has."""
    for folder in (store.root / dataset).glob("[0-9]*"):
        start = datetime.strptime(folder.name, segments.BUCKET_FORMAT).replace(tzinfo=UTC)
        store.compact(dataset, Window(start, start + HOUR))


@pytest.fixture(params=["segments", "segments in tiny pieces", "segments in bundles", "influxdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TimeSeriesStore:
    """Each implementation. Tests share one; a test takes dataset names of its own."""
    if request.param == "influxdb":
        for name, value in {"REQUEST_LINES": 3, "SLICE_ROWS": 4, "BATCH_ROWS": 3}.items():
            monkeypatch.setattr(influxdb, name, value)
        server = request.getfixturevalue("influxdb")
        return InfluxStore(server.url, server.org, "contract", server.token)
    if request.param == "segments in bundles":
        monkeypatch.setattr(segments, "RANGE_ROWS", 40)
        monkeypatch.setattr(segments, "SAMPLE_EVERY", 4)
        monkeypatch.setattr(bundles, "GROUP_ROWS", 5)
        return CompactedStore(tmp_path / "observations")
    if request.param == "segments in tiny pieces":
        tiny = {"PART_ROWS": 3, "BUFFERED_ROWS": 5, "ROW_GROUP_ROWS": 2, "RANGE_ROWS": 4, "SAMPLE_EVERY": 2}
        for name, value in {**tiny, "BATCH_ROWS": 3}.items():
            monkeypatch.setattr(segments, name, value)
    return SegmentStore(tmp_path / "observations")


@pytest.fixture
def dataset() -> str:
    return f"d{uuid4().hex}"


# --- the contract -----------------------------------------------------------------------------------------------------

values = st.one_of(st.none(), st.just(float("nan")), st.floats(-60, 60).map(lambda value: round(value, 1)))
times = st.integers(0, 24).map(lambda step: NOON - HOUR + step * timedelta(minutes=20))
fixed_rows = st.fixed_dictionaries(
    {
        "datetime": times,
        "lat": st.sampled_from([50.0, 50.1]),
        "lon": st.just(8.0),
        TEMPERATURE: values,
        HUMIDITY: values,
        "station_id": st.sampled_from([*STATIONS, None]),
        "sensor_type": st.sampled_from([None, "s1", "s2"]),
    }
)
mobile_rows = st.fixed_dictionaries(
    {
        "datetime": times,
        "lat": st.sampled_from([50.0, -0.0, 0.0, -50.0]),
        "lon": st.sampled_from([8.0, -8.0]),
        TEMPERATURE: values,
        HUMIDITY: values,
        "owner": st.just("everyone"),
        "device": st.sampled_from([None, "one", "two"]),
    }
)


def expected(ingestions: dict[int, list[Row]], window: Window, schema: pa.Schema) -> list[Row]:
    """What a reader must see, point by point, told by plain dictionaries."""
    order = [*point_key(schema), "datetime"]
    points: dict[tuple[Any, ...], Row] = {}
    for arrival in sorted(ingestions):
        for one in ingestions[arrival]:
            if window.start <= one["datetime"] < window.end:
                known = {name: value for name, value in one.items() if value is not None and value == value}
                points.setdefault(tuple(one[name] for name in order), {}).update(known)
    return [
        points[point] for point in sorted(points, key=lambda point: [(value is not None, value) for value in point])
    ]


@pytest.mark.parametrize(("schema", "rows"), [(FIXED, fixed_rows), (MOBILE, mobile_rows)], ids=["fixed", "mobile"])
def test_of_each_value_of_a_point_the_latest_that_is_not_null_wins(
    store: TimeSeriesStore, schema: pa.Schema, rows: st.SearchStrategy[Row]
) -> None:
    @settings(max_examples=30 if isinstance(store, SegmentStore) else 8)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        dataset = f"d{uuid4().hex}"
        brought = data.draw(st.lists(st.lists(rows, max_size=15), max_size=5), label="ingestions")
        ingestions = dict(enumerate(brought, start=1))
        for arrival in data.draw(st.permutations(list(ingestions)), label="order of writing"):
            cut = data.draw(st.integers(0, len(ingestions[arrival])), label="first frame")
            frames = [frame(ingestions[arrival][:cut], schema), frame(ingestions[arrival][cut:], schema)]
            written = store.write(dataset, f"ingestion-{arrival}", arrival, frames, point_key(schema))
            assert written == len(ingestions[arrival])
        window = data.draw(st.sampled_from([AFTERNOON, Window(NOON, NOON + timedelta(minutes=20))]), label="window")
        assert seen(store, dataset, window, schema) == expected(ingestions, window, schema)

    holds()


def test_a_later_quality_code_corrects_the_earlier_one_and_the_value_is_kept(
    store: TimeSeriesStore, dataset: str
) -> None:
    flag = f"{TEMPERATURE}__provider_flag"
    first = [
        row("A", NOON, **{TEMPERATURE: 1.5, flag: 0}),
        row("A", NOON + HOUR, **{TEMPERATURE: 2.5, flag: 0}),
        row("C,d", NOON, **{TEMPERATURE: 3.5}),
    ]
    codes = [row("A", NOON, **{flag: 3}), row("C,d", NOON, **{flag: -128})]
    store.write(dataset, "values", 1, [frame(first, FLAGGED)], ["station_id"])
    store.write(dataset, "codes", 2, [frame(codes, FLAGGED)], ["station_id"])
    corrected = [{**first[0], flag: 3}, first[1], {**first[2], flag: -128}]
    assert seen(store, dataset, schema=FLAGGED) == corrected
    store.withdraw(dataset, "codes")
    assert seen(store, dataset, schema=FLAGGED) == first


def test_windows_are_half_open_to_the_microsecond(store: TimeSeriesStore, dataset: str) -> None:
    for name, start in {"summer": NOON, "sixties": datetime(1969, 12, 31, 23, tzinfo=UTC)}.items():
        window = Window(start, start + HOUR)
        inside = [window.start, window.start + MICROSECOND, window.end - MICROSECOND]
        outside = [window.start - MICROSECOND, window.end]
        rows = [row("A", time, **{TEMPERATURE: 1.0}) for time in [*inside, *outside]]
        store.write(dataset, name, 1, [frame(rows)], ["station_id"])
        assert [point["datetime"] for point in seen(store, dataset, window)] == inside
        both = Window(window.start - HOUR, window.end + HOUR)
        assert [point["datetime"] for point in seen(store, dataset, both)] == sorted([*inside, *outside])


@pytest.mark.parametrize("station", ["A", None])
def test_one_station_may_have_any_number_of_rows(store: TimeSeriesStore, dataset: str, station: str | None) -> None:
    rows = [row(station, NOON + minute * timedelta(minutes=1), **{TEMPERATURE: float(minute)}) for minute in range(60)]
    for arrival in (1, 2, 3):
        store.write(dataset, f"i{arrival}", arrival, [frame(rows[arrival::3]), frame(rows[:2])], ["station_id"])
    assert seen(store, dataset) == rows


def test_names_and_values_may_contain_anything(store: TimeSeriesStore, dataset: str) -> None:
    odd = 'a b,c=d "e" \\f ☂'
    schema = canonical_schema([described([(odd, "m s-1 (%)")], ["station_id", odd])])
    rows = [
        {**row(station, NOON), schema.names[3]: float(place), odd: station[::-1]}
        for place, station in enumerate(STATIONS)
    ]
    store.write(dataset, f"id of {odd}/..", 1, [frame(rows, schema)], ["station_id"])
    assert seen(store, dataset, schema=schema) == rows
    store.withdraw(dataset, f"id of {odd}/..")
    assert seen(store, dataset, schema=schema) == []


def test_writing_an_ingestion_again_replaces_it_entirely(store: TimeSeriesStore, dataset: str) -> None:
    first = [row("A", NOON + hour * HOUR, **{TEMPERATURE: 1.0}) for hour in range(5)]
    second = [row("B b", NOON, **{HUMIDITY: 50.0})]
    store.write(dataset, "same", 1, [frame(first)], ["station_id"])
    assert seen(store, dataset) == first
    store.write(dataset, "same", 1, [frame(second)], ["station_id"])
    assert seen(store, dataset) == second
    assert store.write(dataset, "same", 1, iter([]), ["station_id"]) == 0
    assert seen(store, dataset) == []


def test_withdrawing_brings_back_what_was_there_before(store: TimeSeriesStore, dataset: str) -> None:
    store.write(dataset, "first", 1, [frame([row("A", NOON, **{TEMPERATURE: 1.0})])], ["station_id"])
    corrected = [row("A", NOON, **{TEMPERATURE: 2.0}), row("A", NOON + 3 * HOUR, **{TEMPERATURE: 3.0})]
    store.write(dataset, "second", 2, [frame(corrected)], ["station_id"])
    assert seen(store, dataset) == corrected
    store.withdraw(dataset, "second")
    store.withdraw(dataset, "second")
    store.withdraw(dataset, "unheard of")
    store.withdraw("unheard_of", "second")
    assert seen(store, dataset) == [row("A", NOON, **{TEMPERATURE: 1.0})]
    store.write(dataset, "second", 2, [frame(corrected)], ["station_id"])
    assert seen(store, dataset) == corrected


def test_an_ingestion_that_is_written_late_takes_its_place_in_the_order_of_arrival(
    store: TimeSeriesStore, dataset: str
) -> None:
    def value() -> list[float]:
        before = [point[TEMPERATURE] for point in seen(store, dataset)]
        if isinstance(store, SegmentStore):
            compact(store, dataset)
            assert [point[TEMPERATURE] for point in seen(store, dataset)] == before
        return before

    for arrival, latest in [(2, 2.0), (4, 4.0), (3, 4.0), (1, 4.0)]:
        one = frame([row("A", NOON, **{TEMPERATURE: float(arrival)})])
        store.write(dataset, f"i{arrival}", arrival, [one], ["station_id"])
        assert value() == [latest]
    for arrival, latest in [(4, 3.0), (2, 3.0), (3, 1.0)]:
        store.withdraw(dataset, f"i{arrival}")
        assert value() == [latest]


def test_an_empty_ingestion_is_fine(store: TimeSeriesStore, dataset: str) -> None:
    assert seen(store, dataset) == []
    assert store.write(dataset, "nothing", 1, [frame([])], ["station_id"]) == 0
    assert seen(store, dataset) == []


def test_nothing_is_seen_of_an_ingestion_that_breaks_off(store: TimeSeriesStore, dataset: str) -> None:
    store.write(dataset, "broken", 1, [frame([row("A", NOON, **{TEMPERATURE: 1.0})])], ["station_id"])

    def frames() -> Iterator[pl.DataFrame]:
        for number in range(20):
            yield frame([row(f"S{number}", NOON + number * timedelta(minutes=7))])
        raise OSError("the disk of the source is gone")

    with pytest.raises(OSError, match="the disk of the source is gone"):
        store.write(dataset, "broken", 1, frames(), ["station_id"])
    assert seen(store, dataset) == [row("A", NOON, **{TEMPERATURE: 1.0})]


def test_sources_with_different_columns_share_a_dataset(store: TimeSeriesStore, dataset: str) -> None:
    here = described([("air_temperature", "degC")], ["station_id", "sensor_type"])
    there = described([("relative_humidity", "%")], ["station_id", "operator"])
    for arrival, (one, values) in enumerate(
        [(here, {TEMPERATURE: 20.5, "sensor_type": "s1"}), (there, {HUMIDITY: 60.0, "operator": "KNMI"})], start=1
    ):
        rows = [row("both", NOON, **values), row(f"only {arrival}", NOON, **values)]
        store.write(dataset, f"i{arrival}", arrival, [frame(rows, canonical_schema([one]))], ["station_id"])
    first, second = {TEMPERATURE: 20.5, "sensor_type": "s1"}, {HUMIDITY: 60.0, "operator": "KNMI"}
    assert seen(store, dataset, schema=canonical_schema([here, there])) == [
        row("both", NOON, **first, **second),
        row("only 1", NOON, **first),
        row("only 2", NOON, **second),
    ]
    assert seen(store, dataset, schema=canonical_schema([there]))[1] == row("only 1", NOON)


def test_whatever_is_written_replaced_withdrawn_and_compacted_the_order_of_arrival_decides(
    store: TimeSeriesStore,
) -> None:
    arrivals = st.integers(1, 4)
    few_points = st.builds(
        row,
        st.sampled_from(["A", None]),
        st.sampled_from([NOON, NOON + HOUR]),
        **{TEMPERATURE: values, HUMIDITY: values},
    )
    steps = st.one_of(
        st.tuples(st.just("write"), arrivals, st.lists(few_points, max_size=4)),
        st.tuples(st.just("withdraw"), arrivals, st.none()),
        st.tuples(st.just("compact"), st.none(), st.none()),
    )

    @settings(max_examples=30 if isinstance(store, SegmentStore) else 5)
    @given(steps=st.lists(steps, max_size=12))
    def holds(steps: list[tuple[str, int, list[Row]]]) -> None:
        dataset, there = f"d{uuid4().hex}", dict[int, list[Row]]()
        for step, arrival, rows in steps:
            if step == "write":
                store.write(dataset, f"a-b {arrival}", arrival, [frame(rows)], ["station_id"])
                there[arrival] = [{**dict.fromkeys(FIXED.names), **one} for one in rows]
            elif step == "withdraw":
                store.withdraw(dataset, f"a-b {arrival}")
                there.pop(arrival, None)
            elif isinstance(store, SegmentStore):
                compact(store, dataset)
        window = Window(NOON - HOUR, NOON + 8 * HOUR)
        assert seen(store, dataset, window) == expected(there, window, FIXED)
        with_rows = {f"a-b {arrival}": arrival for arrival, rows in there.items() if rows}
        assert store.arrivals(dataset) == with_rows
        assert store.lacking(dataset, list(with_rows)) == []
        if isinstance(store, SegmentStore):
            held = store.held(dataset)
            assert {ingestion for ingestion, size in held.items() if size} == set(with_rows)
            assert store.lacking(dataset, ["a-b 6"]) == ["a-b 6"]

    holds()


def write_again_and_again(root: Path, dataset: str, arrivals: Sequence[int]) -> None:
    """What a writing process does: every ingestion corrects the same points, and one comes and goes."""
    store = SegmentStore(root)
    for arrival in arrivals:
        rows = [row(f"S{station:02d}", NOON, **{TEMPERATURE: float(arrival)}) for station in range(50)]
        for _ in range(2):
            store.write(dataset, f"i{arrival}", arrival, [frame(rows[:20]), frame(rows[20:])], ["station_id"])
        store.write(dataset, f"brief {arrivals[0]}", arrivals[0], [frame(rows)], ["station_id"])
        store.withdraw(dataset, f"brief {arrivals[0]}")


def compact_again_and_again(root: Path, dataset: str, going: Event) -> None:
    while going.is_set():
        compact(SegmentStore(root), dataset)


def test_two_processes_write_while_others_compact_and_read(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    context = multiprocessing.get_context("spawn")
    going = context.Event()
    going.set()
    writers = [
        context.Process(target=write_again_and_again, args=(tmp_path, dataset, range(first, 31, 2))) for first in (1, 2)
    ]
    compactors = [context.Process(target=compact_again_and_again, args=(tmp_path, dataset, going)) for _ in range(2)]
    for process in [*writers, *compactors]:
        process.start()
    latest = 0.0
    while any(writer.is_alive() for writer in writers):
        values = [point[TEMPERATURE] for point in seen(store, dataset)]
        assert len(values) in (0, 50) and len(set(values)) <= 1
        assert latest <= max(values, default=0.0) <= 30, "an ingestion was lost on its way into the bundle"
        latest = max(values, default=0.0)
    going.clear()
    for process in [*writers, *compactors]:
        process.join()
    assert [process.exitcode for process in [*writers, *compactors]] == [0, 0, 0, 0]
    assert latest > 0
    compact(store, dataset)
    assert [path.name for path in tmp_path.glob("*/[0-9]*/*")] == ["bundle.parquet"]
    assert seen(store, dataset) == [row(f"S{station:02d}", NOON, **{TEMPERATURE: 30.0}) for station in range(50)]
    assert store.lacking(dataset, [f"i{arrival}" for arrival in range(1, 31)]) == []


# --- segments ---------------------------------------------------------------------------------------------------------


def hourly(count: int, value: float = 1.0) -> list[Row]:
    return [row("A", NOON + number * HOUR, **{TEMPERATURE: value}) for number in range(count)]


def die_while_publishing(root: Path, dataset: str) -> None:
    """Write six hours, and die as by a signal after two of them were renamed: nothing is tidied up."""
    rename, renamed = Path.replace, []

    def rename_two(draft: Path, target: Path) -> Path:
        if len(renamed) == 2:
            os._exit(9)
        renamed.append(target)
        return rename(draft, target)

    Path.replace = rename_two  # type: ignore[method-assign, assignment]
    SegmentStore(root).write(dataset, "one", 1, [frame(hourly(6, value=2.0))], ["station_id"])


def test_a_crash_while_publishing_is_healed_by_writing_again(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    day = Window(NOON, NOON + DAY)
    store.write(dataset, "one", 1, [frame(hourly(4))], ["station_id"])
    child = multiprocessing.get_context("spawn").Process(target=die_while_publishing, args=(tmp_path, dataset))
    child.start()
    child.join()
    assert child.exitcode == 9
    assert seen(store, dataset, day) == [*hourly(2, value=2.0), *hourly(4)[2:]]
    assert list(tmp_path.glob("*/.drafts/one/*"))
    store.write(dataset, "one", 1, [frame(hourly(1, value=3.0))], ["station_id"])
    assert seen(store, dataset, day) == hourly(1, value=3.0)
    assert not list(tmp_path.glob("*/.drafts/*"))


@pytest.mark.parametrize("lost", [1, 10, 30, 31])
def test_a_journal_that_was_cut_short_is_healed_by_writing_again(tmp_path: Path, dataset: str, lost: int) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(3))], ["station_id"])
    [journal] = tmp_path.glob("*/.ingestions/one")
    journal.write_bytes(journal.read_bytes()[:-lost])
    store.write(dataset, "one", 1, [frame(hourly(3))], ["station_id"])
    store.withdraw(dataset, "one")
    assert seen(store, dataset) == []


def test_a_writer_that_waits_for_a_withdrawal_is_not_forgotten(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(2))], ["station_id"])
    held, rmtree = threading.Event(), shutil.rmtree

    def wait(path: Path, **options: Any) -> None:
        if not held.is_set():
            held.set()
            time.sleep(0.3)
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", wait)
    withdrawal = threading.Thread(target=store.withdraw, args=(dataset, "one"))
    withdrawal.start()
    assert held.wait(10)
    store.write(dataset, "one", 1, [frame(hourly(3))], ["station_id"])
    withdrawal.join()
    assert seen(store, dataset) == hourly(3)
    store.withdraw(dataset, "one")
    assert seen(store, dataset) == []


def test_drafts_are_never_read(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    [segment] = tmp_path.glob("*/[0-9]*/*.parquet")
    segment.with_name(f".{segment.name}.draft").write_bytes(b"half a file")
    assert seen(store, dataset) == hourly(1)


def test_a_damaged_segment_is_named(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    [segment] = tmp_path.glob("*/[0-9]*/*.parquet")
    content = segment.read_bytes()
    for damaged in (
        b"",
        b"no Parquet at all",
        content[: len(content) // 2],
        content[:200] + bytes(200) + content[400:],
    ):
        segment.write_bytes(damaged)
        with pytest.raises(SegmentError, match=segment.name):
            seen(store, dataset)


def test_a_reader_bears_that_segments_vanish_and_change(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "RANGE_ROWS", 20)
    monkeypatch.setattr(segments, "SAMPLE_EVERY", 5)
    store = SegmentStore(tmp_path)
    names = [f"S{number:03d}" for number in range(100)]
    for arrival in (1, 2, 3):
        rows = [row(name, NOON, **{TEMPERATURE: float(arrival)}) for name in names]
        store.write(dataset, f"i{arrival}", arrival, [frame(rows)], ["station_id"])

    disturbances: list[Callable[[], object]] = [
        lambda: store.withdraw(dataset, "i3"),
        lambda: compact(store, dataset),
        lambda: store.write(dataset, "i2", 2, [frame([row(name, NOON) for name in names])], ["station_id"]),
    ]
    scan = pl.scan_parquet

    def scan_disturbed(segment: Path, **options: Any) -> pl.LazyFrame:
        if len(found) > 10 and disturbances:
            disturbances.pop()()
        return scan(segment, **options)

    monkeypatch.setattr(pl, "scan_parquet", scan_disturbed)
    found: list[Row] = []
    for batch in store.read(dataset, AFTERNOON, FIXED, ["station_id"]):
        found += batch.to_pylist()
    assert not disturbances
    assert [point["station_id"] for point in found] == names
    assert found[0][TEMPERATURE] == 3.0
    assert found[-1][TEMPERATURE] == 1.0


def test_a_segment_that_is_written_again_while_it_is_compacted_is_not_lost(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sync, again = SegmentStore(tmp_path), publish.sync, hourly(1, value=2.0)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])

    def write_again_and_sync(path: Path) -> None:
        if path.name == ".bundle":  # what it was made of was read
            store.write(dataset, "one", 1, [frame(again)], ["station_id"])
        sync(path)

    with monkeypatch.context() as busy:
        busy.setattr(publish, "sync", write_again_and_sync)
        compact(store, dataset)
    assert seen(store, dataset) == again
    compact(store, dataset)
    assert seen(store, dataset) == again and len(list(tmp_path.glob("*/[0-9]*/*"))) == 1


class Killed(BaseException):
    """As if the process had ended here: nothing that comes later is done, either."""


def test_a_compaction_may_be_killed_at_every_step(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SegmentStore(tmp_path)
    for arrival in (1, 2, 3):
        store.write(dataset, f"i{arrival}", arrival, [frame(hourly(1, value=float(arrival)))], ["station_id"])
    folder = tmp_path / dataset / "20260701T12"
    real = {name: getattr(Path, name) for name in ("replace", "unlink")}
    for steps in count():
        store.write(dataset, "i2", 2, [frame(hourly(1, value=2.5))], ["station_id"])  # again in a file of its own
        left = steps

        def mortal(name: str) -> Callable[..., Any]:
            def step(path: Path, *given: Any, **options: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real[name](path, *given, **options)

            return step

        with monkeypatch.context() as dying:
            for name in real:
                dying.setattr(Path, name, mortal(name))
            try:
                compact(store, dataset)
            except Killed:
                done = False
            else:
                done = True
        assert seen(store, dataset) == hourly(1, value=3.0)
        assert store.lacking(dataset, ["i1", "i2", "i3"]) == []
        store.withdraw(dataset, "i3")
        assert seen(store, dataset) == hourly(1, value=2.5)
        store.write(dataset, "i3", 3, [frame(hourly(1, value=3.0))], ["station_id"])
        if done:
            break
    assert steps >= 4
    compact(store, dataset)
    assert [path.name for path in folder.iterdir()] == ["bundle.parquet"]


def test_a_damaged_bundle_is_named_and_its_ingestions_are_lacking_once_it_is_removed(
    tmp_path: Path, dataset: str
) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    compact(store, dataset)
    [bundle] = tmp_path.glob("*/[0-9]*/bundle.parquet")
    bundle.write_bytes(bundle.read_bytes()[:-100])
    for ask in (lambda: seen(store, dataset), lambda: store.lacking(dataset, ["one"])):
        with pytest.raises(SegmentError, match=r"bundle.parquet cannot be read: .*; remove it, and rebuild"):
            ask()
    bundle.unlink()
    assert store.lacking(dataset, ["one"]) == ["one"]


def test_a_segment_of_other_types_keeps_its_file(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    numbered = frame([row("7", NOON)]).with_columns(pl.col("station_id").cast(pl.Int64))
    store.write(dataset, "two", 2, [numbered], ["station_id"])
    before = seen(store, dataset)
    compact(store, dataset)
    compact(store, dataset)
    names = sorted(path.name for path in tmp_path.glob("*/[0-9]*/*"))
    assert names == ["000000000002-two-00000.parquet", "bundle.parquet"]
    assert seen(store, dataset) == before


def test_thousands_of_hours_need_few_open_files(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 30, hard))
    try:
        store.write(dataset, "long", 1, [frame(hourly(300))], ["station_id"])
        assert seen(store, dataset, Window(NOON, NOON + 30 * DAY)) == hourly(300)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_rows_without_a_time_are_refused(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(ValueError, match="1 rows have no datetime"):
        SegmentStore(tmp_path).write(dataset, "one", 1, [frame([row("A", None)])], ["station_id"])  # type: ignore[arg-type]
