"""Canonical rows: the schema, what becomes of raw values, and that every raw row is either used or rejected."""

import math
from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbeam_client.models import (
    DTYPES,
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    LatitudeAxis,
    LongitudeAxis,
    MetadataVariable,
    TimeAxis,
)
from ionbeam_dagster.domain.canonical import (
    EARLIEST,
    LATEST,
    TimeBounds,
    canonical_schema,
    canonicalise,
    columns_of,
    point_key,
    provider_flag,
    undeclared,
    variables_of,
)
from ionbeam_dagster.domain.raw_values import NO_VALUE, CanonicalError

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
WIND = "wind_speed__m s-1__10.0__mean__PT10M"


def metadata(temperature: str = "float64", wind: str = "float64") -> IngestionMetadata:
    variables = [
        CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC", level=2.0, dtype=temperature),
        CanonicalVariable(
            column="w", standard_name="wind_speed", cf_unit="m s-1", level=10, method="mean", period="PT10M", dtype=wind
        ),
    ]
    mapping = DataIngestionMap(
        datetime=TimeAxis(from_col="time"),
        lat=LatitudeAxis(from_col="y"),
        lon=LongitudeAxis(from_col="x"),
        canonical_variables=variables,
        metadata_variables=[MetadataVariable(column="station_id")],
    )
    return IngestionMetadata(dataset={"name": "weather"}, ingestion_map=mapping)


def batch(rows: int = 1, **columns: object) -> pa.RecordBatch:
    """Good rows, but for the given columns; a scalar stands in every row."""
    good: dict[str, object] = {"time": NOON, "y": 1.0, "x": 2.0, "t": 20.5, "w": 3.0, "station_id": "a"} | columns
    rows = max([rows, *(len(v) for v in good.values() if isinstance(v, list | pa.Array))])
    return pa.record_batch({k: v if isinstance(v, list | pa.Array) else [v] * rows for k, v in good.items()})


def reasons(raw: pa.RecordBatch, **dtypes: str) -> list[str]:
    """The reason for each row's rejection, in order, "" for the rows that are used."""
    found = canonicalise(raw, metadata(**dtypes)).rejected
    told = dict(zip(found["row"], found["reason"], strict=True))
    return [told.get(row, "") for row in range(raw.num_rows)]


# Schema


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_comes_back_from_a_dataset_s_schema(dtype, tmp_path):
    schema = canonical_schema([metadata(temperature=dtype)])
    pa.parquet.write_table(schema.empty_table(), tmp_path / "empty.parquet")
    for known in (schema, pa.parquet.read_schema(tmp_path / "empty.parquet")):
        assert next(iter(variables_of(known))).dtype == dtype
    assert canonicalise(batch(t="1"), metadata(temperature=dtype)).rows.to_arrow().schema.field(TEMPERATURE).type in (
        schema.field(TEMPERATURE).type,
        pa.large_string(),
    )


def test_text_of_any_arrow_type_is_dtype_string():
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        field = pa.field(TEMPERATURE, kind, metadata={"role": "variable"})
        assert [variable.dtype for variable in variables_of(pa.schema([field]))] == ["string"]


def test_schemas_of_several_sources_are_one():
    schema = canonical_schema([metadata(), metadata()])
    assert schema.names == ["datetime", "lat", "lon", TEMPERATURE, WIND, "station_id"]
    assert columns_of(schema, "variable") == [TEMPERATURE, WIND]
    assert point_key(schema) == ["station_id"]


def test_the_provider_s_quality_codes_follow_their_variable():
    plain = metadata()
    temperature, wind = plain.ingestion_map.canonical_variables
    flagged = temperature.model_copy(update={"flag_column": "code"})
    mapping = plain.ingestion_map.model_copy(update={"canonical_variables": [flagged, wind]})
    described = plain.model_copy(update={"ingestion_map": mapping})
    flag = provider_flag(TEMPERATURE)
    for schema in (canonical_schema([described]), canonical_schema([described, plain])):
        assert schema.names == ["datetime", "lat", "lon", TEMPERATURE, flag, WIND, "station_id"]
        assert columns_of(schema, "quality") == [flag]
        assert schema.field(flag).type == pa.int8()
        assert schema.field(flag).metadata == {
            b"role": b"quality",
            b"of": TEMPERATURE.encode(),
            b"kind": b"provider_flag",
        }
    raw = batch(t=[20.5, 20.5, None, None], w=[3.0, 3.0, None, None], code=["1", "bad", "3", None])
    found = canonicalise(raw, described)
    assert found.rows.columns == canonical_schema([described]).names
    assert found.rows[flag].to_list() == [1, None, 3]
    assert found.rejected["reason"].to_list() == ["code is no int8: bad", "no value in any variable"]
    assert undeclared(raw.schema, described) == []
    with pytest.raises(CanonicalError, match="code missing"):
        canonicalise(batch(), described)


# Rows


def test_rows_have_exactly_the_canonical_columns():
    raw = batch(rows=3, extra=[1, 2, 3])
    rows = canonicalise(raw, metadata()).rows
    assert rows.columns == canonical_schema([metadata()]).names
    assert rows.dtypes == [pl.Datetime("us", "UTC"), *[pl.Float64] * 4, pl.String]
    assert rows.row(0) == (NOON, 1.0, 2.0, 20.5, 3.0, "a")
    assert undeclared(raw.schema, metadata()) == ["extra"]


def test_no_rows_at_all():
    raw = batch().slice(0, 0)
    result = canonicalise(raw, metadata())
    assert (result.rows.height, result.rejected.height) == (0, 0)
    assert result.rejected.columns == [*raw.schema.names, "row", "reason", "whole"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+02:00", "-05:30"])
def test_timestamps_of_any_unit_and_zone(unit, zone):
    seconds = [int(NOON.timestamp()), 0, -1]
    moments = pa.array(seconds, pa.timestamp("s", zone)).cast(pa.timestamp(unit, zone))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert canonicalise(batch(time=moments), metadata()).rows["datetime"].to_list() == [
        NOON,
        epoch,
        epoch - timedelta(seconds=1),
    ]


def test_a_polars_frame_is_taken_as_well():
    in_berlin = pl.from_arrow(batch(rows=2)).with_columns(pl.col("time").dt.convert_time_zone("Europe/Berlin"))
    rows = canonicalise(in_berlin, metadata()).rows
    assert rows.equals(canonicalise(batch(rows=2), metadata()).rows)
    assert rows["datetime"].to_list() == [NOON, NOON]


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-21T12:00:00Z", "2026-06-21T12:00:00", "2026-06-21 12:00", "2026-06-21T14:00:00+02:00",
        "2026-06-21 14:00:00.000+0200", "2026-06-21T07:00-05", " 2026-06-21T12:00:00.000000Z\n",
        "2026-06-21T12:00:00.000000999Z",
    ],
)  # fmt: skip
def test_iso_text_alone_and_among_others(text):
    assert canonicalise(batch(time=[text] * 2), metadata()).rows["datetime"].to_list() == [NOON, NOON]
    mixed = canonicalise(batch(time=["2026-06-21 12:00:00.5", None, text, "soon"]), metadata())
    assert mixed.rows["datetime"].to_list() == [NOON + timedelta(milliseconds=500), NOON]


def test_what_is_no_time():
    assert reasons(
        batch(time=["", "nan", None, "2026-06-21", "soon", "2026-02-30T00:00Z", "1899-12-31T23:59:59Z"])
    ) == [
        "no time",
        "no time",
        "no time",
        "time not readable: 2026-06-21",
        "time not readable: soon",
        "time not readable: 2026-02-30T00:00Z",
        "time out of range: 1899-12-31T23:59:59Z",
    ]
    far = pa.array([2**62, -(2**62), None, -62_135_596_800_000], pa.timestamp("ms"))
    assert reasons(batch(time=far)) == [
        "time out of range: 9999-01-01T00:00:00Z",
        "time out of range: 0001-01-01T00:00:00Z",
        "no time",
        "time out of range: 0001-01-01T00:00:00Z",
    ]
    limits = [EARLIEST, LATEST - timedelta(microseconds=1), LATEST, EARLIEST - timedelta(microseconds=1)]
    assert [bool(reason) for reason in reasons(batch(time=limits))] == [False, False, True, True]


def test_a_date_is_its_midnight():
    rows = canonicalise(batch(time=[date(2026, 6, 21)]), metadata()).rows
    assert rows["datetime"].to_list() == [datetime(2026, 6, 21, tzinfo=UTC)]


def test_places():
    raw = batch(y=["45", " 46.5 ", "abc", "", "NaN", "-90.5", "0"], x=[360.0, 181.0, 5.0, -180.0, math.nan, 361.0, 0.0])
    assert canonicalise(raw, metadata()).rows.select("lat", "lon").rows() == [(45.0, 0.0), (46.5, -179.0), (0.0, 0.0)]
    assert reasons(raw)[2:6] == [
        "latitude not readable: abc",
        "no latitude",
        "no latitude; no longitude",
        "latitude out of range: -90.5; longitude out of range: 361.0",
    ]


@pytest.mark.parametrize(
    ("dtype", "raw", "expected"),
    [
        ("float64", ["12.5", " -1e3 ", "+5", *NO_VALUE, "NaN", "None"], [12.5, -1000.0, 5.0]),
        ("float64", [1, None, 3], [1.0, 3.0]),
        ("float64", [1.5, math.nan, math.inf, -math.inf, None], [1.5]),
        ("float64", pa.array(["1", "2", "1"]).dictionary_encode(), [1.0, 2.0, 1.0]),
        ("float32", ["0.5", "nan"], [0.5]),
        ("int64", ["9007199254740993", "12.0", "-"], [9007199254740993, 12]),
        ("int16", [1.0, -2.0, math.nan], [1, -2]),
        ("uint8", [True, False], [1, 0]),
        ("bool", ["true", "FALSE", "1", "0", ""], [True, False, True, False]),
        ("bool", [1.0, 0.0], [True, False]),
        ("string", ["rain", " snow\x00 ", "", "unknown"], ["rain", "snow"]),
        ("string", [3.0, 2.5], ["3", "2.5"]),
    ],
)
def test_values(dtype, raw, expected):
    result = canonicalise(batch(t=raw, w=1.0), metadata(temperature=dtype))
    assert result.rejected.height == 0
    assert result.rows[TEMPERATURE].drop_nulls().to_list() == expected


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [
        ("float64", "12,5", "12,5"), ("float64", "1e400", "1e400"), ("float64", "bad" * 99, "bad" * 20),
        ("float32", 1e300, "1e+300"), ("int64", 2.5, "2.5"), ("int64", "2.5", "2.5"), ("int64", 1e30, "1e+30"),
        ("uint8", 256, "256"), ("uint8", "-1", "-1"), ("bool", 2, "2"), ("bool", "maybe", "maybe"),
    ],
)  # fmt: skip
def test_a_value_that_its_dtype_cannot_hold_is_told(dtype, value, shown):
    assert reasons(batch(t=[value]), temperature=dtype) == [f"t is no {dtype}: {shown}"]


def test_one_bad_value_takes_no_other_with_it():
    result = canonicalise(batch(t=["1", "2,5", "bad", "4"], w=[1.0, 2.0, math.nan, 4.0]), metadata())
    assert result.rows[TEMPERATURE].to_list() == [1.0, None, 4.0]
    assert result.rows.select(pl.selectors.starts_with("wind")).to_series().to_list() == [1.0, 2.0, 4.0]
    assert result.places.to_list() == [0, 1, 3] and result.rejected["row"].to_list() == [1, 2]
    assert result.rejected["reason"].to_list() == ["t is no float64: 2,5", "t is no float64: bad"]


def test_a_row_needs_one_value():
    raw = batch(t=["1", "", "bad", "bad"], w=[math.nan, math.nan, math.nan, 1.0])
    assert reasons(raw) == ["", "no value in any variable", "t is no float64: bad", "t is no float64: bad"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([42, None], ["42", None]),
        ([42.0, 42.5, math.nan, 1e20, -0.0], ["42", "42.5", None, "1e+20", "0"]),
        (["a\tb\x00", " c ", "", "\n", None, "é\x85", "nan"], ["ab", "c", None, None, None, "é", "nan"]),
        ([True, None], ["true", None]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_metadata_become_text(raw, expected):
    told = canonicalise(batch(station_id=raw), metadata()).rows["station_id"].to_list()
    assert told == [text or "1.0_2.0" for text in expected]  # without an id of its own, that of its place


def test_rejected_rows_keep_their_raw_columns():
    raw = batch(rows=3, t=["1", "bad", "3"], y=[1.0, 2.0, 99.0], row=["a", "b", "c"], extra=[7, 8, 9])
    result = canonicalise(raw, metadata())
    assert result.rows[TEMPERATURE].to_list() == [1.0, None]
    assert result.rejected.select("t", "y", "raw_row", "extra", "row", "reason").rows() == [
        ("bad", 2.0, "b", 8, 1, "t is no float64: bad"),
        ("3", 99.0, "c", 9, 2, "latitude out of range: 99.0"),
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": [1]}, "column 'time' holds Int64; times must be timestamps, or ISO 8601 text"),
        ({"t": [[1.0]]}, r"column 't' holds List\(Float64\); values must be numbers or text"),
        ({"w": [NOON]}, "column 'w' holds Datetime"),
        ({"station_id": [b"a"]}, "column 'station_id' holds Binary"),
        ({"time": pa.array([2**62], pa.timestamp("s"))}, "column 'time' holds a time that cannot be"),
    ],
)
def test_a_column_of_the_wrong_type_is_an_error_of_the_batch(columns, message):
    with pytest.raises(CanonicalError, match=message):
        canonicalise(batch(**columns), metadata())


def test_a_missing_column_is_named_with_those_that_are_there():
    with pytest.raises(CanonicalError, match=r"declared columns t, y missing; there are time, x, w, station_id:"):
        canonicalise(batch().drop_columns(["t", "y"]), metadata())
    with pytest.raises(CanonicalError, match="more than once"):
        canonicalise(pa.record_batch([pa.array([1]), pa.array([2])], names=["t", "t"]), metadata())


# Any mix of values, against a plain model of the rules, row by row.

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1899, 12, 30), datetime(2101, 1, 3), timezones=st.just(UTC))
time_texts = st.one_of(
    st.builds(
        lambda moment, zone, gap: (moment.astimezone(zone).isoformat(gap), moment),
        moments,
        zones,
        st.sampled_from("T "),
    ),
    moments.map(lambda moment: (moment.replace(tzinfo=None).isoformat(), moment)),
    st.sampled_from([(None, None), ("", None), ("yesterday", None), ("2026-13-01T00:00:00Z", None)]),
)
numbers = st.one_of(st.none(), st.floats(), st.floats(-400, 400), st.sampled_from([0.0, 180.0, -180.0, 90.0, 360.0]))
words = st.sampled_from([*NO_VALUE, "NaN", "None", "bad", "1,5", "0x10", "1_000"])
texts = st.one_of(st.none(), words, st.floats(-400, 400).map(repr), st.integers().map(str))
raw_rows = st.lists(st.tuples(time_texts, numbers, numbers, numbers, texts), max_size=40)


def read(value: float | str | None) -> float | None:
    """A number, None for no value; raises ValueError for text that is neither."""
    if value is None or (isinstance(value, str) and value.lower() in NO_VALUE):
        return None
    if isinstance(value, str) and "_" in value:
        raise ValueError(value)
    return float(value) if math.isfinite(float(value)) else None


def is_bad(value: float | str | None) -> bool:
    """Whether there is a value that cannot be read."""
    try:
        read(value)
    except ValueError:
        return True
    return False


def modelled(moment: datetime | None, y: float | None, x: float | None, t: float | None, w: str | None) -> tuple | None:
    """The canonical row, None when it is to be rejected."""
    lat, lon, temperature = read(y), read(x), read(t)
    wind = None if is_bad(w) else read(w)
    placed = lat is not None and lon is not None and abs(lat) <= 90 and -180 <= lon <= 360
    if moment is None or not EARLIEST <= moment < LATEST or not placed or temperature is wind is None:
        return None
    return moment, lat, lon - 360 if lon > 180 else lon, temperature, wind


@given(rows=raw_rows, as_text=st.booleans())
def test_rows_and_rejected_share_out_the_batch(rows, as_text):
    known = [moment for (_, moment), *_ in rows]
    times = [text for (text, _), *_ in rows] if as_text else pa.array(known, pa.timestamp("us", "UTC"))
    y, x, t, w = ([row[place] for row in rows] for place in (1, 2, 3, 4))
    raw = pa.record_batch(
        {
            "time": pa.array(times, pa.string()) if as_text else times,
            **{name: pa.array(values, pa.float64()) for name, values in (("y", y), ("x", x), ("t", t))},
            "w": pa.array(w, pa.string()),
            "station_id": pa.array([str(row) for row in range(len(rows))], pa.string()),
        }
    )
    result = canonicalise(raw, metadata())
    expected = {str(row): modelled(*values) for row, values in enumerate(zip(known, y, x, t, w, strict=True))}
    assert {row[-1]: row[:-1] for row in result.rows.rows()} == {k: v for k, v in expected.items() if v is not None}
    told = [row for row, values in expected.items() if values is None or is_bad(w[int(row)])]
    assert result.rejected["row"].to_list() == [int(row) for row in told]
    assert result.rejected["station_id"].to_list() == told
    assert result.places.to_list() == result.rows["station_id"].cast(pl.Int64).to_list()
    assert (result.rejected["reason"].str.len_chars() > 0).all()
    assert result.rows["station_id"].cast(pl.Int64).is_sorted()


@given(value=st.floats(allow_nan=False, allow_infinity=False), dtype=st.sampled_from(sorted(DTYPES - {"string"})))
def test_a_value_comes_through_unchanged_or_not_at_all(value, dtype):
    for raw in (value, repr(value)):
        result = canonicalise(batch(t=[raw]), metadata(temperature=dtype))
        for kept in result.rows[TEMPERATURE].drop_nulls():
            assert kept == value or dtype == "float32"
            assert math.isclose(kept, value, rel_tol=1e-6, abs_tol=1e-37)
        if dtype == "float64":
            assert result.rows.height == 1


def test_a_real_drive(real_data):
    drive = real_data / "meteotracker" / "jerusalem_2022-08-25.csv"
    (raw,) = pyarrow.csv.read_csv(drive).combine_chunks().to_batches()
    mapping = DataIngestionMap(
        datetime=TimeAxis(from_col="time"),
        canonical_variables=[
            CanonicalVariable(column="Temp[°C]", standard_name="air_temperature", cf_unit="degC"),
            CanonicalVariable(column="Press[mbar]", standard_name="air_pressure", cf_unit="hPa"),
            CanonicalVariable(column="Solar[]", standard_name="x_solar_radiation_index", cf_unit="1"),
        ],
    )
    result = canonicalise(raw, IngestionMetadata(dataset={"name": "meteotracker"}, ingestion_map=mapping))
    lines = [line.split(",") for line in drive.read_text().splitlines()[1:] if line]
    assert result.rows.height + result.rejected.height == len(lines)
    assert result.rows.height > 1900
    temperatures = result.rows["air_temperature__degC__0.0__point__PT0S"]
    assert temperatures.sum() == pytest.approx(sum(float(line[3]) for line in lines))
    assert result.rows["datetime"][0] == datetime(2022, 8, 25, 11, 29, 4, tzinfo=UTC)
    assert undeclared(raw.schema, IngestionMetadata(dataset={"name": "m"}, ingestion_map=mapping)) == [
        "Hum[%]", "Alt[m]", "DP[°C]", "HDX[°C]", "Grad[°C/100m]", "Speed[km/h]",
    ]  # fmt: skip


def test_a_row_out_of_the_bounds_of_time_is_set_aside_with_the_reason_and_its_time():
    hour = timedelta(hours=1)
    times = [NOON - hour, NOON, NOON + hour, NOON + 2 * hour, None]
    bounds = TimeBounds(start=NOON, end=NOON + 2 * hour, latest=NOON + hour / 2)
    found = canonicalise(batch(time=times), metadata(), bounds)
    assert found.rows["datetime"].to_list() == [NOON]
    assert dict(found.rejected.select("row", "reason").iter_rows()) == {
        0: "before the source's start: 2026-06-21T11:00:00Z",
        2: "in the future when it arrived: 2026-06-21T13:00:00Z",
        3: "after the source's end: 2026-06-21T14:00:00Z; in the future when it arrived: 2026-06-21T14:00:00Z",
        4: "no time",
    }
    assert canonicalise(batch(time=times[:4]), metadata()).rejected.is_empty(), "without bounds any time will do"


def test_a_row_without_a_station_id_is_its_places():
    raw = batch(station_id=["a", None, "", None], y=[52.1, 52.1, -33.9, -33.9], x=[5.1, 5.1, 18.4, 18.4])
    assert canonicalise(raw, metadata()).rows["station_id"].to_list() == ["a", "52.1_5.1", "-33.9_18.4", "-33.9_18.4"]
