"""A reading, and what every report has.

Belongs here: what holds whatever the encoding. Does not belong here: the encoding (`flexible_dictionary`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

import dateutil.parser

from ionbeam_client.archfx.reports.exceptions import DataError
from ionbeam_client.archfx.utils.slugs import ArchFxVariableID

Stream: TypeAlias = int | str | tuple[int | str, int | str] | ArchFxVariableID


@lru_cache(maxsize=4096, typed=True)  # a report has thousands of readings of few streams
def _variable(stream: Stream) -> int:
    return ArchFxVariableID(stream).get_id()


def checked_id(given: object, what: str) -> int:
    """A whole number that a report can carry; DataError says what else it is."""
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise DataError(f"{what} has to be a whole number, not {given!r}")
    number: int = given.__index__()
    if not 0 <= number < 1 << 64:
        raise DataError(f"{what} has to be at least 0 and less than 2^64, not {number}")
    return number


def check_time(given: object, what: str) -> None:
    """DataError unless it is a time, or text of a time by ISO 8601."""
    if not isinstance(given, str | datetime) or given != given:  # as pandas' time that is none
        raise DataError(f"{what} has to be a datetime or text of ISO 8601, not {given!r}")
    try:
        if isinstance(given, str):
            # The other end reads it with dateutil, which knows less of ISO 8601, and more besides.
            certain = datetime.fromisoformat(given) == dateutil.parser.parse(given)
        else:
            certain = given.tzinfo is None or bool(given.astimezone(UTC))
    except (ValueError, OverflowError):
        certain = False
    if not certain:
        raise DataError(f"{what} is no time of ISO 8601 in the years 1 to 9999: {given!r}")


def _read_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        moment: datetime = dateutil.parser.parse(text)
        return moment


class ArchFXDataPoint:
    """One reading: a value of a stream at a time, and what else is known of it.

    Args:
        timestamp: when it was measured; a datetime without a zone is UTC. Text of ISO 8601 is kept as it is.
        stream: the variable, in any form that `ArchFxVariableID` takes.
        value: a finite number, in the unit that the stream has at the service.
        summary_data: what belongs to the reading and is small; keys are text, and none is `value`.
        raw_data: what may be large.
        reading_id: its number in the device's sequence, by which a service takes it once however often it is sent.
            0, or none, is no number: such a reading is taken each time.

    Raises:
        DataError: for everything that is not so.
    """

    InvalidRawTime = 0xFFFFFFFF
    InvalidReadingID = 0

    __slots__ = ("raw_data", "reading_id", "stream", "summary_data", "timestamp", "value")

    def __init__(
        self,
        timestamp: datetime | str,
        stream: Stream,
        value: float,
        summary_data: dict[str, Any] | None = None,
        raw_data: dict[str, Any] | None = None,
        reading_id: int | None = None,
    ) -> None:
        if type(timestamp) is not datetime:
            check_time(timestamp, "timestamp")
        if summary_data is None:
            summary_data = {}
        elif not isinstance(summary_data, dict):
            raise DataError(f"summary_data has to be a dictionary, not {type(summary_data).__name__}")
        elif "value" in summary_data:
            raise DataError("summary_data has a key 'value': the value has a place of its own")
        try:
            self.stream = _variable(stream)
            self.value = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"stream {stream!r} with value {value!r}: {error}") from error
        if not isfinite(self.value):
            raise DataError(f"value has to be a finite number, not {value!r}: leave the reading out")
        if type(reading_id) is not int or not 0 <= reading_id < 1 << 64:
            reading_id = self.InvalidReadingID if reading_id is None else checked_id(reading_id, "reading_id")
        self.reading_id = reading_id
        self.timestamp = timestamp
        self.summary_data = summary_data
        self.raw_data = raw_data

    def __repr__(self) -> str:
        return f"ArchFXDataPoint(stream={self.stream:#x}, timestamp={self.timestamp!s}, value={self.value})"

    def asdict(self) -> dict[str, Any]:
        """The reading under the names that a report has for its parts, which are not copied."""
        return {
            "stream": self.stream,
            "dev_seqid": self.reading_id,
            "timestamp": self.timestamp,
            "value": self.value,
            "extra_data": self.summary_data,
            "data": self.raw_data,
        }

    @classmethod
    def FromDict(cls, obj: dict[str, Any]) -> ArchFXDataPoint:
        """The reading of what `asdict()` gave, or a report had: its time is text, in any form that can be read."""
        try:
            moment = _read_time(obj["timestamp"])
            stream, value = obj["stream"], obj["value"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"no reading: {error!r}") from error
        return cls(moment, stream, value, obj.get("extra_data"), obj.get("data"), obj.get("dev_seqid"))


class ArchFXReport(ABC):
    """Readings as the bytes that travel.

    Args:
        rawreport: the bytes.
        signed, encrypted: whether they are; what is decoded here never is.
        received_time: when it came from a device, UTC; by default now.
    """

    def __init__(
        self,
        rawreport: bytes,
        signed: bool = False,
        encrypted: bool = False,
        received_time: datetime | None = None,
    ) -> None:
        self.raw_report = rawreport
        self.signed = signed
        self.encrypted = encrypted
        self.verified = False
        self.received_time = received_time or datetime.now(UTC)

    @cached_property
    def visible_data(self) -> list[ArchFXDataPoint]:
        """The readings, decoded when they are first asked for."""
        return self.decode()

    @abstractmethod
    def decode(self) -> list[ArchFXDataPoint]:
        """The readings that the bytes hold; DataError where they hold none."""

    def encode(self) -> bytes:
        """The bytes, as `decode()` takes them."""
        return self.raw_report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bytes to a file, which is there whole or not at all."""
        place = Path(path)
        unfinished = place.with_name(f".{place.name}.{os.getpid()}")
        unfinished.write_bytes(self.encode())
        unfinished.replace(place)

    write = save
