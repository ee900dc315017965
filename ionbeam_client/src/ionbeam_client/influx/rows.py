"""Rows on their way into the log, and the rules that names, tags and values have to keep.

Belongs here: what the readers of records (records.py) and of data frames (frames.py) share. Does not belong here: how
either is read, and line protocol's grammar (lines.py).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from datetime import tzinfo
from decimal import Decimal
from typing import Any

import orjson

from ionbeam_client.influx import lines, times

_HALF = re.compile("[\ud800-\udfff]")
RESERVED = {"_measurement", "_field", "_value", "_time", "time"}
_UNWRITABLE = re.compile(r"[\n\r]|\\(?:[,= ]|\Z)")
# A line break ends a line; InfluxDB keeps carriage returns, and leaves them out when it is asked.
# InfluxDB takes rows with a backslash and a quote in these names, and never finds them again; a tab before them is cut.
_UNWRITABLE_NAME = re.compile(r'[\n\r]|\A\t|\\(?:[,= "]|\Z)')


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
    long_ago: int = 0
    """Rows whose times are so near to 1970 that their unit is doubtful."""

    def add(self, row: lines.Row) -> None:
        """Add one row; one without any value is counted, not added."""
        if not row.fields:
            self.without_value += 1
            return
        tags = dict(sorted(row.tags.items()))
        line = {"timestamp": row.timestamp, "measurement": row.measurement, "tags": tags, "fields": row.fields}
        try:
            self.data.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        except TypeError:
            raise ValueError(_what_json_cannot_say(row.fields)) from None
        self.rows += 1
        self.long_ago += -times.LONG_AGO < row.timestamp < times.LONG_AGO
        if row.unsigned:
            self.unsigned.setdefault(row.measurement, set()).update(row.unsigned)


def _what_json_cannot_say(fields: Mapping[str, Any]) -> str:
    for name, value in fields.items():
        if isinstance(value, str) and _HALF.search(value):
            return f"field {name!r} is {value!r}, with half of a character (a lone surrogate), which is no UTF-8"
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            return f"field {name!r} is {value}, which does not fit 64 bits"
    return f"its fields cannot be written as JSON: {fields!r}"


def check_measurement(name: str) -> str:
    """The name itself, when line protocol and CSV can carry it."""
    if name.startswith("#"):
        raise ValueError(f"measurement {name!r} begins with #, which would make its lines comments")
    return check_name(name, "measurement")


def check_name(name: str, what: str) -> str:
    """The name itself, when line protocol and CSV can carry it."""
    if not name.strip():
        raise ValueError(f"a {what} has an empty name")
    if _HALF.search(name):
        raise ValueError(f"{what} {name!r} has half of a character (a lone surrogate) in its name, which is no UTF-8")
    if what != "measurement" and name in RESERVED:
        raise ValueError(f"{what} {name!r} has a name that InfluxDB keeps for itself; rename it")
    if (_UNWRITABLE if what == "tag" else _UNWRITABLE_NAME).search(name):
        raise ValueError(
            f"{what} {name!r} has a line break, a tab at its begin, or a backslash before a comma, =, a space, a quote "
            "or its end; line protocol has no way to say that"
        )
    return name


def clean_tags(tags: Mapping[str, Any], default_tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as texts; those without a value are left out, and default tags stand where there is no other."""
    cleaned = {}
    for name, value in {**default_tags, **tags}.items():
        if value is None or value == "" or value != value or not str(name):
            continue
        cleaned[check_name(str(name), "tag")] = check_tag(str(name), str(value))
    return cleaned


def check_tag(name: str, value: str) -> str:
    if _HALF.search(value):
        raise ValueError(f"tag {name!r} is {value!r}, with half of a character (a lone surrogate), which is no UTF-8")
    if _UNWRITABLE.search(value):
        raise ValueError(
            f"tag {name!r} is {value!r}, with a line break, or a backslash before a comma, =, a space or its end; line "
            "protocol has no way to say that"
        )
    return value


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
