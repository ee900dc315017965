"""Annotated CSV, as `influx write` takes it, to line protocol: the same lines, byte by byte.

Belongs here: the grammar of annotations and headers. Does not belong here: values (annotated_values.py), what happens
to the lines (replay.py), and writing such files (targets.py). Source: the documentation of InfluxData's csv2lp, "CSV
Data On Input".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import chain
from zoneinfo import ZoneInfo

from ionbeam_client.influx.annotated_values import parser
from ionbeam_client.influx.lines import escape_key, escape_measurement

PLACEHOLDER = re.compile(r"\$\{([^}]+)\}")


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
class Column:
    """One column of a table: what its annotations say. `index` is -1 for one that no row has (#constant, #concat)."""

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
            return PLACEHOLDER.sub(lambda found: table.value_of(found[1], row), self.template)
        return self.default


@dataclass
class Parts:
    """Which columns of a table are what. `columns` are all that rows have; `name` and `value` are
    those of tables with one field a row."""

    measurement: Column | None = None
    time: Column | None = None
    name: Column | None = None
    value: Column | None = None
    columns: list[Column] = field(default_factory=list)
    tags: dict[str, Column] = field(default_factory=dict)
    fields: list[Column] = field(default_factory=list)


class Table:
    """What the annotations and the header say about the rows that follow."""

    def __init__(self) -> None:
        self._columns: list[Column] = []
        self._extra: list[Column] = []
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
            self._columns = [Column(index) for index in range(len(row))]
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
            self._columns = [Column(index) for index in range(len(row))]
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
        column = Column(-1)
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

    def parts(self) -> Parts:
        """Which columns are what, by what was taken in so far; a ``dateTime`` column knows its zone then."""
        found = Parts(columns=self._columns)
        unmarked_are_fields = all(column.label != "_field" for column in self._columns)
        for column in (*self._columns, *self._extra):
            if column.label == "_measurement" or column.part == "measurement":
                found.measurement = column
            elif column.label == "_time" or column.part == "time":
                found.time = column
            elif not column.label.strip() or column.part == "ignored":
                continue
            elif column.label == "_field":
                found.name = column
            elif column.label == "_value":
                found.value = column
            elif column.part == "tag":
                found.tags[column.label] = column
            elif column.part == "field" or unmarked_are_fields:
                found.fields.append(column)
        if found.time is not None:
            found.time.zone = found.time.zone or self._zone
            found.time.kind = found.time.kind or "dateTime"
        return found

    def _prepare(self) -> None:
        self._parts = self.parts()
        tags = sorted(self._parts.tags.items(), key=_bytes_of_label)
        self._tags = [(f",{escape_key(label)}=", column) for label, column in tags]
        self._fields = [(f"{escape_key(column.label)}=", column) for column in self._parts.fields]
        for one in (*self._columns, *self._extra):
            one.parse = parser(one.kind, one.format, one.zone)
        self._ready = True

    def line(self, row: list[str]) -> str:
        """The line of a row of data.

        Raises:
            ValueError: which column, and what is wrong with it.
        """
        if not self._ready:
            self._prepare()
            self.check()
        of = self._parts
        if of.measurement is None:
            raise ValueError("there is no column with the measurement")
        measurement = of.measurement.value(row, self)
        if not measurement:
            raise ValueError(f"column {of.measurement.label!r}: there is no measurement")
        made = [escape_measurement(measurement)]
        for prefix, column in self._tags:
            if column.index < len(row) and (value := column.value(row, self)):
                made.append(prefix + escape_key(value))
        fields = []
        if of.name is not None and of.value is not None:
            name, value = of.name.value(row, self), of.value.value(row, self)
            if name and value:
                fields.append(f"{escape_key(name)}={_parsed(of.value, value)}")
        for prefix, column in self._fields:
            if value := column.value(row, self):
                fields.append(prefix + _parsed(column, value))
        if not fields:
            raise ValueError("there is no field with a value")
        line = f"{''.join(made)} {','.join(fields)}"
        if of.time is not None and of.time.index < len(row) and (value := of.time.value(row, self)):
            return f"{line} {_parsed(of.time, value)}"
        return line

    def check(self) -> None:
        """Raise ValueError for a column that is made of one that is not there."""
        labels = [column.label for column in self._columns]
        for column in self._extra:
            for name in PLACEHOLDER.findall(column.template or ""):
                if name not in labels:
                    raise ValueError(
                        f"column {column.label!r}: it names the column {name!r}; there are {', '.join(labels)}"
                    )


def _bytes_of_label(item: tuple[str, Column]) -> bytes:
    return item[0].encode()


def _parsed(column: Column, value: str) -> str:
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
