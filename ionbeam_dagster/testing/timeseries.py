"""What every time-series store promises: of each value of a point the latest that is not null wins, of one place.

Belongs here: the suite that segments and InfluxDB pass, for whoever keeps points elsewhere. Does not belong here: what
only one of them can get wrong, or any server.

    class TestMyStore(TimeSeriesContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.canonical import canonical_schema, point_key
from ionbeam_dagster.domain.windows import HOUR, Window
from ionbeam_dagster.stores.timeseries import TimeSeriesStore

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


values = st.one_of(st.none(), st.just(float("nan")), st.floats(-60, 60).map(lambda value: round(value, 1)))
times = st.integers(0, 24).map(lambda step: NOON - HOUR + step * timedelta(minutes=20))
fixed_rows = st.fixed_dictionaries(
    {
        "datetime": times,
        "lat": st.sampled_from([50.0, 50.001, 50.1]),
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
    points: dict[tuple[Any, ...], list[Row]] = {}
    for arrival in sorted(ingestions):
        for one in ingestions[arrival]:
            if window.start <= one["datetime"] < window.end:
                known = {name: value for name, value in one.items() if value is not None and value == value}
                points.setdefault(tuple(one[name] for name in order), []).append(known)
    return [
        _at_one_place(points[point])
        for point in sorted(points, key=lambda point: [(value is not None, value) for value in point])
    ]


def _at_one_place(rows: Sequence[Row]) -> Row:
    """The rows of a point together, without those that are far from the latest; the places tried are 100 m or 11 km
    apart."""
    place = rows[-1]["lat"], rows[-1]["lon"]
    point: Row = {}
    for one in rows:
        if max(abs(one["lat"] - place[0]), abs(one["lon"] - place[1])) < 0.01:
            point.update(one)
    return point


class TimeSeriesContract:
    """The suite of a `TimeSeriesStore`. A subclass gives `store`; tests may share it, each has datasets of its own."""

    examples: ClassVar[int] = 30
    """How many random histories each property is tried on."""
    tells_what_it_lacks: ClassVar[bool] = True
    """False of a server that keeps its own account of what it holds: `lacking` and `held` name nothing there."""

    @pytest.fixture
    def store(self) -> TimeSeriesStore:
        raise NotImplementedError("a suite of a time-series store has a fixture store")

    @pytest.fixture
    def dataset(self) -> str:
        return f"d{uuid4().hex}"

    def compact(self, store: TimeSeriesStore, dataset: str) -> None:
        """Do to a dataset what the platform does now and then, so that it reads faster."""
        for hour, _ in list(store.crowded(dataset)):
            store.compact(dataset, hour)

    @pytest.mark.parametrize(("schema", "rows"), [(FIXED, fixed_rows), (MOBILE, mobile_rows)], ids=["fixed", "mobile"])
    def test_of_each_value_of_a_point_the_latest_that_is_not_null_wins(
        self, store: TimeSeriesStore, schema: pa.Schema, rows: st.SearchStrategy[Row]
    ) -> None:
        @settings(max_examples=self.examples)
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
        self, store: TimeSeriesStore, dataset: str
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

    def test_windows_are_half_open_to_the_microsecond(self, store: TimeSeriesStore, dataset: str) -> None:
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
    def test_one_station_may_have_any_number_of_rows(
        self, store: TimeSeriesStore, dataset: str, station: str | None
    ) -> None:
        rows = [
            row(station, NOON + minute * timedelta(minutes=1), **{TEMPERATURE: float(minute)}) for minute in range(60)
        ]
        for arrival in (1, 2, 3):
            store.write(dataset, f"i{arrival}", arrival, [frame(rows[arrival::3]), frame(rows[:2])], ["station_id"])
        assert seen(store, dataset) == rows

    def test_names_and_values_may_contain_anything(self, store: TimeSeriesStore, dataset: str) -> None:
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

    def test_writing_an_ingestion_again_replaces_it_entirely(self, store: TimeSeriesStore, dataset: str) -> None:
        first = [row("A", NOON + hour * HOUR, **{TEMPERATURE: 1.0}) for hour in range(5)]
        second = [row("B b", NOON, **{HUMIDITY: 50.0})]
        store.write(dataset, "same", 1, [frame(first)], ["station_id"])
        assert seen(store, dataset) == first
        store.write(dataset, "same", 1, [frame(second)], ["station_id"])
        assert seen(store, dataset) == second
        assert store.write(dataset, "same", 1, iter([]), ["station_id"]) == 0
        assert seen(store, dataset) == []

    def test_withdrawing_brings_back_what_was_there_before(self, store: TimeSeriesStore, dataset: str) -> None:
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

    @pytest.mark.parametrize("station", STATIONS)
    def test_a_station_that_is_removed_takes_no_other_with_it(
        self, store: TimeSeriesStore, dataset: str, station: str
    ) -> None:
        def rows(names: Sequence[str]) -> list[Row]:
            return [row(name, NOON + hour * HOUR, **{TEMPERATURE: 1.0}) for name in names for hour in range(2)]

        for arrival in (1, 2):
            store.write(dataset, f"all {arrival}", arrival, [frame(rows(STATIONS))], ["station_id"])
        store.write(dataset, "its own", 3, [frame(rows([station]))], ["station_id"])
        self.compact(store, dataset)
        store.write(dataset, "later", 4, [frame(rows([station, "Z"]))], ["station_id"])
        assert store.of_station(dataset, station, remove=False) == 8
        assert store.of_station(dataset, station, remove=True) == 8
        others = sorted([*STATIONS, "Z"])
        others.remove(station)
        assert seen(store, dataset) == rows(others)
        assert store.of_station(dataset, station, remove=True) == store.of_station(dataset, "Y", remove=True) == 0
        assert store.lacking(dataset, ["all 1", "all 2", "later"]) == []
        self.compact(store, dataset)
        store.withdraw(dataset, "its own")
        assert seen(store, dataset) == rows(others)

    def test_an_ingestion_that_is_written_late_takes_its_place_in_the_order_of_arrival(
        self, store: TimeSeriesStore, dataset: str
    ) -> None:
        def value() -> list[float]:
            before = [point[TEMPERATURE] for point in seen(store, dataset)]
            self.compact(store, dataset)
            assert [point[TEMPERATURE] for point in seen(store, dataset)] == before
            return before

        for arrival, latest in [(2, 2.0), (4, 4.0), (3, 4.0), (1, 4.0)]:
            one = frame([row("A", NOON, **{TEMPERATURE: float(arrival)})])
            store.write(dataset, f"i{arrival}", arrival, [one], ["station_id"])
            assert value() == [latest]
        for arrival, latest in [(4, 3.0), (2, 3.0), (3, 1.0)]:
            store.withdraw(dataset, f"i{arrival}")
            assert value() == [latest]

    def test_an_empty_ingestion_is_fine(self, store: TimeSeriesStore, dataset: str) -> None:
        assert seen(store, dataset) == []
        assert store.write(dataset, "nothing", 1, [frame([])], ["station_id"]) == 0
        assert seen(store, dataset) == []

    def test_nothing_is_seen_of_an_ingestion_that_breaks_off(self, store: TimeSeriesStore, dataset: str) -> None:
        store.write(dataset, "broken", 1, [frame([row("A", NOON, **{TEMPERATURE: 1.0})])], ["station_id"])

        def frames() -> Iterator[pl.DataFrame]:
            for number in range(20):
                yield frame([row(f"S{number}", NOON + number * timedelta(minutes=7))])
            raise OSError("the disk of the source is gone")

        with pytest.raises(OSError, match="the disk of the source is gone"):
            store.write(dataset, "broken", 1, frames(), ["station_id"])
        assert seen(store, dataset) == [row("A", NOON, **{TEMPERATURE: 1.0})]

    def test_sources_with_different_columns_share_a_dataset(self, store: TimeSeriesStore, dataset: str) -> None:
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
        self,
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

        @settings(max_examples=self.examples)
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
                else:
                    self.compact(store, dataset)
            window = Window(NOON - HOUR, NOON + 8 * HOUR)
            assert seen(store, dataset, window) == expected(there, window, FIXED)
            with_rows = {f"a-b {arrival}": arrival for arrival, rows in there.items() if rows}
            assert store.arrivals(dataset) == with_rows
            assert store.lacking(dataset, [*with_rows, "a-b 6"]) == ["a-b 6"]
            if self.tells_what_it_lacks:
                held = store.held(dataset)
                assert {ingestion for ingestion, size in held.items() if size} == set(with_rows)

        holds()
