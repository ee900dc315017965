"""Line protocol: rows to lines, and lines to rows.

Belongs here: the grammar of InfluxDB's line protocol, and the types that fields have in it. Does not belong here: where
rows come from (records.py) or go (targets.py), and the fast way for many rows of one shape (fast_lines.py).

A row of the log is `{"timestamp": ns, "measurement": text, "tags": {...}, "fields": {...}}`. JSON has no unsigned
integers, so a schema, measurement -> field -> type, says what JSON cannot: "unsigned", and "float" for a field whose
whole numbers are to be floats, because that is what the field is on the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Mapping[str, str]]
"""measurement -> field -> "unsigned" or "float"."""

EXACT_AS_FLOAT = 2**53
"""Whole numbers up to this one are the same as floats."""

_IN_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})
_IN_KEY = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_IN_TEXT = str.maketrans({'"': r"\"", "\\": r"\\"})
_NEEDS_ESCAPE = re.compile(r"[,= ]")
_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_IN_MEASUREMENT = re.compile(r"\\([, ])")
_ESCAPED_TEXT = re.compile(r'\\(["\\])')


class Row(NamedTuple):
    """One point: time in ns since 1970, and fields by name with their types in line protocol."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Any]
    timestamp: int
    unsigned: frozenset[str] = frozenset()


def escape_measurement(name: str) -> str:
    return name.translate(_IN_MEASUREMENT)


def escape_key(name: str) -> str:
    """A tag's name or value, or a field's name."""
    return name.translate(_IN_KEY) if _NEEDS_ESCAPE.search(name) else name


def escape_text(text: str) -> str:
    """What stands between the quotes of a text field."""
    return text.translate(_IN_TEXT)


def line_of(row: Mapping[str, Any], schema: Schema) -> str:
    """The line of one row of the log. Fields and tags that are null are left out.

    Raises:
        ValueError: the row lacks something, or a value has a type that InfluxDB does not know.
    """
    try:
        timestamp, fields = row["timestamp"], row["fields"]
        types = schema.get(row["measurement"], {})
        measurement = escape_measurement(row["measurement"])
        parts = [
            f"{escape_key(name)}={_field(name, value, types)}" for name, value in fields.items() if value is not None
        ]
        tags = [
            f",{escape_key(name)}={escape_key(value)}"
            for name, value in sorted((row.get("tags") or {}).items())
            if value
        ]
    except KeyError as error:
        raise ValueError(f"there is no {error.args[0]}") from None
    except (TypeError, AttributeError):
        raise ValueError("it is not an object with timestamp, measurement, tags and fields") from None
    if not parts:
        raise ValueError("it has no field with a value")
    if type(timestamp) is not int:
        raise ValueError(f"its timestamp is {timestamp!r}, not a whole number of nanoseconds")
    return f"{measurement}{''.join(tags)} {','.join(parts)} {timestamp}"


def _field(name: str, value: Any, types: Mapping[str, str]) -> str:
    kind = type(value)
    if kind is float:
        return repr(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        wanted = types.get(name)
        if wanted == "float" and abs(value) <= EXACT_AS_FLOAT:
            return f"{value}.0"
        return f"{value}u" if wanted == "unsigned" and value >= 0 else f"{value}i"
    if kind is str:
        return f'"{escape_text(value)}"'
    raise ValueError(f"field {name} is {value!r}; InfluxDB knows numbers, texts, true and false")


# -- lines to rows ---------------------------------------------------------------------------------------------------

_NAME = r"(?:[^,= \\\n]|\\.)+"  # of a tag or field, or a tag's value
_HEAD = re.compile(r"((?:[^, \\\n]|\\.)+)((?:,(?:[^ \\\n]|\\.)+)?) +", re.ASCII)
_TAG = re.compile(rf",({_NAME})=({_NAME})")
_FIELD = re.compile(rf'({_NAME})=("(?:[^"\\]|\\.)*"|[^,\s"]+)', re.DOTALL)
_OPEN_TEXT = re.compile(rf'{_NAME}="')  # where a whole one did not match
_INTEGER = re.compile(r"([+-]?\d+)i", re.ASCII)
_UNSIGNED = re.compile(r"\+?(\d+)u", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_TRUE, _FALSE = {"t", "T", "true", "True", "TRUE"}, {"f", "F", "false", "False", "FALSE"}


def row_of(line: str, unit: int = 1) -> Row:
    """The row of one line, whose time counts `unit` nanoseconds.

    Raises:
        ValueError: it is not line protocol, or has no time.
    """
    head = _HEAD.match(line)
    if head is None:
        raise ValueError("it has no measurement, followed by tags and a space")
    tags, place = {}, 0
    while tag := _TAG.match(head[2], place):
        tags[_unescaped(tag[1])], place = _unescaped(tag[2]), tag.end()
    if place != len(head[2]):
        raise ValueError(f"its tags cannot be read from {head[2][place:]!r}")
    fields, unsigned, place = {}, set(), head.end()
    while found := _FIELD.match(line, place):
        name = _unescaped(found[1])
        fields[name], place = _value(name, found[2]), found.end()
        if found[2].endswith("u"):
            unsigned.add(name)
        if line[place : place + 1] != ",":
            break
        place += 1
    rest = line[place:].strip()
    if not fields or line[place - 1 : place] == ",":
        raise ValueError(f"its fields cannot be read from {line[place:]!r}")
    if not rest:
        raise ValueError("it has no time")
    if not re.fullmatch(r"-?\d+", rest, re.ASCII):
        raise ValueError(f"its time is {rest!r}, not a whole number")
    return Row(_ESCAPED_IN_MEASUREMENT.sub(r"\1", head[1]), tags, fields, int(rest) * unit, frozenset(unsigned))


def split_lines(text: str) -> list[str]:
    """The lines of a text, without comments and empty ones; a line break inside a text field does not end a line."""
    lines, begun = [], ""
    for part in text.split("\n"):
        begun = f"{begun}\n{part}" if begun else part
        if not is_whole(begun):
            continue
        if begun.strip() and not begun.startswith("#"):
            lines.append(begun.rstrip("\r"))
        begun = ""
    return [*lines, begun] if begun else lines


def is_whole(text: str) -> bool:
    """Whether a line ends here, and not a line break inside one of its texts."""
    return text.startswith("#") or not _quotes_open(text)


def _quotes_open(line: str) -> bool:
    head = _HEAD.match(line)
    place = head.end() if head else len(line)
    while found := _FIELD.match(line, place):
        place = found.end() + 1
        if line[place - 1 : place] != ",":
            return False
    return _OPEN_TEXT.match(line, place) is not None


def _value(name: str, text: str) -> Any:
    for pattern, make in _NUMBERS:
        if found := pattern.fullmatch(text):
            return make(found)
    if text[0] == '"' and len(text) > 1:
        return _ESCAPED_TEXT.sub(r"\1", text[1:-1])
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"field {name} is {text}, which is no value of line protocol")


_NUMBERS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], Any]]] = [
    (_FLOAT, lambda found: float(found[0])),
    (_INTEGER, lambda found: int(found[1])),
    (_UNSIGNED, lambda found: int(found[1])),
]


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(r"\1", name)
