"""From a server into a file of JSON lines, as the log has them: with all types, sorted by time, resumable.

Belongs here: asking a server for windows that fit into memory, and the file. Does not belong here: bringing such a file
back (replay.py).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ionbeam_client.influx import times
from ionbeam_client.influx.errors import InfluxError
from ionbeam_client.influx.log import replace_file
from ionbeam_client.influx.targets import InfluxServer, message_of

VALUES = 50_000
"""Values of one window: what is in memory at a time."""

_STEPS = [86_400 * times.SECOND, 3_600 * times.SECOND, 60 * times.SECOND, times.SECOND]
_NOT_TAGS = {"_start", "_stop", "_time", "_value", "_field", "_measurement"}
_READ: dict[str, Callable[[str], Any]] = {
    "double": float, "long": int, "unsignedLong": int, "boolean": lambda text: text == "true", "string": str,
}  # fmt: skip


class Value(NamedTuple):
    """One field of one point, as the server has it; `time` in ns since 1970, `kind` as annotated CSV names types."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    field: str
    time: int
    kind: str
    value: Any


class Files(NamedTuple):
    """What an export writes: the file, its part that is not complete, how far that is, and the schema beside it."""

    out: Path
    part: Path
    progress: Path
    schema: Path


def files_of(out: Path) -> Files:
    return Files(out, *(out.with_name(f"{out.name}.{end}") for end in ("part", "progress.json", "schema.json")))


def export(server: InfluxServer, start: int, stop: int, out: Path, tell: Callable[[str], None]) -> int:
    """Write all points with `start` <= time < `stop` (ns since 1970) into a file; gives the number of its rows.

    The file appears when it is complete. A run that was interrupted goes on where it was.

    Raises:
        InfluxError: the server does not answer, or says that it cannot.
    """
    _, part, progress, beside = files_of(out)
    begun = {"from": start, "to": stop, "server": server.name}
    so_far: dict[str, Any] = begun | {"next": start, "length": 0, "rows": 0, "unsigned": {}}
    if progress.exists() and part.exists():
        known = orjson.loads(progress.read_bytes())
        if {key: known.get(key) for key in begun} != begun:
            raise InfluxError(f"{part} is of another export ({known}); finish that one, or remove both files")
        so_far = known
        tell(f"going on at {times.to_rfc3339(so_far['next'])}, after {so_far['rows']} rows")
    with part.open("r+b" if part.exists() else "w+b") as file:
        file.truncate(so_far["length"])
        file.seek(so_far["length"])
        for begin, end in windows(server, so_far["next"], stop):
            so_far["rows"] += _write(file, read(server, begin, end), so_far["unsigned"], tell)
            file.flush()
            os.fsync(file.fileno())
            so_far |= {"next": end, "length": file.tell()}
            replace_file(progress, orjson.dumps(so_far))
    if so_far["unsigned"]:
        schema = {name: dict.fromkeys(fields, "unsigned") for name, fields in so_far["unsigned"].items()}
        replace_file(beside, orjson.dumps(schema, option=orjson.OPT_INDENT_2))
    part.replace(out)
    progress.unlink(missing_ok=True)
    return int(so_far["rows"])


def windows(server: InfluxServer, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of time with at most VALUES values each, as far as seconds can tell them apart."""
    begin, last, count = start, start, 0
    for end, number in _counts(server, start, stop, _STEPS):
        if count and count + number > VALUES:
            yield begin, last
            begin, count = last, 0
        count, last = count + number, end
    if count:
        yield begin, stop


def _counts(server: InfluxServer, start: int, stop: int, steps: list[int]) -> Iterator[tuple[int, int]]:
    """(end, number of values) of the steps that have any, the large ones in smaller steps."""
    step, *smaller = steps
    query = (
        f"{_from(server, start, stop)} |> window(every: {step // times.SECOND}s) |> count() "
        '|> group(columns: ["_start", "_stop"]) |> sum() |> group() |> sort(columns: ["_start"])'
    )
    for row in _rows(server, query):
        number, begin, end = int(row["_value"]), times.from_rfc3339(row["_start"]), times.from_rfc3339(row["_stop"])
        if number > VALUES and smaller:
            yield from _counts(server, begin, end, smaller)
        else:
            yield end, number


def read(server: InfluxServer, start: int, stop: int) -> Iterator[Value]:
    """Every value with `start` <= time < `stop`, series by series."""
    for row in _rows(server, _from(server, start, stop)):
        kind = row["\0kind"]
        if kind not in _READ:
            raise InfluxError(f"{server.name}: values of type {kind} are not known")
        tags = tuple((name, row[name]) for name in row["\0group"] if name not in _NOT_TAGS and row[name])
        yield Value(
            row["_measurement"], tags, row["_field"], times.from_rfc3339(row["_time"]), kind, _READ[kind](row["_value"])
        )


def _from(server: InfluxServer, start: int, stop: int) -> str:
    bucket = orjson.dumps(server.bucket).decode().replace("${", "\\${")  # which Flux would take for an expression
    return f"from(bucket: {bucket}) |> range(start: {times.to_rfc3339(start)}, stop: {times.to_rfc3339(stop)})"


def _write(file: Any, values: Iterable[Value], unsigned: dict[str, list[str]], tell: Callable[[str], None]) -> int:
    rows: dict[tuple[int, str, tuple[tuple[str, str], ...]], dict[str, Any]] = {}
    for one in values:
        rows.setdefault((one.time, one.measurement, one.tags), {})[one.field] = one.value
        known = unsigned.setdefault(one.measurement, []) if one.kind == "unsignedLong" else []
        if one.kind == "unsignedLong" and one.field not in known:
            known.append(one.field)
            tell(f"field {one.field!r} of {one.measurement!r} is unsigned; the schema beside the file says so")
    for (time, measurement, tags), fields in sorted(rows.items(), key=lambda item: item[0]):
        row = {"timestamp": time, "measurement": measurement, "tags": dict(tags), "fields": fields}
        file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return len(rows)


def _rows(server: InfluxServer, flux: str) -> Iterator[dict[str, Any]]:
    """The rows of an answer by their columns' names, with the type of `_value` and the names that are of the series."""
    import httpx

    try:
        answer = server.query(flux)
        try:
            if answer.status_code != 200:
                raise InfluxError(
                    f"{server.name}: cannot be asked what it has: {answer.status_code} {message_of(answer.read())}"
                )
            yield from _tables(server.name, csv.reader(_text_lines(answer.iter_bytes())))
        finally:
            answer.close()
    except httpx.HTTPError as error:
        raise InfluxError(f"{server.name}: no whole answer: {error}") from None


def _tables(name: str, reader: Iterable[list[str]]) -> Iterator[dict[str, Any]]:
    names: list[str] = []
    kinds: list[str] = []
    kind, group = "", [""]
    for row in reader:
        if not row:
            continue
        if row[0].startswith("#"):
            names = []
            kinds = row if row[0] == "#datatype" else kinds
            group = row if row[0] == "#group" else group
        elif not names:
            names = row
            if "error" in names[:2]:
                raise InfluxError(f"{name}: {' '.join(next(iter(reader), []))}")
            kind = kinds[names.index("_value")] if "_value" in names else ""
            group = [label for label, said in zip(names, group, strict=False) if said == "true"]
        else:
            yield dict(zip(names, row, strict=True)) | {"\0kind": kind, "\0group": group}


def _text_lines(parts: Iterable[bytes]) -> Iterator[str]:
    """Lines with their ends: a text may have a line break in it.

    The server writes every line break as CR LF, those inside of texts, too, and leaves out all other carriage returns.
    """
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield (line.removesuffix(b"\r") + b"\n").decode()
    if rest:
        yield rest.decode()
