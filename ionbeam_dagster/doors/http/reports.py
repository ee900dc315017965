"""Reports of devices, as ArchFX's devices and gateways upload them: readings with sequence numbers, in msgpack.

Belongs here: how a report becomes plain lines, and which of its readings are new. Does not belong here: requests
(app.py), or sets of numbers as such (sequences.py).

A reading is the line ``report,device=<slug>,streamer=<index>,variable=<slug> <variable>=<value> <time>``: the mapping
of the source's block is the same as that of other lines.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import polars as pl

from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug, ArchFxVariableID
from ionbeam_dagster.domain.raw_values import moments_of_text
from ionbeam_dagster.doors.http.counters import Counter, Times
from ionbeam_dagster.doors.http.journal import Frame, Journal, frames
from ionbeam_dagster.doors.http.memory import BeganAnew, Memory
from ionbeam_dagster.doors.http.sequences import Numbers
from ionbeam_dagster.errors import StoreError

log = logging.getLogger(__name__)

MEASUREMENT = "report"
FORMAT = "v200"

_Key = tuple[str, int, int]
_ID = 1 << 64
_MOST_ENTRIES = 1_000  # of what a reading has beside its value


class BadReport(ValueError):
    """A report that cannot be taken; the message says which reading, from 0, and why."""


@dataclass(frozen=True, slots=True)
class Report:
    """The readings of a device's streamer: `numbers`, `times` in ns and a plain line each. `more` is true of those that
    have something beside their value (`extra_data`, `data`), which is not taken."""

    device: int
    streamer: int
    numbers: Numbers
    times: Times
    lines: pl.Series
    more: pl.Series


def read_report(body: bytes) -> Report:
    """Read a report. Raises BadReport, and takes no more memory than a small multiple of `body`."""
    try:
        said = _unpacked(body)
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise BadReport(f"cannot be read as msgpack: {type(error).__name__} {error}") from error
    if not isinstance(said.get("events"), list):
        raise BadReport("is no report: it has no list of events")
    device, streamer = _whole(said, "device"), _whole(said, "streamer_index")
    events = said["events"]
    if not events:
        none, nobody = pl.Series("line", [], pl.String), pl.Series([], dtype=pl.Boolean)
        return Report(device, streamer, np.empty(0, np.uint64), np.empty(0, np.int64), none, nobody)
    try:
        streams, ids = ([event[key] for event in events] for key in ("stream", "dev_seqid"))
        if {*map(type, streams), *map(type, ids)} != {int}:  # polars takes True for 1
            raise TypeError("an id is no whole number")
        found = pl.DataFrame(
            {
                "stream": streams,
                "number": ids,
                "time": [event["timestamp"] for event in events],
                "value": [event["value"] for event in events],
                "more": [bool(event.get("extra_data") or event.get("data")) for event in events],
            },
            schema={
                "stream": pl.UInt32,
                "number": pl.UInt64,
                "time": pl.String,
                "value": pl.Float64,
                "more": pl.Boolean,
            },
            strict=True,
        )
    except (KeyError, TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        raise BadReport(_first_fault(events) or f"is no report: {type(error).__name__} {error}") from error
    if found.null_count().sum_horizontal().item():
        raise BadReport(_first_fault(events) or "has readings without a value")
    when = _times(found["time"])
    for bad, why in (
        (~found["value"].is_finite(), "its value is no finite number"),
        (when.is_null(), "its time is none"),
    ):
        if bad.any():
            raise BadReport(f"reading {bad.arg_true()[0]}: {why}")
    numbers = found["number"].to_numpy().astype(np.uint64)
    return Report(device, streamer, numbers, when.to_numpy(), _lines(device, streamer, found, when), found["more"])


def _unpacked(body: bytes) -> dict[str, Any]:
    """The entries of a report. Only the list of events may be long: room for a list is made as soon as its length is
    read, whether its entries follow or not."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(len(body), 1), strict_map_key=True, max_array_len=_MOST_ENTRIES, max_map_len=_MOST_ENTRIES,
        max_ext_len=0,
    )  # fmt: skip
    unpacker.feed(body)
    said: dict[str, Any] = {}
    for _ in range(unpacker.read_map_header()):
        key = unpacker.unpack()
        if key == "events":
            said[key] = [unpacker.unpack() for _ in range(unpacker.read_array_header())]
        else:
            said[key] = unpacker.unpack()
    if more := len(body) - unpacker.tell():
        raise ValueError(f"{more} bytes follow its end")
    return said


def _lines(device: int, streamer: int, found: pl.DataFrame, when: pl.Series) -> pl.Series:
    streams = found["stream"].unique()
    slugs = [str(ArchFxVariableID(stream)) for stream in streams]
    slug = found["stream"].replace_strict(streams, slugs, return_dtype=pl.String)
    head = f"{MEASUREMENT},device={ArchFxDeviceSlug(device)},streamer={streamer:#x},variable="
    columns = pl.DataFrame({"slug": slug, "value": found["value"], "when": when})
    line = pl.format(head + "{} {}={} {}", "slug", "slug", "value", "when")
    return columns.select(line.alias("line")).to_series()


def _whole(said: dict[str, Any], key: str) -> int:
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _ID:
        raise BadReport(f"{key} is {str(value)[:40]!r}, and has to be a whole number")
    return value


def _times(texts: pl.Series) -> pl.Series:
    """Nanoseconds since 1970, null where a text is no time that these can tell; without a zone it is UTC."""
    micros = moments_of_text(texts).dt.timestamp("us")
    return micros.set(micros.abs() > (2**63 - 1) // 1_000, None) * 1_000


def _first_fault(events: Iterable[Any]) -> str | None:
    """What is wrong with the first reading that cannot be."""
    for place, event in enumerate(events):
        if not isinstance(event, dict):
            return f"reading {place}: is no dictionary"
        for key, kind, most in (("stream", int, 1 << 32), ("dev_seqid", int, _ID), ("timestamp", str, 0)):
            value = event.get(key)
            if isinstance(value, bool) or not isinstance(value, kind):
                return f"reading {place}: {key} is {str(value)[:40]!r}"
            if isinstance(value, int) and not 0 <= value < most:
                return f"reading {place}: {key} is out of range"
        if not isinstance(event.get("value"), int | float):
            return f"reading {place}: value is {str(event.get('value'))[:40]!r}"
    return None


def taken(frame: Frame, counter: Counter) -> tuple[pl.Series, Counter]:
    """The lines of a report's frame that `counter` does not have, and the counter that has them."""
    if frame.after is not None:
        counter = counter.anew(frame.after, frame.received)
    numbers = np.frombuffer(frame.body[: 8 * frame.lines], "<u8").astype(np.uint64)
    lines = pl.Series("line", frame.body[8 * frame.lines :].decode().split("\n"), pl.String)
    times = lines.str.extract(r" (-?[0-9]+)$").cast(pl.Int64).to_numpy()
    lines = lines.filter(pl.Series(counter.new(numbers, times)))
    return lines, counter.with_(numbers, times, frame.received)


class Once:
    """Takes readings into the journal once, however often and in whatever order they come.

    What was taken in is in the door's memory, what is still in the journal is read from there: nothing is remembered
    that a crash could separate from its readings.
    """

    def __init__(self, journal: Journal, memory: Memory) -> None:
        self._journal = journal
        self._memory = memory
        self._counters: dict[_Key, Counter] = {}
        self._locks: dict[_Key, threading.Lock] = {}
        for path in journal.closed():
            try:
                self._add(path)
            except StoreError as error:
                log.error("numbers of readings behind the damage are not known any longer: %s", error)

    def _add(self, path: Path) -> None:
        for frame in frames(path):
            if frame.device is not None:
                key = frame.source, frame.device, frame.streamer
                self._counters[key] = taken(frame, self._counter(key))[1]

    def _counter(self, key: _Key) -> Counter:
        found = self._counters.get(key)
        return found if found is not None else self._memory.counter(*key)

    def take(self, source: str, report: Report) -> int:
        """Make the new readings of a report durable; returns how many they are. Raises OSError."""
        key = source, report.device, report.streamer
        with self._locks.setdefault(key, threading.Lock()):
            counter, received, after = self._counter(key), time.time_ns(), None
            if counter.begins_anew(report.numbers, report.times, received):
                after = counter.newest
                counter = counter.anew(after, received)
            new = counter.new(report.numbers, report.times)
            count = int(new.sum())
            if count:
                numbers, lines = report.numbers[new], report.lines.filter(pl.Series(new))
                body = numbers.astype("<u8").tobytes() + "\n".join(lines.to_list()).encode()
                frame = Frame(source, received, count, 1, report.device, report.streamer, after=after, body=body)
                self._journal.add(frame)
                self._counters[key] = counter.with_(numbers, report.times[new], received)
                if after is not None:
                    log.warning("%s", BeganAnew(*key, after, received).in_words())
                if more := int(report.more.filter(pl.Series(new)).sum()):
                    self._memory.left_out(source, more)
        return count

    def highest(self, source: str, device: int, streamer: int) -> int:
        """The highest number that was taken of a device's streamer, 0 where there is none."""
        return self._counter((source, device, streamer)).now.highest
