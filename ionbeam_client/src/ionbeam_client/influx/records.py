"""What a program gives to write(), as rows of the log.

Belongs here: dicts, line protocol, points, named tuples, dataclasses and iterables of them. Does not belong here: data
frames (frames.py), and the rules that rows have to keep (rows.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ionbeam_client.influx import lines, times
from ionbeam_client.influx.errors import RecordError
from ionbeam_client.influx.rows import (
    Encoded,
    How,
    check_measurement,
    check_name,
    clean_tags,
    clean_value,
    is_infinite,
)


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


def _add_line(line: str, precision: Any, how: How, encoded: Encoded) -> None:
    try:
        row = lines.row_of(line, times.PRECISIONS[times.precision_of(precision)])
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
        times.to_nanoseconds(time, how.write_precision), frozenset(unsigned),
    )  # fmt: skip
