"""The source `netatmo_archive`: history, out of the archives that MET Norway packs of E-SOH's messages.

Belongs here: finding archives and their members, reading them as a stream. Does not belong here: what a message says
(features.py). An archive is ``netatmo-raw-YYYYMMDDHH-YYYYMMDDHH.tar[.gz]``, its members are
``<anything>/<country>/YYYYMMDDHH.jsonl``, a message a line, by the hour of observation.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa
from pydantic import Field

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import HOUR, Window, windows_between
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source
from ionbeam_dagster.sources.netatmo.features import OBSERVED, batches_of, in_window, read_features, wide
from ionbeam_dagster.sources.netatmo.parameters import EsohConfig, metadata
from ionbeam_dagster.stores.publish import published

_ARCHIVE = re.compile(r"(\d{10})-(\d{10})\.(?:tar|tar\.gz|tgz)$")
_MEMBER = re.compile(r"(?:^|/)([^/]+)/(\d{10})\.jsonl$")
_PORTION = 16 << 20


class NetatmoArchiveConfig(EsohConfig):
    """Archives of E-SOH's messages: tar files of JSON lines."""

    path: str = Field(min_length=1, description="Folder of the archives, or a glob.", examples=["archives/*.tar"])
    countries: tuple[str, ...] | None = Field(
        default=None,
        description="Countries that are taken; without it all that an archive has.",
        examples=[["no", "fi"]],
    )


class NetatmoArchive(Source):
    """Archives of messages. A damaged one fails the windows that it should hold; a damaged line is kept aside."""

    Config = NetatmoArchiveConfig
    network = "netatmo"
    default_window = timedelta(hours=1)
    default_deadline = timedelta(hours=1)
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: NetatmoArchiveConfig) -> None:
        super().__init__(name, config)
        self._config = config

    @property
    def metadata(self) -> IngestionMetadata:
        return metadata(self, self._config, flagged=True)

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """Wide rows of the messages on `window`, member by member, each by station and time.

        Lines that cannot be read are kept in ``<data_path>/<name>.refused/``. Raises SourceError when an archive is
        damaged, and when none has a member for an hour of the window: nothing is known of it then.
        """
        missing = {hour.start for hour in windows_between(window.start, window.end, HOUR)}
        for path in self._archives(window):
            for member in self._members(path, window):
                missing.discard(member.hour)
                if member.wanted:
                    yield from batches_of(wide(member.rows.filter(in_window(window)), self._config))
        if missing:
            raise SourceError(
                f"{self.name} {window}: no archive under {self._config.path} has a member for "
                f"{min(missing):%Y-%m-%dT%HZ}; add it"
            )

    def signature(self, window: Window) -> str:
        """A hash of what is kept, and of the names, sizes and times of the archives that hold `window`."""
        marks = [
            f"{path.name} {(status := path.stat()).st_size} {status.st_mtime_ns}" for path in self._archives(window)
        ]
        kept = [*self._config.parameters, *(self._config.countries or ("all",))]
        return hashlib.sha256("\n".join([*kept, *marks]).encode()).hexdigest()

    def extent(self) -> Window | None:
        ranges = [span for path in self._all() if (span := _range(path))]
        return Window(min(span.start for span in ranges), max(span.end for span in ranges)) if ranges else None

    def problems(self) -> list[str]:
        """Archives whose names tell no range, and lines that could not be read."""
        lines = [
            f"{path}: its name tells no range (YYYYMMDDHH-YYYYMMDDHH.tar.gz)"
            for path in self._all()
            if not _range(path)
        ]
        if not self._all():
            lines.append(f"{self._config.path}: no archive matches")
        lines += [
            f"{path}: {pl.scan_parquet(path).select(pl.len()).collect().item()} lines could not be read"
            for path in sorted(self._refused_folder.glob("*.parquet"))
        ]
        return lines

    @property
    def _refused_folder(self) -> Path:
        return self._config.cache_path / f"{self.name}.refused"

    def _all(self) -> list[Path]:
        given = Path(self._config.path)
        found = given.glob("*.t*") if given.is_dir() else given.parent.glob(given.name)
        return sorted(path for path in found if path.name.endswith((".tar", ".tar.gz", ".tgz")))

    def _archives(self, window: Window) -> list[Path]:
        return [path for path in self._all() if (span := _range(path)) and span.overlaps(window)]

    def _members(self, path: Path, window: Window) -> Iterator[_Member]:
        """The members that may hold some of `window`, one after the other."""
        refused: list[pl.DataFrame] = []
        last = "its beginning"
        try:
            with tarfile.open(path, "r|*") as archive:
                for entry in archive:
                    last = entry.name
                    found = _MEMBER.search(entry.name)
                    hour = datetime.strptime(found[2], "%Y%m%d%H").replace(tzinfo=UTC) if found else window.end
                    if found is None or not entry.isfile() or not Window(hour, hour + HOUR).overlaps(window):
                        continue
                    wanted = self._config.countries is None or found[1] in self._config.countries
                    rows = _read(archive, entry, refused) if wanted else pl.DataFrame(schema=OBSERVED)
                    yield _Member(hour, wanted, rows)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise SourceError(f"{path}: is damaged after {last} ({error}); fetch it again") from error
        place = self._refused_folder / f"{path.name}_{window.label}.parquet"
        place.unlink(missing_ok=True)
        if any(some.height for some in refused):
            with published(place) as draft:
                pl.concat(refused).write_parquet(draft)


@dataclass(frozen=True, slots=True)
class _Member:
    hour: datetime
    wanted: bool
    rows: pl.DataFrame


def _read(archive: tarfile.TarFile, entry: tarfile.TarInfo, refused: list[pl.DataFrame]) -> pl.DataFrame:
    """The long rows of a member; lines that cannot be read go to `refused` with their place."""
    stream = archive.extractfile(entry)
    assert stream is not None
    found, first = [pl.DataFrame(schema=OBSERVED)], 1
    for lines in _portions(stream):
        good, bad = read_features(lines)
        number = (pl.col("line") + first).cast(pl.String)
        refused.append(bad.with_columns(pl.concat_str(pl.lit(f"{entry.name}:"), number).alias("line")))
        found.append(good.select(*OBSERVED))
        first += len(lines)
    return pl.concat(found)


def _range(path: Path) -> Window | None:
    found = _ARCHIVE.search(path.name)
    if found is None:
        return None
    try:
        start, end = (datetime.strptime(text, "%Y%m%d%H").replace(tzinfo=UTC) for text in found.groups())
    except ValueError:
        return None
    return Window(start, max(end, start) + HOUR)  # whether the last hour is in it, the members tell


def _portions(stream: IO[bytes]) -> Iterator[pl.Series]:
    rest = b""
    while block := stream.read(_PORTION):
        whole, _, rest = (rest + block).rpartition(b"\n")
        if whole:
            yield _lines(whole)
    if rest.strip():
        yield _lines(rest)


def _lines(content: bytes) -> pl.Series:
    return pl.Series("line", content.decode(errors="replace").removesuffix("\n").split("\n"))
