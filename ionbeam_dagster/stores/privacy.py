"""What the platform keeps so that people stay unknown: the key of the installation, and who is forgotten.

Belongs here: both files. Does not belong here: what a mark is (domain/forgotten.py), what is removed of a station
(pipeline/forgetting), or what is shown of one (pipeline/shown.py).

    <state>/privacy.key                     32 random bytes, as hexadecimal text, made when they are first needed
    <state>/stations/_forgotten.parquet     a row a station: its source, its mark, when it was begun and ended, and
                                            since and until when it was heard

No id stands in either. Whoever loses the key has other pseudonyms than before, and can forget nobody who was forgotten:
a list without its key is therefore refused.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from uuid import uuid4

import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.forgotten import NOBODY, Forgotten, mark_of
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.stores.files import Files, Found
from ionbeam_dagster.stores.publish import sync
from ionbeam_dagster.stores.tables import read_table, write_table

_MOMENT = pl.Datetime("us", "UTC")
_LIST: dict[str, pl.DataType] = {
    "source": pl.String(), "mark": pl.String(), "begun": _MOMENT, "ended": _MOMENT, "first": _MOMENT, "last": _MOMENT,
}  # fmt: skip


class PrivacyError(StoreError):
    """The key of the installation, or the list of who is forgotten, cannot be used; the message says what to do."""


class PrivacyStore:
    """The key of an installation, and the stations that are forgotten. Any number of processes may read it."""

    def __init__(self, files: Files, state: Path) -> None:
        self._files = files
        self._key_file = state / "privacy.key"
        self._list = str(state / "stations" / "_forgotten.parquet")
        self._read: tuple[Found | None, pl.DataFrame] | None = None

    def key(self) -> bytes:
        """The key of this installation; raises PrivacyError where it cannot be read, or made."""
        try:
            if not self._key_file.exists():
                self._make_key()
            found = bytes.fromhex(self._key_file.read_text().strip())
        except (OSError, ValueError) as error:
            raise PrivacyError(
                f"{self._key_file}: cannot be used ({error}); give permission, or put a copy back"
            ) from error
        if len(found) < 32:
            raise PrivacyError(f"{self._key_file}: is no key of 32 bytes; put a copy of it back")
        return found

    def _make_key(self) -> None:
        """Make a key that nobody else may read; of several who do, the first one's holds."""
        if self._files.exists(self._list):
            raise PrivacyError(
                f"{self._key_file} is gone, by which it is known who is forgotten; put a copy of it back: without it "
                "nothing is taken in, so that nobody who was forgotten comes back"
            )
        self._key_file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._key_file.with_name(f".{self._key_file.name}.{uuid4().hex[:8]}")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 (its mode)
                file.write(token_hex(32))
            sync(draft)
            with suppress(FileExistsError):
                self._key_file.hardlink_to(draft)
            sync(self._key_file.parent)
        finally:
            draft.unlink(missing_ok=True)

    def forgotten(self, source: str) -> Forgotten:
        """Who of a source is forgotten, or is being; raises PrivacyError where that cannot be known."""
        known = self._table()
        if known.is_empty():  # asked for each message
            return NOBODY
        marks = known.filter(pl.col("source") == source)["mark"]
        return Forgotten(source, self.key(), frozenset(marks)) if len(marks) else NOBODY

    def unfinished(self) -> dict[str, int]:
        """How many stations of which source are to be forgotten and are not yet."""
        begun = self._table().filter(pl.col("ended").is_null())
        return dict(begun.group_by("source").len().sort("source").iter_rows())

    def begin(self, source: str, station: str, now: datetime, heard: Window | None) -> None:
        """Remember that a station, which was `heard` then, is forgotten from now on. One at a time, of all
        processes."""
        self._note(source, station, now, None, heard)

    def was_heard(self, source: str, station: str) -> Window | None:
        """When a station was heard that is forgotten, or is being; None where that is not known."""
        if self._table().is_empty():
            return None
        mark = mark_of(self.key(), "forgotten", source, station)
        known = self._table().filter((pl.col("source") == source) & (pl.col("mark") == mark)).drop_nulls("first")
        return Window(known["first"][0], known["last"][0]) if known.height else None

    def end(self, source: str, station: str, now: datetime) -> None:
        """Remember that nothing is left of it."""
        self._note(source, station, now, now, None)

    def _note(self, source: str, station: str, now: datetime, ended: datetime | None, heard: Window | None) -> None:
        mark = mark_of(self.key(), "forgotten", source, station)
        self._read = None
        known = self._table()
        same = (pl.col("source") == source) & (pl.col("mark") == mark)
        begun = known.filter(same)["begun"].to_list() or [now]
        range = self.was_heard(source, station) or heard
        ends = (None, None) if range is None else (range.start, range.end)
        row = pl.DataFrame([(source, mark, begun[0], ended, *ends)], schema=_LIST, orient="row")
        with self._files.published(self._list) as draft:
            write_table(draft, pl.concat([known.filter(~same), row]), {})
        self._read = None

    def _table(self) -> pl.DataFrame:
        found = self._files.found(self._list)
        if self._read is None or self._read[0] != found:
            self._read = found, self._read_anew(found)
        return self._read[1]

    def _read_anew(self, found: Found | None) -> pl.DataFrame:
        if found is None:
            return pl.DataFrame(schema=_LIST)
        try:
            with self._files.fetched(self._list) as file:
                return read_table(file)[0].cast(_LIST)  # type: ignore[arg-type]
        except (OSError, pa.ArrowInvalid) as error:
            raise PrivacyError(
                f"{self._list}, which says who is forgotten, cannot be read ({error}); put a copy of it back: without "
                "it nothing is taken in, so that nobody who was forgotten comes back"
            ) from error
