"""Annotated CSV, as `influx write` takes it, to line protocol: the same lines, byte by byte.

Belongs here: the grammar of annotations, headers and data types. Does not belong here: what happens to the lines
(replay.py), and writing such files (targets.py). Source: the documentation of InfluxData's csv2lp, "CSV Data On Input".
"""

from __future__ import annotations

import base64
import binascii
import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from itertools import chain
from zoneinfo import ZoneInfo

from ionbeam_client.influx.layouts import read_duration, read_time
from ionbeam_client.influx.lines import escape_key, escape_measurement, escape_text

_RFC3339 = "2006-01-02T15:04:05Z07:00"
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_HEX_NUMBER = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?\d+", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NATURAL = re.compile(r"\d+", re.ASCII)
_PLACEHOLDER = re.compile(r"\$\{([^}]+)\}")


def read_lines(text: Iterable[str]) -> Iterator[tuple[int, str | None, str]]:
    """For each row of data: its line number in the file, its line or None, and, when None, what is wrong with it.

    `text` gives the file's lines with their ends, as a file that was opened with newline="" does.
    """
    source: Iterator[str] = (
        f"{line[:-2]}\n" if line.endswith("\r\n") else line for line in text
    )  # inside of texts, too
    first = next(source, "")
    separator, skipped = ",", 0
    if first.startswith("sep=") and len(first.rstrip("\r\n")) > 4 and first[4] not in ',"':
        separator, skipped = first[4], 1
    else:
        source = chain([first], source)
    reader = csv.reader(source, delimiter=separator, strict=True)
    table = Table()
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num + skipped, None, f"it is not CSV: {error}"
            continue
        if row and table.is_data(row):
            number = reader.line_num + skipped
            try:
                yield number, table.line(row), ""
            except ValueError as error:
                yield number, None, str(error)


@dataclass
class _Column:
    index: int
    label: str = ""
    kind: str = ""
    format: str = ""
    part: str = ""  # measurement, tag, field, time, ignored; empty: not decided
    default: str = ""
    zone: tzinfo | None = None
    template: str | None = None
    parse: Callable[[str], str] = field(default=lambda value: value)

    def describe(self, annotation: str) -> None:
        """Take over `type:format|default`."""
        said = _without_comment(annotation)
        pipe = said.find("|")
        if pipe > 1 and not self.default:
            self.default, said = said[pipe + 1 :], said[:pipe]
        colon = said.find(":")
        if colon > 1:
            self.format, said = said[colon + 1 :], said[:colon]
        if said.startswith("ignore"):
            self.part = "ignored"
        elif said in ("tag", "measurement", "field"):
            self.part = said
        elif said in ("dateTime", "time"):
            self.part, said = "time", "dateTime"
        self.kind = "" if said == "field" else said

    def value(self, row: list[str], table: Table) -> str:
        if 0 <= self.index < len(row):
            return row[self.index] or self.default
        if self.template is not None:
            return _PLACEHOLDER.sub(lambda found: table.value_of(found[1], row), self.template)
        return self.default


class Table:
    """What the annotations and the header say about the rows that follow."""

    def __init__(self) -> None:
        self._columns: list[_Column] = []
        self._extra: list[_Column] = []
        self._annotated: set[str] = set()
        self._reading = False
        self._zone: tzinfo | None = None
        self._ready = False

    def is_data(self, row: list[str]) -> bool:
        """Take a row in; True when it is one of data."""
        if not row[0].startswith("#"):
            if self._reading:
                return True
            self._header(row)
            return False
        for name, take in (
            ("#group", self._column), ("#datatype", self._column), ("#default", self._column),
            ("#constant", self._virtual), ("#concat", self._virtual), ("#timezone", self._timezone),
        ):  # fmt: skip
            if row[0].lower().startswith(name) and row[0][len(name) : len(name) + 1] in ("", " "):
                self._ready = False
                take(name, row)
                return False
        return False

    def _header(self, row: list[str]) -> None:
        self._ready = False
        if not self._annotated:
            self._columns = [_Column(index) for index in range(len(row))]
        for column in self._columns:
            if not column.label and column.index < len(row):
                column.label = row[column.index]
                if not column.kind and "|" in column.label:
                    column.label, _, annotation = column.label.partition("|")
                    column.describe(annotation)
        self._reading = True

    def _column(self, name: str, row: list[str]) -> None:
        if self._reading:  # an annotation after data begins another table
            self._annotated, self._reading = set(), False
            self._columns, self._extra = [], []
        if not self._annotated or (name == "#group" and name in self._annotated):
            self._annotated = {name}
            self._columns = [_Column(index) for index in range(len(row))]
        self._annotated.add(name)
        for column in self._columns:
            if column.index < len(row):
                said = row[column.index]
                if name == "#datatype":
                    column.describe(said)
                elif name == "#default":
                    column.default = _without_comment(said)
                elif said.endswith("true") and not column.part:
                    column.part = "tag"

    def _virtual(self, name: str, row: list[str]) -> None:
        column = _Column(-1)
        column.describe(row[0])
        rest = row[1:]
        if not column.kind and not column.part and rest:
            column.describe(rest.pop(0))
        column.label = rest[0] if rest else ""
        column.default = rest[1] if len(rest) > 1 else column.default
        if column.part in ("measurement", "time"):
            if not column.default and column.label:
                column.default, column.label = column.label, f"{name} {column.kind}"
            column.label = column.label or f"{name} {column.kind}"
        if name == "#concat":
            column.template = column.default
        self._extra.append(column)

    def _timezone(self, name: str, row: list[str]) -> None:
        said = _without_comment(row[0]) or (row[1] if len(row) > 1 else "")
        self._zone = _zone(said)

    def value_of(self, label: str, row: list[str]) -> str:
        """A column's value in a row, by its label; nothing where there is no such column."""
        column = next((column for column in self._columns if column.label == label), None)
        return column.value(row, self) if column else ""

    def _prepare(self) -> None:
        self._measurement: _Column | None = None
        self._time: _Column | None = None
        self._name: _Column | None = None
        self._value: _Column | None = None
        fields: list[_Column] = []
        tags: dict[str, _Column] = {}
        unmarked_are_fields = all(column.label != "_field" for column in self._columns)
        for column in (*self._columns, *self._extra):
            if column.label == "_measurement" or column.part == "measurement":
                self._measurement = column
            elif column.label == "_time" or column.part == "time":
                self._time = column
            elif not column.label.strip() or column.part == "ignored":
                continue
            elif column.label == "_field":
                self._name = column
            elif column.label == "_value":
                self._value = column
            elif column.part == "tag":
                tags[column.label] = column
            elif column.part == "field" or unmarked_are_fields:
                fields.append(column)
        self._tags = [(f",{escape_key(label)}=", column) for label, column in sorted(tags.items(), key=_bytes_of_label)]
        self._fields = [(f"{escape_key(column.label)}=", column) for column in fields]
        if self._time is not None:
            self._time.zone = self._time.zone or self._zone
            self._time.kind = self._time.kind or "dateTime"
        for one in (*self._columns, *self._extra):
            one.parse = _parser(one)
        self._ready = True

    def line(self, row: list[str]) -> str:
        """The line of a row of data.

        Raises:
            ValueError: which column, and what is wrong with it.
        """
        if not self._ready:
            self._prepare()
            self._check()
        if self._measurement is None:
            raise ValueError("there is no column with the measurement")
        measurement = self._measurement.value(row, self)
        if not measurement:
            raise ValueError(f"column {self._measurement.label!r}: there is no measurement")
        made = [escape_measurement(measurement)]
        for prefix, column in self._tags:
            if column.index < len(row) and (value := column.value(row, self)):
                made.append(prefix + escape_key(value))
        fields = []
        if self._name is not None and self._value is not None:
            name, value = self._name.value(row, self), self._value.value(row, self)
            if name and value:
                fields.append(f"{escape_key(name)}={_parsed(self._value, value)}")
        for prefix, column in self._fields:
            if value := column.value(row, self):
                fields.append(prefix + _parsed(column, value))
        if not fields:
            raise ValueError("there is no field with a value")
        line = f"{''.join(made)} {','.join(fields)}"
        if self._time is not None and self._time.index < len(row) and (value := self._time.value(row, self)):
            return f"{line} {_parsed(self._time, value)}"
        return line

    def _check(self) -> None:
        labels = [column.label for column in self._columns]
        for column in self._extra:
            for name in _PLACEHOLDER.findall(column.template or ""):
                if name not in labels:
                    raise ValueError(
                        f"column {column.label!r}: it names the column {name!r}; there are {', '.join(labels)}"
                    )


def _bytes_of_label(item: tuple[str, _Column]) -> bytes:
    return item[0].encode()


def _parsed(column: _Column, value: str) -> str:
    try:
        return column.parse(value)
    except ValueError as error:
        raise ValueError(f"column {column.label!r}: {error}") from None


def _without_comment(text: str) -> str:
    """What stands behind `#anything `; the text itself when it does not begin so."""
    return text.partition(" ")[2].lstrip(" ") if text.startswith("#") else text


def _zone(text: str) -> tzinfo | None:
    if text.lower() == "local":
        return datetime.now().astimezone().tzinfo
    if re.fullmatch(r"[+-]\d{4}", text, re.ASCII):
        minutes = int(text[1:3]) * 60 + int(text[3:])
        return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
    try:
        return ZoneInfo(text) if text else None
    except (KeyError, ValueError):
        return None


# -- values ------------------------------------------------------------------------------------------------------------


def _parser(column: _Column) -> Callable[[str], str]:
    """What makes line protocol of a column's texts."""
    form = column.format
    if column.kind == "string":
        return lambda value: f'"{escape_text(value)}"'
    if column.kind == "double":
        return lambda value: _double(_normal(value, form)[0])
    if column.kind == "long":
        return lambda value: f"{_integer(value, form, _INTEGER, -(2**63), 2**63 - 1)}i"
    if column.kind == "unsignedLong":
        return lambda value: f"{_integer(value, form, _NATURAL, 0, 2**64 - 1)}u"
    if column.kind == "boolean":
        return _boolean(form)
    if column.kind == "dateTime":
        return lambda value: str(_time(value, form, column.zone or UTC))
    if column.kind == "duration":
        return lambda value: f"{read_duration(value)}i"
    if column.kind == "base64Binary":
        return _base64
    if column.kind:
        return _no_such_type(column.kind)
    return lambda value: value


def _no_such_type(kind: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        raise ValueError(f"there is no data type {kind!r}")

    return parse


def _normal(value: str, form: str, whole: bool = False) -> tuple[str, bool]:
    """A number as programs write it; and whether its fraction was cut off, which `whole` asks for.

    The first character of the format separates the fraction, the others are left out.
    """
    form = form or ". \n\t\r_"
    for character in form[1:]:
        value = value.replace(character, "")
    if whole and form[0] in value:
        return value.partition(form[0])[0], True
    return value.replace(form[0], "."), False


def _integer(value: str, form: str, pattern: re.Pattern[str], least: int, most: int) -> int:
    strict = form.startswith("strict")
    text, cut = _normal(value, form.removeprefix("strict"), whole=True)
    if strict and cut:
        raise ValueError(f"{value!r} has a fraction")
    if not pattern.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(f"{value!r} is no whole number between {least} and {most}")
    return int(text)


def _double(text: str) -> str:
    if _HEX_NUMBER.fullmatch(text):
        number = float.fromhex(text)
    elif _NUMBER.fullmatch(text):
        number = float(text)
    else:
        raise ValueError(f"{text!r} is not a number")
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is too large for a float")
    return format(Decimal(repr(number)), "f").removesuffix(".0")


def _boolean(form: str) -> Callable[[str], str]:
    if not form:
        return _boolean_by_first_character
    if ":" not in form:
        raise ValueError(f"the format of booleans is {form!r}; it has to look like yes,true:no,false")
    true, _, false = form.partition(":")
    truthy, falsy = (part.split(",") if part else [] for part in (true, false))

    def parse(value: str) -> str:
        if value in falsy:
            return "false"
        if value in truthy:
            return "true"
        if not falsy:
            return "false"
        if not truthy:
            return "true"
        raise ValueError(f"{value!r} is neither one of {truthy} nor one of {falsy}")

    return parse


def _boolean_by_first_character(value: str) -> str:
    if value[0] in "tTyY1":
        return "true"
    if value[0] in "fFnN0":
        return "false"
    raise ValueError(f"{value!r} does not begin with one of t, f, 0, 1, y, n")


def _time(value: str, form: str, zone: tzinfo) -> int:
    if form in ("", "number"):
        if _INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63:
            return int(value)
        if form:
            raise ValueError(f"{value!r} is not a whole number")
    layout = _RFC3339 if form in ("", "RFC3339", "RFC3339Nano") else form
    found = read_time(value, layout, zone)
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"{value!r} lies outside of what InfluxDB stores, 1677 to 2262")
    return found


def _base64(value: str) -> str:
    try:
        return base64.b64encode(base64.b64decode(value, validate=True)).decode()
    except binascii.Error as error:
        raise ValueError(f"{value!r} is not base64: {error}") from None
