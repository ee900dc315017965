"""The source `sensor_community`: the archive of whole days, one CSV a sensor and day.

Belongs here: which files of a day are wanted, how they are fetched and read. Does not belong here: the archive's
listings (listing.py), and what is kept of a day half fetched (spool.py).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from io import BytesIO
from itertools import groupby
from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import DAY, Window, windows_between
from ionbeam_dagster.sources import Source, SourceConfig, SourceError
from ionbeam_dagster.sources.http import HttpClient, HttpError
from ionbeam_dagster.sources.sensor_community.listing import Listed, NotListed, find_day, signature
from ionbeam_dagster.sources.sensor_community.sensors import SENSOR_TYPES, batches, metadata, shaped
from ionbeam_dagster.sources.sensor_community.spool import Spool

ADDRESS = "https://archive.sensor.community"
PUBLISHED_AFTER = timedelta(hours=9)  # a day is complete 3.6 to 8.8 h after its end (277 days in 2026)
_NAMES = {"sensor_id": "platform_id", "location": "location_id", "altitude": "station_height"}
_FIRST_COLUMNS = b"sensor_id;sensor_type;location;lat;lon;timestamp"
_BYTES_AT_ONCE = 8 << 20
_SAMPLE = 20
_TOLD_EVERY = 10.0  # seconds between two lines in the log

_log = logging.getLogger(__name__)


class ArchiveConfig(SourceConfig):
    """The archive's block: `indoor` takes sensors inside of buildings, too; `sensor_types` only some types."""

    base_url: Annotated[str, AfterValidator(lambda given: given or ADDRESS)] = ADDRESS
    timeout_seconds: float = Field(default=60, gt=0)
    concurrency: int = Field(default=5, ge=1, le=32)
    max_retries: int = Field(default=5, ge=0)
    indoor: bool = False
    sensor_types: tuple[str, ...] | None = None


class Archive(Source):
    """Days of the archive. A window is one or more whole days, each published some hours after its end.

    Files are kept in ``<data_path>/<name>.files/<day>.sqlite`` until their day is complete; with `use_cache` also after
    it, so that a day that is published again costs only the files that changed.
    """

    Config = ArchiveConfig
    default_window = DAY
    default_lag = PUBLISHED_AFTER
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        super().__init__(name, config)
        self._config = config
        self._listed: dict[date, tuple[float, str, dict[str, Listed]]] = {}
        self._left_out: dict[str, int] = {}

    @property
    def metadata(self) -> IngestionMetadata:
        config = self._config
        span = config.aggregation_span or self.default_span
        return metadata(config.dataset or self.name, span, config.subject_to_change_window or timedelta(0))

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The rows of all wanted files of the window's days, by sensor type and file; all columns are text.

        What cannot be used of them (no coordinates, no number) is for the platform's quarantine to say. Raises
        SourceError for a day that is not published, or not complete, and for a file that cannot be read.
        """
        for day in _days(window):
            place, files = self._day(day)
            with self._spool(day) as spool:
                self._complete(spool, place, day, files)
                yield from _batches(spool.bodies(files))
            if not self._config.use_cache:
                spool.remove()

    def sample(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The rows of a few files of the window's first day, of as many types as there are."""
        day = _days(window)[0]
        place, files = self._day(day)
        by_type = [list(group) for _, group in groupby(files, lambda file: file.type)]
        few = [file for group in by_type for file in group[: -(-_SAMPLE // len(by_type))]]
        yield from _batches((file, body) for file in few if (body := self._body(place, file)) is not None)

    def signature(self, window: Window) -> str:
        """A hash of the listing of the window's days: names, times of change and sizes of the wanted files."""
        try:
            said = [signature(self._day(day)[1]) for day in _days(window)]
        except SourceError as error:
            return f"not known: {error}"  # collecting it tells the reason
        return hashlib.sha256("\n".join(said).encode()).hexdigest()

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
        told = time.monotonic()
        for file, body in self._client.side_by_side(missing, lambda file: self._body(place, file, day)):
            if body is not None:
                spool.add(file, body)
            done += 1
            self.progress(f"{self.name} {day} files", done, len(files))
            if time.monotonic() - told > _TOLD_EVERY:
                _log.info("%s %s: %d of %d files", self.name, day, done, len(files))
                told = time.monotonic()

    def _body(self, place: str, file: Listed, day: date | None = None) -> bytes | None:
        """A file's CSV; None for one that was withdrawn after it was listed."""
        other = ".csv" if file.suffix == ".csv.gz" else ".csv.gz"
        for suffix in (file.suffix, other):
            answer = self._client.get(f"{place}{file.stem}{suffix}", allow=(404,))
            if answer.status != 404:
                body = answer.unpacked()
                if not body:
                    raise answer.wrong("is empty, but was listed with a size")
                if not body.startswith(_FIRST_COLUMNS):
                    raise answer.wrong(f"is no sensor's CSV, but begins with {body[:60]!r}")
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
    if not text.strip():
        return
    names = header.decode().split(";")
    rows = pl.read_csv(
        BytesIO(text),
        separator=";",
        has_header=False,
        schema=dict.fromkeys(names, pl.String()),
        quote_char=None,
        truncate_ragged_lines=True,  # rows of another firmware, with a field too many
    ).filter(pl.col("sensor_id").is_not_null())
    rows = rows.rename({old: new for old, new in _NAMES.items() if old in names})
    yield from batches(shaped(rows.with_columns(indoor=pl.lit("true" if indoor else "false"))))
