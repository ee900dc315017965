"""Months of the archive in one piece: the bulk path for history.

Belongs here: fetching the zip of a month and type once, and cutting it into its days. Does not belong here: which rows
of a day are wanted (archive.py).

A zip has up to 4 GB. It is fetched to a file, cut in one pass into one Parquet a day under
``<folder>/<month>/<type>/``, and removed. The days are there until they were used; the note ``cut`` stays, so that no
zip is fetched twice.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Progress
from ionbeam_dagster.sources.http import HttpClient
from ionbeam_dagster.sources.sensor_community.listing import find_month
from ionbeam_dagster.sources.sensor_community.rows import FIRST_COLUMNS, read_rows
from ionbeam_dagster.stores.locks import locked

_BYTES_AT_ONCE = 8 << 20
_ROWS_AT_ONCE = 20_000  # of each of the up to 31 days that wait to be written


class Months:
    """Days that were cut out of the zips of their months, in `folder`."""

    def __init__(self, client: HttpClient, folder: Path) -> None:
        self._client = client
        self._folder = folder

    def day(self, day: date, type: str, progress: Progress) -> Path | None:
        """The Parquet of a day and type, all columns as text; None where the archive has no whole month of it, the day
        has no row in it, or was used already.

        Raises SourceError for a month that cannot be had or read; it is then fetched anew the next time.
        """
        place = self._folder / f"{day:%Y-%m}" / type
        if not (place / "cut").exists():
            zips = find_month(self._client, day)
            if type not in zips:
                return None
            place.mkdir(parents=True, exist_ok=True)
            with _alone(place):
                if not (place / "cut").exists():
                    self._cut(zips[type], place, f"{day:%Y-%m}", progress)
        piece = place / f"{day}.parquet"
        return piece if piece.exists() else None

    def forget(self, day: date) -> None:
        """Remove the pieces of a day that was used."""
        for piece in self._folder.glob(f"{day:%Y-%m}/*/{day}.parquet"):
            piece.unlink()

    def _cut(self, address: str, place: Path, month: str, progress: Progress) -> None:
        packed, draft = place / "month.zip", place / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        if not packed.exists():
            self._client.download(address, packed, lambda done, of: progress(f"{address} MB", done >> 20, of >> 20))
        try:
            _cut(packed, draft, month)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            _NotAMonth,
            pl.exceptions.PolarsError,
        ) as e:
            packed.unlink()
            where = f"{self._client.base_url.rstrip('/')}{address}"
            raise SourceError(
                f"{where}: cannot be read ({' '.join(str(e).split())}); it is fetched anew next time"
            ) from e
        for piece in draft.iterdir():
            piece.replace(place / piece.name)
        draft.rmdir()
        packed.unlink()
        (place / "cut").touch()


class _NotAMonth(ValueError):
    """A zip holds something else than one CSV of the archive's columns."""


def _cut(packed: Path, folder: Path, month: str) -> None:
    """Write the days of a zip to `folder`, reading it once, in pieces."""
    with zipfile.ZipFile(packed) as zipped, ExitStack() as open_files:
        names = [name for name in zipped.namelist() if name.lower().endswith(".csv")]
        if len(names) != 1:
            raise _NotAMonth(f"it holds {len(names)} CSV files, not one")
        days = _Days(folder, month, open_files)
        with zipped.open(names[0]) as file:
            header = file.readline().rstrip(b"\r\n")
            if not header.startswith(FIRST_COLUMNS):
                raise _NotAMonth(f"{names[0]} is no sensors' CSV, but begins with {header[:60]!r}")
            rest = b""
            while block := file.read(_BYTES_AT_ONCE):
                whole, _, rest = (rest + block).rpartition(b"\n")
                days.add(header, whole)
            days.add(header, rest)
        days.finish()


class _Days:
    """One Parquet file a day, written as the rows come."""

    def __init__(self, folder: Path, month: str, open_files: ExitStack) -> None:
        self._folder = folder
        self._month = month
        self._open_files = open_files
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pl.DataFrame]] = defaultdict(list)
        self._last = f"{month}-01"

    def add(self, header: bytes, text: bytes) -> None:
        """Rows go to the day of their time; one without a time of this month goes along with the row before it."""
        if not text.strip():
            return
        rows = read_rows(header, text)
        said = pl.col("timestamp").str.extract(rf"^({self._month}-\d\d)")
        rows = rows.with_columns(said.forward_fill().fill_null(self._last).alias("day"))
        self._last = rows["day"][-1] if rows.height else self._last
        for (day,), part in rows.partition_by("day", as_dict=True, include_key=False, maintain_order=True).items():
            self._waiting[day].append(part)
            if sum(one.height for one in self._waiting[day]) >= _ROWS_AT_ONCE:
                self._write(day)

    def finish(self) -> None:
        for day in list(self._waiting):
            self._write(day)

    def _write(self, day: str) -> None:
        table: pa.Table = pl.concat(self._waiting.pop(day)).to_arrow()
        if day not in self._writers:
            writer = pq.ParquetWriter(self._folder / f"{day}.parquet", table.schema, compression="zstd")
            self._writers[day] = self._open_files.enter_context(writer)
        self._writers[day].write_table(table)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time fetches and cuts a month; whoever comes second finds it done."""
    with locked(folder / "lock"):
        yield
