"""What a program gives to write(), as rows of the log.

Belongs here: dicts, line protocol, points, named tuples, dataclasses and iterables of them; the rules that names, tags
and values have to keep. Does not belong here: data frames (frames.py), and line protocol's grammar (lines.py).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from datetime import tzinfo
from decimal import Decimal
from typing import Any

import orjson

from ionbeam_client.influx import lines, times
from ionbeam_client.influx.errors import RecordError

RESERVED = {"_measurement", "_field", "_value", "_time"}
_UNWRITABLE = re.compile(r"\\(?:[,= ]|$)")
# InfluxDB takes rows with a backslash and a quote in these names, and never finds them again.
_UNWRITABLE_NAME = re.compile(r'\\(?:[,= "]|$)')
_BREAKS = str.maketrans({"\n": r"\n", "\t": r"\t", "\r": r"\r"})
_FIELD_TYPES = {"int": None, "uint": "unsigned", "float": "float"}


@dataclasses.dataclass(frozen=True)
class How:
    """The keywords of write(), by the names of InfluxDB's own client."""

    write_precision: str = "ns"
    default_tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data_frame_measurement_name: str | None = None
    data_frame_tag_columns: tuple[str, ...] = ()
    data_frame_timestamp_column: str | None = None
    data_frame_timestamp_timezone: str | tzinfo | None = None
    record_measurement_name: str | None = None
    record_measurement_key: str = "measurement"
    record_time_key: str | None = None
    record_tag_keys: tuple[str, ...] | None = None
    record_field_keys: tuple[str, ...] | None = None
    field_types: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Encoded:
    """Rows as lines of the log, and what JSON cannot say about them."""

    data: list[bytes] = dataclasses.field(default_factory=list)
    rows: int = 0
    unsigned: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    without_value: int = 0
    infinite: int = 0

    def add(self, row: lines.Row) -> None:
        """Add one row; one without any value is counted, not added."""
        if not row.fields:
            self.without_value += 1
            return
        tags = dict(sorted(row.tags.items()))
        line = {"timestamp": row.timestamp, "measurement": row.measurement, "tags": tags, "fields": row.fields}
        self.data.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self.rows += 1
        if row.unsigned:
            self.unsigned.setdefault(row.measurement, set()).update(row.unsigned)


def encode(record: Any, how: How) -> Encoded:
    """Everything in `record`, or nothing of it.

    Raises:
        RecordError: which record, what is wrong with it, and what to do.
    """
    encoded = Encoded()
    _encode(record, how, encoded, "")
    return encoded


def _encode(record: Any, how: How, encoded: Encoded, place: str) -> None:
    try:
        if is_frame(record):
            from ionbeam_client.influx import frames  # only those who have frames pay for them

            frames.encode(record, how, encoded)
        elif isinstance(record, str | bytes):
            text = record if isinstance(record, str) else record.decode()
            for line in lines.split_lines(text):
                _add_line(line, how.write_precision, how, encoded)
        elif hasattr(record, "to_line_protocol"):
            if line := record.to_line_protocol():
                _add_line(line, record.write_precision, how, encoded)
            else:
                encoded.without_value += 1
        elif isinstance(record, Mapping):
            encoded.add(_row_of_mapping(record, how, encoded))
        elif hasattr(record, "_asdict"):
            encoded.add(_row_of_mapping(record._asdict(), how, encoded))
        elif dataclasses.is_dataclass(record) and not isinstance(record, type):
            encoded.add(_row_of_mapping(dataclasses.asdict(record), how, encoded))
        elif isinstance(record, Iterable):
            for number, one in enumerate(record):
                _encode(one, how, encoded, f"{place}record {number}: ")
        else:
            raise ValueError(
                f"{type(record).__name__} cannot be written; give a data frame, dict, line protocol, Point, or a list"
            )
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"{place}{error}") from None


def is_frame(record: Any) -> bool:
    """Whether it is a data frame of pandas or polars, without loading either."""
    kind = type(record)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("pandas", "polars")


def _add_line(line: str, precision: str, how: How, encoded: Encoded) -> None:
    try:
        row = lines.row_of(line, times.PRECISIONS[str(precision)])
        encoded.add(
            lines.Row(
                check_measurement(row.measurement), clean_tags(row.tags, how.default_tags),
                {check_name(name, "field"): value for name, value in row.fields.items()}, row.timestamp, row.unsigned,
            )
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{error}: {line[:200]!r}") from None


def _row_of_mapping(record: Mapping[str, Any], how: How, encoded: Encoded) -> lines.Row:
    name = how.record_measurement_name or record.get(how.record_measurement_key)
    if name is None:
        raise ValueError(f"there is no key {how.record_measurement_key!r}; give it, or record_measurement_name=")
    time_keys = (how.record_time_key,) if how.record_time_key else ("time", "timestamp")
    time = next((record[key] for key in time_keys if record.get(key) is not None), None)
    if time is None:
        raise ValueError(f"there is no time: give it under the key {' or '.join(map(repr, time_keys))}")
    if how.record_tag_keys is not None:
        tags = {key: record[key] for key in how.record_tag_keys if key in record}
    else:
        tags = record.get("tags") or {}
    if how.record_field_keys is not None:
        given = {key: record[key] for key in how.record_field_keys if key in record}
    elif "fields" in record:
        given = record["fields"]
    else:
        raise ValueError("there is no key 'fields'; give it, or record_field_keys=")
    types = record.get("field_types", how.field_types)
    fields, unsigned = {}, set()
    for field, value in given.items():
        cleaned, is_unsigned = clean_value(field, value, types.get(field))
        if cleaned is None:
            encoded.infinite += is_infinite(value)
            continue
        fields[check_name(str(field), "field")] = cleaned
        if is_unsigned:
            unsigned.add(str(field))
    return lines.Row(
        check_measurement(str(name)), clean_tags(tags, how.default_tags), fields,
        times.to_nanoseconds(time, str(how.write_precision)), frozenset(unsigned),
    )  # fmt: skip


# -- what names, tags and values have to be ----------------------------------------------------------------------------


def check_measurement(name: str) -> str:
    """The name itself, when line protocol and CSV can carry it."""
    if name.startswith("#"):
        raise ValueError(f"measurement {name!r} begins with #, which would make its lines comments")
    return check_name(name, "measurement")


def check_name(name: str, what: str) -> str:
    """The name, with line breaks and tabs written as two characters, when line protocol and CSV can carry it."""
    if not name.strip():
        raise ValueError(f"a {what} has an empty name")
    if what != "measurement" and name in RESERVED:
        raise ValueError(f"{what} {name!r} has a name that InfluxDB keeps for itself; rename it")
    if (_UNWRITABLE if what == "tag" else _UNWRITABLE_NAME).search(name):
        raise ValueError(
            f"{what} {name!r} has a backslash before a comma, =, a space, a quote or its end; line protocol has no "
            "way to say that"
        )
    return name.translate(_BREAKS)


def clean_tags(tags: Mapping[str, Any], default_tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as texts; those without a value are left out, and default tags stand where there is no other."""
    cleaned = {}
    for name, value in {**default_tags, **tags}.items():
        if value is None or value == "" or value != value or not str(name):
            continue
        cleaned[check_name(str(name), "tag")] = check_tag(str(name), str(value))
    return cleaned


def check_tag(name: str, value: str) -> str:
    if _UNWRITABLE.search(value):
        raise ValueError(
            f"tag {name!r} is {value!r}, with a backslash before a comma, =, a space or its end; line protocol has no "
            "way to say that"
        )
    return value.translate(_BREAKS)


def clean_value(name: str, value: Any, wanted: str | None = None) -> tuple[Any, bool]:
    """The value as float, int, bool or str, or None when it is missing; and whether it is an unsigned integer.

    Raises:
        ValueError: InfluxDB has no such type, or the number is too large.
    """
    if value is None:
        return None, False
    unsigned = False
    if not isinstance(value, bool | int | float | str):
        if isinstance(value, Decimal):
            value = float(value)
        elif hasattr(value, "dtype") and hasattr(value, "item"):  # NumPy's scalars
            unsigned = str(value.dtype) == "uint64"
            value = float(str(value)) if str(value.dtype) in ("float16", "float32") else value.item()
        elif str(value) in ("NaT", "<NA>"):
            return None, False
        if not isinstance(value, bool | int | float | str):
            raise ValueError(
                f"field {name!r} is {value!r} ({type(value).__name__}); InfluxDB knows numbers, texts, true and false"
            )
    if isinstance(value, bool):
        return value, False
    if isinstance(value, int):
        if wanted == "float":
            return float(value), False
        unsigned = unsigned or wanted == "uint" or value > 2**63 - 1
        if not (0 <= value < 2**64 if unsigned else value >= -(2**63)):
            raise ValueError(f"field {name!r} is {value}, which does not fit 64 bits")
        return int(value), unsigned
    if isinstance(value, float):
        return (float(value), False) if math.isfinite(value) else (None, False)
    return str(value), False


def is_infinite(value: Any) -> bool:
    try:
        return math.isinf(value)
    except TypeError:
        return False
