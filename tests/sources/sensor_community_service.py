"""Sensor.Community on the loopback interface: its archive and its live document, as far as a client sees them."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from datetime import date, datetime, timedelta

from ionbeam_dagster.testing.service import Reply, Request, Service

COLUMNS = {
    "sds011": "P1;durP1;ratioP1;P2;durP2;ratioP2",
    "dht22": "temperature;humidity",
    "bme280": "pressure;altitude;pressure_sealevel;temperature;humidity",
    "sps30": "P1;P4;P2;P0;N10;N4;N25;N1;N05;TS",
}
HEADER = "sensor_id;sensor_type;location;lat;lon;timestamp;"


class Archive(Service):
    """The archive: `days` holds each day's files by name (``..._sensor_1.csv``, or ``.csv.gz``); `changed` their times.

    Days of `past_years` lie in their year's folder.
    """

    def __init__(
        self, days: Mapping[str, Mapping[str, bytes]], past_years: tuple[int, ...] = (2024, 2025), port: int = 0
    ) -> None:
        super().__init__(port)
        self.days = {day: dict(files) for day, files in days.items()}
        self.past_years = past_years
        self.changed: dict[str, str] = {}
        self.months: dict[str, bytes] = {}

    def answer(self, request: Request) -> Reply:
        path = request.path
        if path == "/":
            top = [f"{day}/" for day in self.days if int(day[:4]) not in self.past_years]
            return _listing([f"{year}/" for year in self.past_years] + top + ["csv_per_month/"])
        if path in self.months:
            return _part(self.months[path], request)
        if month := re.fullmatch(r"/csv_per_month/(\d{4}-\d\d)/", path):
            names = [name.rsplit("/", 1)[1] for name in self.months if f"/{month[1]}/" in name]
            return _listing(names, self.changed) if names else Reply(b"not found", 404)
        found = re.fullmatch(r"/(?:(\d{4})/)?(\d{4}-\d\d-\d\d)/([^/]*)", path)
        if found is None or found[2] not in self.days:
            return Reply(b"not found", 404)
        year, day, name = found.groups()
        if (year is not None) != (int(day[:4]) in self.past_years):
            return Reply(b"not found", 404)
        files = self.days[day]
        if not name:
            return _listing(files, {n: self.changed.get(n, f"{day} 23:59") for n in files}, files)
        return Reply(files[name], type="text/csv") if name in files else Reply(b"not found", 404)


def _part(body: bytes, request: Request) -> Reply:
    """A zip, or what is left of it for a client that has its beginning, as Apache gives it."""
    tag = f'"{zlib.crc32(body):x}"'
    begin = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if begin is None or request.headers.get("if-range") != tag:
        return Reply(body, type="application/zip", headers={"ETag": tag})
    if (at := int(begin[1])) >= len(body):
        return Reply(b"", 416)
    where = f"bytes {at}-{len(body) - 1}/{len(body)}"
    return Reply(body[at:], 206, "application/zip", {"ETag": tag, "Content-Range": where})


def _listing(
    names: Mapping[str, bytes] | list[str],
    changed: Mapping[str, str] | None = None,
    bodies: Mapping[str, bytes] | None = None,
) -> Reply:
    """A folder as Apache shows it."""
    rows = [
        f'<tr><td valign="top"><img src="/icons/text.gif" alt="[TXT]"></td><td><a href="{name}">{name}</a></td>'
        f'<td align="right">{(changed or {}).get(name, "2026-01-01 00:00")}  </td>'
        f'<td align="right">{_size(len(bodies[name])) if bodies else "  - "}</td><td>&nbsp;</td></tr>'
        for name in names
    ]
    head = (
        "<!DOCTYPE HTML><html><head><title>Index of /</title></head><body><table>"
        '<tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>'
        '<tr><th colspan="5"><hr></th></tr>'
        '<tr><td>&nbsp;</td><td><a href="/">Parent Directory</a></td></tr>\n'
    )
    page = head + "\n".join(rows) + '\n<tr><th colspan="5"><hr></th></tr></table></body></html>'
    return Reply(page.encode(), type="text/html;charset=UTF-8")


def _size(size: int) -> str:
    return f" {size / 1024:.1f}K" if size >= 1024 else f" {size} "


def file(day: str, type: str, sensor: int, rows: list[str], suffix: str = ".csv", indoor: bool = False) -> dict:
    """One file of a day: its name, and its body of `rows` (what stands after the sensor's type in each)."""
    body = f"{HEADER}{COLUMNS[type]}\n" + "".join(f"{sensor};{type.upper()};{row}\n" for row in rows)
    name = f"{day}_{type}_sensor_{sensor}{'_indoor' if indoor else ''}{suffix}"
    return {name: gzip.compress(body.encode()) if suffix == ".csv.gz" else body.encode()}


def synthetic_day(day: date, sensors: int, rows: int) -> dict[str, bytes]:
    """A day of `sensors` sensors over Germany, each with `rows` rows evenly over the day."""
    files: dict[str, bytes] = {}
    step = timedelta(days=1) / rows
    times = [datetime(day.year, day.month, day.day) + step * i for i in range(rows)]
    stamps = [f"{time + timedelta(seconds=7):%Y-%m-%dT%H:%M:%S}" for time in times]
    for sensor in range(sensors):
        place = f"{sensor // 2};{47.5 + sensor * 7 % 700 / 100:.3f};{7 + sensor * 13 % 700 / 100:.3f}"
        warmth = [12 + 6 * abs((time.hour - 12) / 12 - 1) + sensor % 5 for time in times]
        if sensor % 2:
            values = [f"{10 + w:.2f};;;{4 + w / 2:.2f};;" for w in warmth]
            kind = "sds011"
        else:
            values = [f"{96000 + sensor % 900}.12;;;{w:.2f};{90 - 2 * w:.2f}" for w in warmth]
            kind = "bme280"
        lines = [f"{place};{stamp};{value}" for stamp, value in zip(stamps, values, strict=True)]
        files |= file(f"{day}", kind, 1000 + sensor, lines)
    return files


def month_zip(name: str, files: Mapping[str, bytes]) -> bytes:
    """All rows of `files` (of one type) in one CSV, packed as the archive packs a month."""
    bodies = list(files.values())
    header = bodies[0].partition(b"\n")[0] + b"\n"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, header + b"".join(body.partition(b"\n")[2] for body in bodies))
    return target.getvalue()


class LiveDocument(Service):
    """The live document: `records` at whatever address."""

    def __init__(self, records: list[dict], port: int = 0) -> None:
        super().__init__(port)
        self.records = records

    def answer(self, request: Request) -> Reply:
        return Reply(json.dumps(self.records).encode(), type="application/json")


def record(id: int, sensor: int, time: str, type: str = "DHT22", indoor: int = 0, **values: str) -> dict:
    """A record of the live document."""
    return {
        "id": id,
        "sampling_rate": None,
        "timestamp": time,
        "location": {
            "id": sensor // 2,
            "latitude": f"{47.5 + sensor * 7 % 700 / 100:.3f}",
            "longitude": f"{7 + sensor * 13 % 700 / 100:.3f}",
            "altitude": "38.7",
            "country": "DE",
            "exact_location": 0,
            "indoor": indoor,
        },
        "sensor": {"id": sensor, "pin": "1", "sensor_type": {"id": 9, "name": type, "manufacturer": "various"}},
        "sensordatavalues": [
            {"id": id * 10 + place, "value": value, "value_type": name}
            for place, (name, value) in enumerate(values.items())
        ],
    }


def synthetic_records(end: datetime, sensors: int) -> list[dict]:
    """What the live document holds at `end` of `sensors` sensors."""
    return [
        record(
            10_000 + i,
            1000 + i,
            f"{end - timedelta(seconds=1 + i * 299 // sensors):%Y-%m-%d %H:%M:%S}",
            temperature=f"{15 + i % 7:.2f}",
            humidity="61.50",
        )
        for i in range(sensors)
    ]
