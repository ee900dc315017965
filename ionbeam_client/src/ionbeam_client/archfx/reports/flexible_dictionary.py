"""The report that services take: a dictionary in msgpack, format v200.

Belongs here: its encoding, decoding and upload. Does not belong here: what a reading is (`report`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgpack

from ionbeam_client.archfx.api.exceptions import RestBaseException
from ionbeam_client.archfx.reports.exceptions import DataError
from ionbeam_client.archfx.reports.report import ArchFXDataPoint, ArchFXReport, check_time, checked_id
from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug

if TYPE_CHECKING:
    from ionbeam_client.archfx.api.connection import Api

_log = logging.getLogger(__name__)
_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")  # NaN and the infinities as msgpack has them
_date_text = date.isoformat
_all_text = frozenset({str}).issuperset
_all_plain = frozenset({int, float, str, bool, bytes, type(None)}).issuperset


class ArchFXFlexibleDictionaryReport(ArchFXReport):
    """Readings of one device as one dictionary. Its attributes are the dictionary's other entries:

    origin: the device's number.
    report_id, lowest_id, highest_id: of the report, and of its readings that have one (0: none has).
    origin_streamer, streamer_selector: which of the device's streamers it is.
    sent_timestamp: when it was sent, as text, or None.

    Raises:
        DataError: for bytes that are no such report. Its readings are looked at when they are asked for.
    """

    FORMAT_TAG = "v200"

    def __init__(
        self,
        rawreport: bytes,
        signed: bool = False,
        encrypted: bool = False,
        received_time: datetime | None = None,
    ) -> None:
        super().__init__(rawreport, signed, encrypted, received_time)
        head = _head(rawreport)
        if head.get("format", self.FORMAT_TAG) != self.FORMAT_TAG:
            raise DataError(f"a report of the format {head['format']!r}; known is {self.FORMAT_TAG}")
        if "device" not in head:
            raise DataError("the report does not say from which device it is")
        self.origin: int = head["device"]
        self.report_id: int = head.get("seqid", ArchFXDataPoint.InvalidReadingID)
        self.sent_timestamp: str | None = head.get("sent_timestamp")
        self.origin_streamer: int | None = head.get("streamer_index")
        self.streamer_selector: int | None = head.get("streamer_selector")
        self.lowest_id: int | None = head.get("lowest_id")
        self.highest_id: int | None = head.get("highest_id")

    @classmethod
    def FromReadings(
        cls,
        device: int | str | ArchFxDeviceSlug,
        data: Iterable[ArchFXDataPoint],
        report_id: int = ArchFXDataPoint.InvalidReadingID,
        selector: int = 0xFFFF,
        streamer: int = 0x100,
        sent_timestamp: datetime | str | None = None,
        received_time: datetime | None = None,
    ) -> ArchFXFlexibleDictionaryReport:
        """The report of these readings.

        Args:
            device: from which they are.
            data: the readings, in any order.
            report_id: the report's own number, which devices take after those of its readings.
            selector, streamer: which of the device's streamers it is.
            sent_timestamp: when it is sent.
            received_time: when it came from the device, UTC; by default now.

        Raises:
            DataError: names the first reading that cannot be sent, by its place from 0.
        """
        readings = data if isinstance(data, list) else list(data)
        ids = [reading.reading_id for reading in readings if reading.reading_id != ArchFXDataPoint.InvalidReadingID]
        if len(set(ids)) < len(ids):
            _log.warning("Readings of device %s share a reading_id: a service takes only one of them", device)
        if sent_timestamp is not None:
            check_time(sent_timestamp, "sent_timestamp")
        try:
            origin = ArchFxDeviceSlug(device).get_id()
        except ValueError as error:
            raise DataError(str(error)) from error
        head = {
            "format": cls.FORMAT_TAG,
            "device": origin,
            "streamer_index": checked_id(streamer, "streamer"),
            "streamer_selector": checked_id(selector, "selector"),
            "seqid": checked_id(report_id, "report_id"),
            "lowest_id": checked_id(min(ids, default=ArchFXDataPoint.InvalidReadingID), "reading_id"),
            "highest_id": checked_id(max(ids, default=ArchFXDataPoint.InvalidReadingID), "reading_id"),
            "sent_timestamp": sent_timestamp,
        }
        return cls(_encoded(head, readings), received_time=received_time)

    def decode(self) -> list[ArchFXDataPoint]:
        return [ArchFXDataPoint.FromDict(event) for event in self.asdict().get("events", [])]

    def asdict(self) -> dict[str, Any]:
        """The whole report as a dictionary; DataError where the bytes cannot be understood."""
        try:
            report: dict[str, Any] = msgpack.unpackb(self.raw_report)
        except (msgpack.UnpackException, ValueError, TypeError) as error:
            raise DataError(f"the report cannot be read: {error!r}") from error
        return report

    def upload(self, cloud: Api) -> int:
        """Send the report, and say how many of its readings were new to the service.

        It may be sent again, also after an error that leaves open whether it arrived: readings with an id count once.

        Raises:
            RestBaseException: it was refused, or whether it arrived is not known; its kinds are in `api.exceptions`.
        """
        answer = cloud("streamer/report").upload_fp(("report.mp", self.encode()), timestamp=self.sent_timestamp)
        if not isinstance(answer, dict) or not isinstance(answer.get("count"), int):
            raise RestBaseException("The answer has no count of readings: whether they were taken is not known")
        count: int = answer["count"]
        return count


def _moment(moment: object) -> str:
    """A time as reports have it: in UTC, with the offset."""
    if isinstance(moment, str):
        return moment
    if not isinstance(moment, datetime):
        raise TypeError(f"a {type(moment).__name__} cannot be part of a report")
    if moment.tzinfo is None:
        return f"{moment.isoformat()}+00:00"
    return moment.astimezone(UTC).isoformat()


def _encoded(head: dict[str, Any], readings: list[ArchFXDataPoint]) -> bytes:
    packer = msgpack.Packer(default=_moment, autoreset=False)
    packer.pack_map_header(len(head) + 1)
    for key, value in head.items():
        packer.pack(key)
        packer.pack(value)
    packer.pack("events")
    packer.pack_array_header(len(readings))
    pack = packer.pack
    place = 0
    try:
        for place, reading in enumerate(readings):  # noqa: B007 (the error tells it)
            moment = reading.timestamp
            if type(moment) is datetime and moment.tzinfo is UTC:  # isoformat() asks the zone, which takes longer
                moment = f"{_date_text(moment)}T{moment.time().isoformat()}+00:00"
            pack(
                {
                    "stream": reading.stream,
                    "dev_seqid": reading.reading_id,
                    "timestamp": moment if type(moment) is str else _moment(moment),
                    "value": reading.value,
                    "extra_data": reading.summary_data,
                    "data": reading.raw_data,
                }
            )
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"reading {place} cannot be sent: {error}") from error
    encoded: bytes = packer.bytes()
    _check_keys(readings)
    if _NOT_FINITE.search(encoded):  # or the same bytes within text or binary data
        _check_numbers(readings)
    return encoded


def _check_keys(readings: list[ArchFXDataPoint]) -> None:
    """The other end reads no dictionary that has numbers as keys, nor the report that it is in."""
    extras, raws = [reading.summary_data for reading in readings], [reading.raw_data for reading in readings]
    values = chain.from_iterable(map(dict.values, extras))
    if (
        raws.count(None) == len(raws)
        and _all_plain(map(type, values))
        and _all_text(map(type, chain.from_iterable(extras)))
    ):
        return
    for place, reading in enumerate(readings):
        for part in _parts(reading.summary_data, reading.raw_data):
            if isinstance(part, dict) and not all(isinstance(key, str | bytes) for key in part):
                raise DataError(f"reading {place} cannot be sent: keys have to be text, not {list(part)[:5]}")


def _check_numbers(readings: list[ArchFXDataPoint]) -> None:
    for place, reading in enumerate(readings):
        for part in _parts(reading.value, reading.summary_data, reading.raw_data):
            if isinstance(part, float) and not isfinite(part):
                raise DataError(f"reading {place} cannot be sent: {part} is no finite number; leave it out")


def _parts(*wholes: object) -> Iterator[object]:
    """All that dictionaries and lists are made of, and themselves; what was packed is never part of itself."""
    waiting = list(wholes)
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)


def _head(raw: bytes) -> dict[str, Any]:
    """The report's entries without the readings, which are passed over."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(raw), 1))
    head = {}
    try:
        unpacker.feed(raw)
        for _ in range(unpacker.read_map_header()):
            if (key := unpacker.unpack()) == "events":
                unpacker.skip()
            else:
                head[key] = unpacker.unpack()
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise DataError(f"no report: {error!r}") from error
    if unpacker.tell() != len(raw):
        raise DataError(f"no report: it ends after {unpacker.tell()} of {len(raw)} bytes")
    return head
