"""Data frames of pandas and polars as rows of the log: by columns with polars where it is installed, else by rows.

Belongs here: everything that looks into a frame. Does not belong here: records that are not frames (records.py).
"""

from __future__ import annotations

from datetime import tzinfo
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ionbeam_client.influx import lines, times
from ionbeam_client.influx.rows import (
    Encoded,
    How,
    check_measurement,
    check_name,
    check_tag,
    clean_tags,
    clean_value,
    is_infinite,
)

if TYPE_CHECKING:
    import polars as pl

TIME = "timestamp"
FEW = 200
"""Rows for which loading polars and making columns of them takes longer than going through them."""


def encode(frame: Any, how: How, encoded: Encoded) -> None:
    """Add a frame's rows; the column `timestamp` (or the one that is named, or a DatetimeIndex) is their time.

    Raises:
        ValueError: no name of a measurement, no time, or columns that InfluxDB does not know.
    """
    if how.data_frame_measurement_name is None:
        raise ValueError("data_frame_measurement_name= is missing: it names the measurement of a frame's rows")
    measurement = check_measurement(how.data_frame_measurement_name)
    columns = [str(name) for name in frame.columns]
    if len(set(columns)) < len(columns):
        raise ValueError(f"the frame has two columns of one name: {columns}")
    tag_names = tuple(str(name) for name in how.data_frame_tag_columns)
    if missing := [name for name in tag_names if name not in columns]:
        raise ValueError(
            f"the frame has no column {missing[0]!r}, which data_frame_tag_columns names; it has {columns}"
        )
    moments, time_name = _times(frame, columns, how)
    tag_columns = {name: frame[name] for name in columns if name in tag_names and name != time_name}
    field_columns = {name: frame[name] for name in columns if name not in tag_names and name != time_name}
    if len(frame) >= FEW and find_spec("polars"):
        table = _table(moments, tag_columns, field_columns)
        if table is not None:
            _encode_columns(table, measurement, list(tag_columns), how, encoded)
            return
    _encode_rows(moments, tag_columns, field_columns, measurement, how, encoded)


# -- the time ----------------------------------------------------------------------------------------------------------


def _times(frame: Any, columns: list[str], how: How) -> tuple[Any, str | None]:
    """Times in ns, as a list or a NumPy array of int64, and the name of the column they come from."""
    name = how.data_frame_timestamp_column or (TIME if TIME in columns else None)
    zone = times.zone_of(how.data_frame_timestamp_timezone)
    if name is not None:
        if name not in columns:
            raise ValueError(
                f"the frame has no column {name!r}, which data_frame_timestamp_column names; it has {columns}"
            )
        return _nanoseconds(frame[name], how.write_precision, zone, f"column {name!r}"), name
    index = getattr(frame, "index", None)
    kind = type(index).__name__
    if kind == "PeriodIndex":
        index, kind = index.to_timestamp(), "DatetimeIndex"  # type: ignore[union-attr]
    if kind == "DatetimeIndex":
        return _nanoseconds(index.to_series(), how.write_precision, zone, "the index"), None  # type: ignore[union-attr]
    raise ValueError(
        f"the frame has no time: give it a column {TIME!r} (ns since 1970, datetimes, or RFC 3339 texts), name another "
        "with data_frame_timestamp_column=, or give it a DatetimeIndex"
    )


def _nanoseconds(column: Any, precision: str, zone: tzinfo | None, place: str) -> Any:
    kind = str(column.dtype)
    if _is_polars(column):
        import polars as pl

        if isinstance(column.dtype, pl.Datetime):
            if column.dtype.time_zone is None and zone is not None:
                column = column.dt.replace_time_zone(str(zone))
            found, unit = column.to_physical(), column.dtype.time_unit
        elif column.dtype.is_integer():
            found, unit = column, precision
        else:
            return _one_by_one(column.to_list(), precision, zone, place)
        if found.null_count():
            raise ValueError(f"{place} has no time in row {found.is_null().arg_true()[0]}")
        return _scaled(found.to_numpy(), unit, place)
    if kind.startswith(("datetime64", "int", "uint")) and not column.isna().any():
        if kind.startswith("datetime64"):
            if zone is not None and column.dt.tz is None:
                column = column.dt.tz_localize(zone)
            if column.dt.tz is not None:
                column = column.dt.tz_convert("UTC").dt.tz_localize(None)
            values = column.to_numpy()
            return _scaled(values.astype("int64"), str(values.dtype)[11:-1], place)
        return _scaled(column.to_numpy(), precision, place)
    return _one_by_one(column.tolist(), precision, zone, place)


def _scaled(values: Any, unit: str, place: str) -> Any:
    """An array of whole units as nanoseconds, which would overflow in silence where the unit is wrong."""
    factor = times.PRECISIONS[unit]
    for one in (values.min(), values.max()) if len(values) else ():
        if not times.EARLIEST <= int(one) * factor <= times.LATEST:
            raise ValueError(
                f"{place} has {one} {unit}, outside of what InfluxDB stores, 1677 to 2262: is the unit right? ({unit})"
            )
    return values.astype("int64") * factor


def _one_by_one(values: list[Any], precision: str, zone: tzinfo | None, place: str) -> list[int]:
    found = []
    for row, value in enumerate(values):
        try:
            found.append(times.to_nanoseconds(value, precision, zone))
        except ValueError as error:
            raise ValueError(f"{place}, row {row}: {error}") from None
    return found


# -- by rows -----------------------------------------------------------------------------------------------------------


def _encode_rows(
    moments: Any,
    tag_columns: dict[str, Any],
    field_columns: dict[str, Any],
    measurement: str,
    how: How,
    encoded: Encoded,
) -> None:
    tag_values = {
        name: [None if value is None or value != value else str(value) for value in _values(column)]
        for name, column in tag_columns.items()
    }
    cleaned: dict[str, list[Any]] = {}
    unsigned = {name for name, column in field_columns.items() if str(column.dtype).lower() == "uint64"}
    for name, column in field_columns.items():
        wanted, values = how.field_types.get(name), []
        for value in _values(column):
            one, is_unsigned = (
                (value, False) if type(value) is float and value - value == 0 else clean_value(name, value, wanted)
            )
            values.append(one)
            if one is None:
                encoded.infinite += is_infinite(value)
            elif is_unsigned:
                unsigned.add(name)
        cleaned[check_name(name, "field")] = values
    names = list(cleaned)
    known: dict[tuple[Any, ...], dict[str, str]] = {}
    for place, moment in enumerate(moments.tolist() if hasattr(moments, "tolist") else moments):
        given = tuple(values[place] for values in tag_values.values())
        tags = known.get(given)
        if tags is None:
            tags = known[given] = clean_tags(dict(zip(tag_values, given, strict=True)), how.default_tags)
        fields = {name: value for name in names if (value := cleaned[name][place]) is not None}
        encoded.add(lines.Row(measurement, tags, fields, moment, frozenset(unsigned & fields.keys())))


def _values(column: Any) -> list[Any]:
    if str(column.dtype) in ("float32", "float16") or (_is_polars(column) and str(column.dtype) == "Float32"):
        return [float(str(value)) for value in column.to_numpy()]  # 0.1, not 0.10000000149011612
    if _is_polars(column):
        return list(column.to_list())
    if str(column.dtype) in ("float64", "int64", "bool"):
        return list(column.tolist())
    return list(column.astype(object).where(column.notna(), None).tolist())


def _is_polars(column: Any) -> bool:
    return type(column).__module__.startswith("polars")


# -- by columns --------------------------------------------------------------------------------------------------------


def _table(moments: Any, tag_columns: dict[str, Any], field_columns: dict[str, Any]) -> pl.DataFrame | None:
    """All columns in polars: tags as text, fields as one of InfluxDB's types; None when a column has several types."""
    import polars as pl

    try:
        columns = [pl.Series("time", moments, dtype=pl.Int64)]
        columns += [_text(_series(f"tag:{name}", column)) for name, column in tag_columns.items()]
        columns += [_series(f"field:{name}", column) for name, column in field_columns.items()]
    except (TypeError, UnicodeEncodeError, pl.exceptions.PolarsError):
        return None
    known = all(
        (one.dtype.is_numeric() and not one.dtype.is_decimal()) or one.dtype in (pl.String, pl.Boolean, pl.Null)
        for one in columns
    )
    return pl.DataFrame(columns) if known else None


def _series(name: str, column: Any) -> pl.Series:
    import polars as pl

    if _is_polars(column):
        enumerated = column.dtype in (pl.Categorical, pl.Enum)
        return pl.Series(name, column.cast(pl.String) if enumerated else column)
    if getattr(column.dtype, "kind", "O") in "iufb" and hasattr(column.dtype, "byteorder"):  # NumPy's own
        return pl.Series(name, column.to_numpy())
    if getattr(column.dtype, "storage", None) == "pyarrow":  # texts of pandas that lie in memory as those of polars do
        return pl.Series(name, column)
    values = column.astype(object).where(column.notna(), None).tolist()
    return pl.Series(name, values, strict=True)


def _text(column: pl.Series) -> pl.Series:
    """Texts as Python writes them; NaN is missing."""
    import polars as pl

    if column.dtype == pl.Boolean:
        return column.replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    return (column.fill_nan(None) if column.dtype.is_float() else column).cast(pl.String)


def _encode_columns(table: pl.DataFrame, measurement: str, tags: list[str], how: How, encoded: Encoded) -> None:
    import polars as pl

    fields = [name.removeprefix("field:") for name in table.columns if name.startswith("field:")]
    floats = [name for name in table.columns if name.startswith("field:") and table[name].dtype.is_float()]
    encoded.infinite += sum(int(table[name].is_infinite().sum()) for name in floats)
    table = table.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in floats)
    for name in fields:
        values = table[f"field:{name}"]
        if values.dtype.is_integer() and how.field_types.get(name) == "float":
            table = table.with_columns(values.cast(pl.Float64))
        elif values.dtype.is_integer() and how.field_types.get(name) == "uint":
            if (values.min() or 0) < 0:  # type: ignore[operator]
                raise ValueError(f"field {name!r} has negative values; field_types says that it is unsigned")
            table = table.with_columns(values.cast(pl.UInt64))
    kept = (
        table.filter(pl.any_horizontal(pl.col(f"field:{name}").is_not_null() for name in fields))
        if fields
        else table[:0]
    )
    encoded.without_value += len(table) - len(kept)
    encoded.long_ago += int((kept["time"].abs() < times.LONG_AGO).sum())
    if kept.is_empty():
        return
    tag_columns = [_tag_column(kept[f"tag:{name}"], name) for name in tags]
    tag_columns += [
        pl.repeat(value, len(kept), eager=True).alias(name)
        for name, value in clean_tags({}, how.default_tags).items()
        if name not in tags
    ]
    field_columns = [kept[f"field:{name}"].alias(check_name(name, "field")) for name in fields]
    made = {"timestamp": kept["time"], "measurement": pl.repeat(measurement, len(kept), eager=True)}
    if tag_columns:
        made["tags"] = pl.DataFrame(sorted(tag_columns, key=lambda one: one.name)).to_struct()
    made["fields"] = pl.DataFrame(field_columns).to_struct()
    file = BytesIO()
    pl.DataFrame(made).write_ndjson(file)
    encoded.data.append(file.getvalue())
    encoded.rows += len(kept)
    if unsigned := {one.name for one in field_columns if one.dtype == pl.UInt64}:
        encoded.unsigned.setdefault(measurement, set()).update(unsigned)


def _tag_column(column: pl.Series, name: str) -> pl.Series:
    """A tag's values as line protocol can carry them; empty ones are missing."""
    for odd in column.filter(column.str.contains(r"[\\\n\r]")).unique().drop_nulls():
        check_tag(name, odd)
    return column.replace("", None).alias(check_name(name, "tag"))
