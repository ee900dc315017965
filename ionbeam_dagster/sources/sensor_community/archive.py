"""The source `sensor_community`: the archive of whole days, one CSV a sensor and day.

Belongs here: which files of a day are wanted, how they are fetched and read. Does not belong here: the archive's
listings (listing.py), and what is kept of a day half fetched (spool.py).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Annotated

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, Field

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.domain.windows import DAY, Window, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.http import HttpClient, HttpError
from ionbeam_dagster.sources.http.settings import Concurrency, Retries, Timeout
from ionbeam_dagster.sources.sensor_community.listing import Listed, NotListed, find_day, signature
from ionbeam_dagster.sources.sensor_community.months import Months
from ionbeam_dagster.sources.sensor_community.rows import FIRST_COLUMNS, read_rows
from ionbeam_dagster.sources.sensor_community.sensors import SENSOR_TYPES, batches, metadata, shaped
from ionbeam_dagster.sources.sensor_community.spool import Spool

ADDRESS = "https://archive.sensor.community"
PUBLISHED_AFTER = timedelta(hours=9)  # a day is complete 3.6 to 8.8 h after its end (277 days in 2026)
_BYTES_AT_ONCE = 8 << 20
_ROWS_AT_ONCE = 100_000
_SAMPLE = 20
_LOGGED_EVERY = 10.0  # seconds between two lines in the log

_log = logging.getLogger(__name__)


class ArchiveConfig(SourceConfig):
    """The archive of sensor.community: a CSV file a sensor and day."""

    base_url: Annotated[str, AfterValidator(lambda given: given or ADDRESS)] = Field(
        default=ADDRESS, description="Address of the archive."
    )
    timeout_seconds: Timeout = 60
    concurrency: Concurrency = 5
    max_retries: Retries = 5
    indoor: bool = Field(default=False, description="Whether sensors inside of buildings are taken, too.")
    sensor_types: tuple[str, ...] | None = Field(
        default=None,
        description="Types of sensors that are taken; without it all whose columns are known.",
        examples=[["bme280", "sds011"]],
    )
    bulk: bool = Field(
        default=False,
        description="For history: days of months that are over come from the zips of their months (up to 4 GB each), "
        "as far as the archive has them.",
    )
    look_again_for: NonNegativeDuration = Field(
        default=timedelta(days=3),
        description="How long a day that may have been published again is looked at; PT0S: not at all.",
    )


class Archive(Source):
    """Days of the archive. A window is one or more whole days, each published some hours after its end.

    Files are kept in ``<data_path>/<name>.files/<day>.sqlite`` until their day is complete; with `use_cache` also after
    it, so that a day that is published again costs only the files that changed. With `bulk`, the days of a month are
    in ``<data_path>/<name>.months/`` likewise.
    """

    Config = ArchiveConfig
    network = "sensor_community"
    default_window = DAY
    default_lag = PUBLISHED_AFTER
    default_deadline = timedelta(hours=1)  # what was downloaded until then is kept
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        super().__init__(name, config)
        self._config = config
        self._listed: dict[date, tuple[float, str, dict[str, Listed]]] = {}
        self._left_out: dict[str, int] = {}

    @property
    def metadata(self) -> IngestionMetadata:
        return metadata(self)

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The rows of all wanted files of the window's days, by sensor type and file; all columns are text.

        What cannot be used of them (no coordinates, no number) is for the platform's quarantine to say. Raises
        SourceError for a day that is not published, or not complete, and for a file that cannot be read.
        """
        for day in _days(window):
            place, files = self._day(day)
            with self._spool(day) as spool:
                pieces, single = self._in_bulk(day, files) if self._config.bulk else ([], files)
                for piece, of_type in pieces:
                    yield from _picked(piece, of_type)
                self._complete(spool, place, day, single)
                yield from _batches(spool.bodies(single))
            if not self._config.use_cache:
                spool.remove()
                self._months.forget(day)

    def sample(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The rows of a few files of the window's first day, of as many types as there are."""
        day = _days(window)[0]
        place, files = self._day(day)
        by_type = [list(group) for _, group in groupby(files, lambda file: file.type)]
        few = [file for group in by_type for file in group[: -(-_SAMPLE // len(by_type))]]
        yield from _batches((file, body) for file in few if (body := self._body(place, file)) is not None)

    def answers_whole(self, window: Window) -> bool:
        """A day that is published again takes the place of what was published before."""
        return True

    def signature(self, window: Window) -> str:
        """A hash of the listing of the window's days: names, times of change and sizes of the wanted files."""
        marks = [signature(self._day(day)[1]) for day in _days(window)]
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    def problems(self) -> list[str]:
        return [
            f"{count:,} files a day of type {type!r}, whose columns are not known, are left out"
            for type, count in sorted(self._left_out.items())
        ]

    @cached_property
    def _client(self) -> HttpClient:
        config = self._config
        return HttpClient(
            config.base_url,
            timeout=config.timeout_seconds,
            retries=config.max_retries,
            concurrency=config.concurrency,
        )

    @cached_property
    def _months(self) -> Months:
        return Months(self._client, self._config.cache_path / f"{self.name}.months")

    def _in_bulk(self, day: date, files: list[Listed]) -> tuple[list[tuple[Path, list[Listed]]], list[Listed]]:
        """The pieces of months that hold `files`, each with those that it holds, and the files that are in none.

        A sensor that is listed inside and outside is in none: a month does not tell the one from the other.
        """
        twice = Counter((file.type, file.sensor) for file in self._listed[day][2].values())
        pieces = []
        single = []
        for type, group in groupby(files, lambda file: file.type):
            of_type = list(group)
            piece = self._months.day(day, type, self.progress)
            here = set(pl.scan_parquet(piece).select("platform_id").unique().collect()["platform_id"] if piece else ())
            held = [file for file in of_type if file.sensor in here and twice[file.type, file.sensor] == 1]
            single += sorted(set(of_type) - set(held), key=lambda file: (file.indoor, file.stem))
            if piece:
                pieces.append((piece, held))
        if single:
            _log.info("%s %s: %d of %d files are in no month's zip", self.name, day, len(single), len(files))
        return pieces, single

    def _spool(self, day: date) -> Spool:
        return Spool(self._config.cache_path / f"{self.name}.files" / f"{day}.sqlite")

    def _day(self, day: date, fresh: bool = False) -> tuple[str, list[Listed]]:
        """The folder of a day and its wanted files, by type and name; as listed within the last minute."""
        known = self._listed.get(day)
        if known is None or fresh or time.monotonic() - known[0] > 60:
            _refuse_before_publication(self.name, day)
            try:
                known = (time.monotonic(), *find_day(self._client, day))
            except NotListed as error:
                raise SourceError(f"{self.name} {day}: is not in the archive ({error})") from error
            self._listed = {day: known}
        return known[1], self._wanted(known[2])

    def _wanted(self, files: dict[str, Listed]) -> list[Listed]:
        chosen = self._config.sensor_types
        types = SENSOR_TYPES if chosen is None else frozenset(type.lower() for type in chosen)
        outdoor = [file for file in files.values() if self._config.indoor or not file.indoor]
        unknown = sorted(file.type for file in outdoor if file.type not in SENSOR_TYPES)
        self._left_out = {type: len(list(group)) for type, group in groupby(unknown)} if chosen is None else {}
        return sorted((f for f in outdoor if f.type in types), key=lambda f: (f.type, f.indoor, f.stem))

    def _complete(self, spool: Spool, place: str, day: date, files: list[Listed]) -> None:
        """Fetch what `spool` lacks of a day."""
        here = spool.marks()
        missing = [file for file in files if here.get(file.stem) != file.mark and not file.is_empty]
        done = len(files) - len(missing)
        if done and missing:
            _log.info("%s %s: %d of %d files are here already", self.name, day, done, len(files))
        logged = time.monotonic()
        for file, body in self._client.side_by_side(missing, lambda file: self._body(place, file, day)):
            if body is not None:
                spool.add(file, body)
            done += 1
            self.progress(f"{self.name} {day} files", done, len(files))
            if time.monotonic() - logged > _LOGGED_EVERY:
                _log.info("%s %s: %d of %d files", self.name, day, done, len(files))
                logged = time.monotonic()

    def _body(self, place: str, file: Listed, day: date | None = None) -> bytes | None:
        """A file's CSV; None for one that was withdrawn after it was listed."""
        other = ".csv" if file.suffix == ".csv.gz" else ".csv.gz"
        for suffix in (file.suffix, other):
            answer = self._client.get(f"{place}{file.stem}{suffix}", allow=(404,))
            if answer.status != 404:
                body = answer.unpacked()
                if not body:
                    raise answer.wrong("is empty, but was listed with a size")
                if not body.startswith(FIRST_COLUMNS):
                    raise answer.wrong(f"is no sensor's CSV, but begins with {body[:60]!r}")
                if suffix == file.suffix and len(answer.content) < file.least_size:
                    raise answer.wrong(f"has {len(answer.content):,} bytes only; listed is {file.mark}")
                if not body.isascii():
                    answer.text("utf-8")
                return body
        if day is not None and file.stem in {listed.stem for listed in self._day(day, fresh=True)[1]}:
            raise HttpError(f"{self._client.base_url.rstrip('/')}{place}{file.stem}: is listed, but not there", 404)
        return None


def _days(window: Window) -> list[date]:
    if window.start.timetuple()[3:6] != (0, 0, 0) or window.span % DAY:
        raise SourceError(f"{window}: the archive has whole days; let the source's window_size be P1D or P7D")
    return [one.start.date() for one in windows_between(window.start, window.end, DAY)]


def _refuse_before_publication(name: str, day: date) -> None:
    published = datetime(day.year, day.month, day.day, tzinfo=UTC) + DAY + PUBLISHED_AFTER
    if _now() < published:
        raise SourceError(
            f"{name} {day}: is not published completely before {published:%Y-%m-%dT%H:%MZ}; collect it then "
            "(window_lag: PT9H)"
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _batches(bodies: Iterable[tuple[Listed, bytes]]) -> Iterator[pa.RecordBatch]:
    """Rows of files; those of one type and one header are read together."""

    def alike(one: tuple[Listed, bytes]) -> tuple[str, bool, bytes]:
        file, body = one
        return file.type, file.indoor, body.partition(b"\n")[0].rstrip(b"\r")

    for (_, indoor, header), group in groupby(bodies, alike):
        waiting: list[bytes] = []
        size = 0
        for _, body in group:
            waiting.append(body.partition(b"\n")[2])
            size += len(body)
            if size >= _BYTES_AT_ONCE:
                yield from _rows(header, waiting, indoor)
                waiting, size = [], 0
        yield from _rows(header, waiting, indoor)


def _rows(header: bytes, bodies: list[bytes], indoor: bool) -> Iterator[pa.RecordBatch]:
    text = b"\n".join(bodies)
    if text.strip():
        rows = read_rows(header, text)
        yield from batches(shaped(rows.with_columns(indoor=pl.lit("true" if indoor else "false"))))


def _picked(piece: Path, files: list[Listed]) -> Iterator[pa.RecordBatch]:
    """The rows of the sensors of `files` in a day's piece of a month."""
    wanted = pl.DataFrame(
        [(file.sensor, "true" if file.indoor else "false") for file in files],
        schema={"platform_id": pl.String, "indoor": pl.String},
        orient="row",
    )
    with pq.ParquetFile(piece) as rows:
        for batch in rows.iter_batches(_ROWS_AT_ONCE):
            known = pl.DataFrame(pl.from_arrow(batch)).join(wanted, on="platform_id", maintain_order="left")
            if known.height:
                yield from batches(shaped(known))
