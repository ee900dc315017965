"""Whether servers have what the log says: every row of a file of JSON lines, looked up.

Belongs here: that comparison. Does not belong here: bringing what is missing (replay.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ionbeam_client.influx import export, lines, times
from ionbeam_client.influx.errors import FileError
from ionbeam_client.influx.replay import File
from ionbeam_client.influx.targets import InfluxServer

ROWS = 20_000
"""Rows that are looked up at a time: what is in memory."""

_GAP = 600 * times.SECOND  # rows further apart are asked for in two queries
_EXAMPLES = 5

_Key = tuple[str, tuple[tuple[str, str], ...], str, int]


@dataclass
class Verified:
    """What a comparison found: values in the file, missing on the server, and other there (written later, perhaps)."""

    values: int = 0
    missing: int = 0
    other: int = 0
    unreadable: int = 0
    failure: str | None = None
    """Why the file could not be read to its end."""
    examples: list[str] = field(default_factory=list)


def verify(file: Path, server: InfluxServer) -> Verified:
    """Look up every value of a file that can be replayed.

    Raises:
        InfluxError: the server does not answer.
    """
    result = Verified()
    try:
        for chunk in File(file).chunks(ROWS, 0):
            _look_up(chunk.lines, server, result)
    except FileError as error:
        result.failure = str(error)
    return result


def _look_up(written: list[bytes | None], server: InfluxServer, result: Verified) -> None:
    expected: dict[_Key, tuple[Any, bool]] = {}
    for line in written:
        try:
            row = None if line is None else lines.row_of(line.decode())
        except ValueError:
            row = None
        if row is None:
            result.unreadable += 1
        else:
            tags = tuple(sorted(row.tags.items()))
            for name, value in row.fields.items():
                expected[row.measurement, tags, name, row.timestamp] = value, name in row.unsigned
    result.values += len(expected)
    for begin, end in _ranges(sorted({key[3] for key in expected})):
        for one in export.read(server, begin, end):
            key = (one.measurement, tuple(sorted(one.tags)), one.field, one.time)
            if key in expected:
                told, found = _shown(*expected.pop(key)), _shown(one.value, one.kind == "unsignedLong")
                if told != found:
                    result.other += 1
                    _note(result, key, f"is {told} in the file and {found} on the server")
    result.missing += len(expected)
    for key in islice(expected, _EXAMPLES):
        _note(result, key, "is not on the server")


def _ranges(moments: list[int]) -> Iterator[tuple[int, int]]:
    if not moments:
        return
    begin = last = moments[0]
    for moment in moments[1:]:
        if moment - last > _GAP:
            yield begin, last + 1
            begin = moment
        last = moment
    yield begin, last + 1


def _shown(value: Any, unsigned: bool) -> str:
    """A value so that another value, or another type, looks otherwise."""
    return f"{value!r}u" if unsigned else repr(value)


def _note(result: Verified, key: _Key, what: str) -> None:
    if len(result.examples) < _EXAMPLES:
        measurement, tags, name, time = key
        series = ",".join((measurement, *(f"{tag}={value}" for tag, value in tags)))
        result.examples.append(f"{series} {name} at {times.to_rfc3339(time)} {what}")
