"""The registry of stations on disk: what was heard of them, a file a source, and what a person says of them.

Belongs here: where both lie, how they are read and written. Does not belong here: what is in them (domain/stations.py,
domain/station_entries.py), or what is looked at to bring them up to date (pipeline/stations.py).

    <state>/stations/<source>.parquet   what was heard; its footer says up to which number of the ledger's feed
    <state>/stations/_told.parquet      what a person said last that could be used
    <state>/stations.csv                what a person says, unless `stations:` says where else
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from pydantic import Field

from ionbeam_dagster.domain.station_entries import ENTRY, NO_ENTRIES, Entries, read_entries
from ionbeam_dagster.domain.stations import nothing_heard
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.stores.files import Files, Found, is_address, name_of
from ionbeam_dagster.stores.publish import DAMAGED
from ionbeam_dagster.stores.tables import read_table, write_table

_LOG = logging.getLogger(__name__)
_TOLD = "_told"
_FAULTS = 20  # that are told
_HOLDS_FOR = 5.0  # seconds in which S3 is not asked again whether the CSV there is another one


class StationsError(StoreError):
    """What a person says of stations cannot be used; the message names the file, each fault, and what to do."""


class StationEntry(Settings):
    """What a person says of one station, beside what its source tells."""

    source: str = Field(description="The source that it belongs to, by its name in the YAML.", examples=["garden"])
    station: str = Field(description="Its id there.", examples=["roof"])
    wigos_id: str | None = Field(
        default=None, description="WIGOS id, or the five digits of a WMO number.", examples=["0-276-0-ROOF"]
    )
    name: str | None = Field(default=None, description="Its name, for people.", examples=["Roof of the town hall"])
    latitude: float | None = Field(
        default=None, description="Degrees north; rows that say no place have this one.", examples=[52.1]
    )
    longitude: float | None = Field(default=None, description="Degrees east.", examples=[5.2])
    altitude: float | None = Field(default=None, description="Height above the sea in m.", examples=[12.0])
    mobile: bool | None = Field(
        default=None, description="Whether it moves; without it by what is heard.", examples=[True]
    )
    siting: int | None = Field(default=None, description="WMO's class of its siting, 1 to 5.", examples=[3])
    parent: str | None = Field(
        default=None,
        description="Of a device that reports to the HTTP door: the site, area or line that it belongs to, which its "
        "readings have as the tag parent.",
        examples=["pl--0000-0001"],
    )
    admit: Literal["allow", "deny"] | None = Field(
        default=None,
        description="deny: its rows come no further than the quarantine. Where stations of a source are allowed, "
        "those of all others come no further.",
        examples=["deny"],
    )
    why: str | None = Field(default=None, description="Why it is denied, for people.", examples=["stands indoors"])


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of the stations of a source (`domain/stations.py`), up to number `mark` of the ledger's feed.

    `missed` counts the raw files that retention removed before they could be looked at; `due` are the ingestions up to
    there whose raw files could not be read yet.
    """

    stations: pl.DataFrame
    mark: int = 0
    missed: int = 0
    due: Sequence[str] = ()


class StationStore:
    """What is known of stations. `given` is what the YAML says of them: entries, the place of a CSV file, or None."""

    def __init__(self, files: Files, state: Path, given: str | Sequence[StationEntry] | None) -> None:
        self._files = files
        self._root = state / "stations"
        self._in_yaml = None if given is None or isinstance(given, str) else entries_in_yaml(given)[0]
        self._is_given = given is not None
        self.place = given if isinstance(given, str) else str(state / "stations.csv")
        self._read: tuple[Found | None, Entries] | None = None
        self._asked = 0.0
        self.trouble = ""
        """Why the CSV cannot be used, as `entries` found it."""

    def heard(self, source: str) -> Heard:
        """What was heard of a source's stations; nothing where nobody has looked yet. A file that is damaged is set
        aside, and told."""
        found = self._table(source, "it is made again from the raw partitions")
        if found is None:
            return Heard(nothing_heard())
        stations, about = found
        return Heard(stations, about.get("mark", 0), about.get("missed", 0), about.get("due", ()))

    def keep(self, source: str, heard: Heard) -> None:
        about = {"mark": heard.mark, "missed": heard.missed, "due": list(heard.due)}
        with self._files.published(self._location(source)) as draft:
            write_table(draft, heard.stations, about)

    def entries(self) -> Entries:
        """What a person says of stations; where the CSV cannot be used, or is gone, what it said before that.

        Raises StationsError with every fault of the CSV where there is nothing before. No CSV at all is a fault only
        where the YAML names its place.
        """
        if self._in_yaml is not None:
            return self._in_yaml
        if self._read is not None and is_address(self.place) and monotonic() < self._asked + _HOLDS_FOR:
            return self._read[1]
        found = self._files.found(self.place)
        if self._read is None or found != self._read[0]:
            self._read = found, self._read_anew(found)
        self._asked = monotonic()
        return self._read[1]

    @property
    def is_in_yaml(self) -> bool:
        return self._in_yaml is not None

    def change_entries(self, change: Callable[[Entries], Entries]) -> None:
        """Write the CSV with what `change` makes of its entries as they are now. Raises StationsError where the YAML
        has them, or a person's own cannot be used, which would be lost."""
        if self.is_in_yaml:
            raise StationsError(
                "the entries stand in the YAML, at stations: change them there, or put them into a CSV file, and its "
                "place at stations:"
            )
        self._read = None
        is_first = not self._files.exists(self.place) and self._before() is None
        told = NO_ENTRIES if is_first else self.entries()
        if self.trouble and not is_first:
            raise StationsError(self.trouble)
        with self._files.published(self.place) as draft:
            change(told).table.sort("source", "station").write_csv(draft)
        self._read = None

    def _read_anew(self, found: Found | None) -> Entries:
        before = self._before()
        is_lost = before is None and self._files.exists(self._location(_TOLD) + DAMAGED)
        if found is None and not before and not self._is_given and not is_lost:
            self.trouble = ""
            return NO_ENTRIES
        try:
            told = self._of_csv()
        except StationsError as error:
            if before is None:
                raise
            self.trouble = f"{error}; until then what it said before holds"
            _LOG.error(self.trouble)
            return before
        self.trouble = ""
        with suppress(OSError), self._files.published(self._location(_TOLD)) as draft:  # not where one may only read
            write_table(draft, told.table, {})
        return told

    def _before(self) -> Entries | None:
        """What the CSV said when it could last be used, as far as that was kept."""
        found = self._table(_TOLD, f"what {self.place} says now holds")
        if found is None:
            return None
        kept, _ = found
        lacking = [pl.lit(None, dtype).alias(name) for name, dtype in ENTRY.items() if name not in kept.columns]
        return Entries(kept.with_columns(lacking).select(*ENTRY))

    def _table(self, name: str, otherwise: str) -> tuple[pl.DataFrame, dict[str, Any]] | None:
        """A table and what is said of it; None, where there is none. One that is damaged is set aside, and told."""
        try:
            with self._files.fetched(self._location(name)) as file:
                return read_table(file)
        except FileNotFoundError:
            return None
        except pa.ArrowInvalid as error:
            with suppress(OSError):  # who may only read leaves it to others
                self._files.set_aside(self._location(name))
            _LOG.error("%s; it is kept as %s%s; %s", error, name_of(self._location(name)), DAMAGED, otherwise)
            return None

    def _of_csv(self) -> Entries:
        try:
            with self._files.opened(self.place) as file:
                entries, faults = entries_of_csv(file.read())
        except FileNotFoundError:
            raise StationsError(
                f"{self.place}, which says what is known of stations, is not there; put it back, or, if nothing is to "
                "be said of them, write one with the line source,station alone"
            ) from None
        if faults:
            shown = [*faults[:_FAULTS], *([f"and {len(faults) - _FAULTS} more"] if len(faults) > _FAULTS else [])]
            raise StationsError(f"{self.place} cannot be used; correct it: " + "; ".join(shown))
        return Entries(entries)

    def _location(self, source: str) -> str:
        return str(self._root / f"{source}.parquet")


def entries_of_csv(content: bytes) -> tuple[pl.DataFrame, list[str]]:
    """The entries of a CSV file with the columns of ENTRY, or some of them, and every fault. Columns whose names begin
    with ``heard_``, as `stations export` writes them, are left out."""
    try:
        given = pl.read_csv(BytesIO(content), infer_schema=False, raise_if_empty=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return pl.DataFrame(schema=ENTRY), [f"it is no table of comma separated values ({error})"]
    given = given.select(pl.exclude("^heard_.*$"))
    line = pl.int_range(2, given.height + 2, eager=True)
    return read_entries(given.with_columns(pl.format("line {}", line).alias("place")))


def entries_in_yaml(entries: Sequence[StationEntry]) -> tuple[Entries, list[str]]:
    """The entries of the YAML, and every fault of them."""
    told = [{key: None if value is None else str(value) for key, value in one.model_dump().items()} for one in entries]
    given = pl.DataFrame(told, schema=dict.fromkeys(ENTRY, pl.String))
    place = pl.format("stations.{}", pl.int_range(given.height, eager=True))
    found, faults = read_entries(given.with_columns(place.alias("place")))
    return Entries(found), faults
