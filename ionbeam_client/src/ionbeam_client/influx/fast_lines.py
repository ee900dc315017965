"""Many rows of the log to line protocol: by a pattern for all rows that look alike, else one by one.

Belongs here: that choice, and making the patterns. Does not belong here: the grammar (lines.py).

A row as this package writes it into the log needs no parser: what stands between the values is the same for all rows
of one program, and values look the same in JSON and in line protocol. So a pattern made from one row takes the values
out of the next ones, several times as fast as parsing them. A row that does not fit any pattern is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import mod
from typing import Any

import orjson

from ionbeam_client.influx import lines

_MOST_SHAPES = 8
# What matched is never given back, which the second plus signs say: faster, and no other line fits the pattern anyway.
_FLOAT = rb"-?\d++(?:\.\d++(?:[eE][+-]?\d++)?|[eE][+-]?\d++)"
_TEXT = rb'"(?:[^"\\\n]|\\["\\])*"'  # the two escapes that mean the same in both

_Shape = tuple["re.Pattern[bytes]", bytes]


class _Heads(dict[bytes, bytes]):
    """Measurement and tags in line protocol, by how they stand in the log; there are few different ones."""

    def __missing__(self, series: bytes) -> bytes:
        row = orjson.loads(b"{" + series + b"}") | {"fields": {"_": True}, "timestamp": 0}
        if len(self) > 100_000:
            self.clear()
        self[series] = lines.line_of(row, {}).encode().removesuffix(b" _=true 0")
        return self[series]


class Converter:
    """Turns rows of the log into lines; remembers what they look like."""

    def __init__(self, schema: lines.Schema) -> None:
        self.schema = schema
        self._shapes: list[_Shape] = []
        self._heads = _Heads()

    def convert(self, raw: Sequence[bytes]) -> tuple[list[bytes | None], dict[int, str]]:
        """The line of each row, None where there is none, and why there is none, by place."""
        if self._shapes and (made := self._all_alike(raw, *self._shapes[0])):
            return made, {}
        made, reasons = [], {}
        for place, text in enumerate(raw):
            try:
                made.append(self._one(text))
            except (ValueError, TypeError) as error:
                made.append(None)
                reasons[place] = _why(text, error)
        return made, reasons

    def _all_alike(self, raw: Sequence[bytes], pattern: re.Pattern[bytes], template: bytes) -> list[bytes | None]:
        """Half the time for rows that all have one shape; nothing when one has not."""
        if not pattern.fullmatch(raw[-1]):
            return []
        step = pattern.groups + 1
        parts = pattern.split(b"".join(raw))  # for each row what stands before it, time, series, values
        if len(parts) != step * len(raw) + 1 or any(parts[::step]):
            return []
        times, series, *values = (parts[place::step] for place in range(1, step))
        try:
            heads = list(map(self._heads.__getitem__, series))
        except (ValueError, TypeError):  # of one row, which is told then
            return []
        return list(map(mod, repeat(template), zip(heads, *values, times, strict=True)))

    def _one(self, text: bytes) -> bytes:
        for pattern, template in self._shapes:
            if found := pattern.fullmatch(text):
                time, series, *values = found.groups()
                return template % (self._heads[series], *values, time)
        return self._parse(text)

    def _parse(self, text: bytes) -> bytes:
        row = orjson.loads(text)
        if isinstance(row, dict) and "line" in row and "measurement" not in row:  # refused, and never was JSON
            return str(row["line"]).encode()
        line = lines.line_of(row, self.schema).encode()
        shape = _shape_of(row, self.schema.get(row["measurement"], {}))
        if shape is not None and shape[0].fullmatch(text):
            self._shapes = [shape, *self._shapes[: _MOST_SHAPES - 1]]
        return line


def _why(text: bytes, error: Exception) -> str:
    if not isinstance(error, orjson.JSONDecodeError):
        return str(error)
    if not text.strip().endswith(b"}"):
        return "it is not a whole JSON object: its writer was killed, or it was edited"
    return f"it is not JSON: {error}"


def _shape_of(row: Mapping[str, Any], types: Mapping[str, str]) -> _Shape | None:
    """The pattern of rows like this one, and the template of their lines; None where values need a parser."""
    patterns, templates = [], []
    for name, value in row["fields"].items():
        key = lines.escape_key(name).encode().replace(b"%", b"%%")
        one, template = _value_pattern(value, types.get(name))
        if template:
            templates.append(key + b"=" + template)
        patterns.append(re.escape(orjson.dumps(name)) + b":" + one)
    if list(row) not in (["timestamp", "measurement", "tags", "fields"], ["timestamp", "measurement", "fields"]):
        return None
    measurement = re.escape(orjson.dumps(row["measurement"]))
    head = rb'\{"timestamp":(-?\d{1,19}+),("measurement":' + measurement + rb'(?:,"tags":\{[^{}\n]*+\})?),"fields":\{'
    pattern = re.compile(head + b",".join(patterns) + rb"\}\}(?:\n|\Z)")
    return pattern, b"%s " + b",".join(templates) + b" %s"


def _value_pattern(value: Any, wanted: str | None) -> tuple[bytes, bytes]:
    if value is None:
        return b"null", b""
    if isinstance(value, bool):
        return b"(true|false)", b"%s"
    if isinstance(value, float):
        return b"(" + _FLOAT + b")", b"%s"
    if isinstance(value, str):
        return b"(" + _TEXT + b")", b"%s"
    if wanted == "float":
        return rb"(-?\d{1,15}+)", b"%s.0"
    return (rb"(\d{1,18}+)", b"%su") if wanted == "unsigned" else (rb"(-?\d{1,18}+)", b"%si")
