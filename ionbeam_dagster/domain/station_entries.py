"""What a person says of stations: names, places, WIGOS ids, and who may not come in; and what rows become by it.

Belongs here: the table of entries, its faults, and rows that get their place by it or are refused. Does not belong
here: what is heard of stations (stations.py), or where entries are kept (stores/stations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Self

import polars as pl
import pyarrow as pa

from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug, ArchFxParentSlug
from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.canonical import STATION, Canonicalised, TimeBounds, canonicalise, rejected_rows
from ionbeam_dagster.domain.raw_values import as_text, is_absent, raw_frame

# Series 0, issuer and issue number (both below 65535, which means that they are missing), local id.
_WIGOS_NUMBER = r"([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-4])"
WIGOS_ID = rf"^0-{_WIGOS_NUMBER}-{_WIGOS_NUMBER}-[A-Za-z0-9]{{1,16}}$"

ENTRY: dict[str, pl.DataType] = {
    "source": pl.String(), "station": pl.String(), "wigos_id": pl.String(), "name": pl.String(),
    "latitude": pl.Float64(), "longitude": pl.Float64(), "altitude": pl.Float64(), "mobile": pl.Boolean(),
    "siting": pl.Int64(), "parent": pl.String(), "admit": pl.String(), "why": pl.String(),
}  # fmt: skip
"""What a person may say of a station (columns of a CSV, keys in the YAML): `source` and `station` (its id there) say
which; `wigos_id`; `name`; `latitude` and `longitude` in degrees; `altitude` in m above the sea; `mobile` or fixed;
`siting`, WMO's class from 1 to 5; `parent`, of a device that reports: its site, area or line; `admit` (allow, deny) and
`why`."""


def read_entries(given: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """What a person says of stations, from a table of texts with the columns of ENTRY, or some of them, and `place`
    (where each row stands, for messages). Returns the entries, and every fault as a sentence."""
    faults = [
        f"header: column {name!r} is not known; known are {', '.join(ENTRY)}"
        for name in given.columns
        if name not in ENTRY and name != "place"
    ]
    if lacking := [name for name in ("source", "station") if name not in given.columns]:
        return pl.DataFrame(schema=ENTRY), [*faults, f"header: there is no column {' and no column '.join(lacking)}"]
    texts = given.select(
        "place",
        *(
            pl.col(name).cast(pl.String).str.strip_chars().replace("", None) if name in given.columns
            else pl.lit(None, pl.String).alias(name)
            for name in ENTRY
        ),
    )  # fmt: skip
    number = [name for name, dtype in ENTRY.items() if dtype in (pl.Float64, pl.Int64)]
    yes_or_no = pl.col("mobile").str.to_lowercase().replace_strict(_YES_OR_NO, default=None, return_dtype=pl.Boolean)
    entries = texts.with_columns(
        *(pl.col(name).cast(ENTRY[name], strict=False) for name in number),
        pl.when(pl.col("wigos_id").str.contains(r"^[0-9]{5}$"))
        .then("0-20000-0-" + pl.col("wigos_id"))
        .otherwise("wigos_id")
        .alias("wigos_id"),
        yes_or_no.alias("mobile"),
        pl.col("admit").str.to_lowercase(),
        _written(pl.col("parent"), ArchFxParentSlug),
        _written(pl.when(pl.col("parent").is_not_null()).then("station"), ArchFxDeviceSlug).alias("device"),
    ).with_columns(pl.coalesce("device", "station").alias("station"))
    faulty = [
        (pl.col("source").is_null() | pl.col("station").is_null(), "has no source, or no station"),
        *((pl.col(name).is_null() & texts[name].is_not_null(), f"{name} is no number") for name in number),
        (pl.col("mobile").is_null() & texts["mobile"].is_not_null(), "mobile is neither true nor false"),
        (~pl.col("latitude").is_between(-90, 90), "latitude is not within -90 and 90"),
        (~pl.col("longitude").is_between(-180, 360), "longitude is not within -180 and 360"),
        (pl.col("latitude").is_null() != pl.col("longitude").is_null(), "has one of latitude and longitude alone"),
        (~pl.col("altitude").is_between(-500, 9000), "altitude is not within -500 and 9000 m"),
        (~pl.col("siting").is_between(1, 5), "siting is none of WMO's classes 1 to 5"),
        (~pl.col("wigos_id").str.contains(WIGOS_ID), "wigos_id is none: right would be 0-276-0-ABC, or five digits"),
        (pl.col("parent").is_null() & texts["parent"].is_not_null(),
         "parent is no site (ps), area (pa) or line (pl): right would be pl--0000-0001"),
        (pl.col("parent").is_not_null() & pl.col("device").is_null(),
         "has a parent, and is no device: right would be the station d--0000-0000-0000-0007"),
        (~pl.col("admit").is_in(["allow", "deny"]), "admit is neither allow nor deny"),
        (pl.struct("source", "station").is_duplicated(), "is given twice"),
    ]  # fmt: skip
    for fault, words in faulty:
        found = entries.filter(fault.fill_null(False))
        faults += [
            f"{place}: {source or ''} {station or ''}: {words}"
            for place, source, station in found.select("place", "source", "station").iter_rows()
        ]
    return entries.select(*ENTRY), faults


def _written(text: pl.Expr, slug: Callable[[str], object]) -> pl.Expr:
    """Ids as they are written in full; null what is none."""

    def written(given: str) -> str | None:
        try:
            return str(slug(given))
        except ValueError:
            return None

    return text.map_elements(written, return_dtype=pl.String)


_YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, eq=False)
class Entries:
    """What a person says of stations: the `table` (ENTRY) of one source, or of all. Equal is what is the same."""

    table: pl.DataFrame

    def of(self, source: str) -> Self:
        return replace(self, table=self.table.filter(pl.col("source") == source))

    def __bool__(self) -> bool:
        return not self.table.is_empty()

    def refused(self, stations: pl.Series) -> pl.Series:
        """Why the rows of stations may not come in, null where they may. Where some are allowed, all others may not."""
        admit = pl.col("admit")
        denied = self.table.filter(admit == "deny").select(
            "station", why=pl.concat_str(pl.col("station"), pl.col("why"), separator=", ", ignore_nulls=True)
        )
        why = stations.replace_strict(denied["station"], denied["why"], default=None, return_dtype=pl.String)
        allowed = self.table.filter(admit == "allow")["station"]
        if allowed.is_empty():
            return why
        other = ~stations.is_in(allowed.implode()).fill_null(False)
        return why.zip_with(~other | why.is_not_null(), stations + pl.Series([", which is not among those allowed"]))

    def places(self) -> pl.DataFrame:
        """STATION, known_lat, known_lon and known_height of the stations whose place is told."""
        return self.table.drop_nulls("latitude").select(
            pl.col("station").alias(STATION),
            pl.col("latitude").alias("known_lat"),
            pl.col("longitude").alias("known_lon"),
            pl.col("altitude").alias("known_height"),
        )

    def parents(self) -> pl.DataFrame:
        """`device` and `parent`, as they are written in full, of the devices whose parent is told."""
        return self.table.drop_nulls("parent").select(pl.col("station").alias("device"), "parent")

    def with_(self, entries: pl.DataFrame) -> Entries:
        """With other entries of the stations that `entries` has; those that say nothing are left out."""
        says = pl.any_horizontal(pl.col(name).is_not_null() for name in ENTRY if name not in ("source", "station"))
        others = self.table.join(entries, on=["source", "station"], how="anti")
        return Entries(pl.concat([others, entries]).filter(says))

    def denied(self, source: str, station: str, why: str) -> Entries:
        return self._with_one(source, station, admit="deny", why=why or None)

    def let_in(self, source: str, station: str) -> Entries:
        return self._with_one(source, station, admit=None, why=None)

    def _with_one(self, source: str, station: str, **said: str | None) -> Entries:
        known = self.table.filter((pl.col("source") == source) & (pl.col("station") == station)).to_dicts()
        entry = {**(known[0] if known else {}), "source": source, "station": station, **said}
        return self.with_(pl.DataFrame([entry], schema=ENTRY))

    def faults(self, sources: Collection[str]) -> list[str]:
        """What of it cannot be meant: entries of sources that there are none, and WIGOS ids that several stations
        would have; a sentence each."""
        strange = sorted({*self.table["source"]} - {*sources})
        named = pl.format("{} {}", "source", "station")
        twice = self.table.drop_nulls("wigos_id").group_by("wigos_id").agg(named.sort().alias("stations"))
        twice = twice.filter(pl.col("stations").list.len() > 1).sort("wigos_id")
        return [
            *(f"stations of {one} are told of, and the configuration has no such source" for one in strange),
            *(
                f"stations {', '.join(stations)} would all have the WIGOS id {wigos_id}; give each one of its own"
                for wigos_id, stations in twice.iter_rows()
            ),
        ]


NO_ENTRIES = Entries(pl.DataFrame(schema=ENTRY))


# -- what rows become by it --------------------------------------------------------------------------------------------


def canonical_rows(
    batch: pa.RecordBatch, metadata: IngestionMetadata, bounds: TimeBounds, told: Entries
) -> Canonicalised:
    """The canonical rows of a raw batch, as `canonicalise` makes them, with what is `told` of the stations of its
    source: those without a place have the one that is told, and those that may not come in are among the rejected."""
    if not told or STATION not in {one.column for one in metadata.ingestion_map.metadata_variables}:
        return canonicalise(batch, metadata, bounds)
    raw = raw_frame(batch)
    if STATION in raw.columns:
        raw = _placed(raw, metadata, told)
    return _admitted(canonicalise(raw, metadata, bounds), raw, told)


def _placed(raw: pl.DataFrame, metadata: IngestionMetadata, told: Entries) -> pl.DataFrame:
    places = told.places()
    axes = {"known_lat": metadata.ingestion_map.lat.column, "known_lon": metadata.ingestion_map.lon.column}
    if places.is_empty() or not {*axes.values()} <= {*raw.columns}:
        return raw
    lacking = is_absent(raw[axes["known_lat"]]) | is_absent(raw[axes["known_lon"]])
    if not lacking.any():
        return raw
    known = as_text(raw[STATION]).to_frame().join(places, on=STATION, how="left", maintain_order="left")
    use = lacking & known["known_lat"].is_not_null()
    filled = []
    for name, column in axes.items():
        given = raw[column]
        given = given if given.dtype in (pl.String, pl.Float64) else given.cast(pl.Float64, strict=False)
        filled.append(known[name].cast(given.dtype).zip_with(use, given).alias(column))
    return raw.with_columns(filled)


def _admitted(done: Canonicalised, raw: pl.DataFrame, told: Entries) -> Canonicalised:
    why = told.refused(done.rows[STATION])
    refused = why.is_not_null()
    if not refused.any():
        return done
    places = done.places.filter(refused)
    theirs = rejected_rows(raw[places], places, "its station may not come in: " + why.drop_nulls(), pl.lit(True))
    others = done.rejected.filter(~pl.col("row").is_in(places.cast(pl.Int64).implode()))
    rejected = pl.concat([others, theirs], how="vertical_relaxed").sort("row")
    return Canonicalised(done.rows.filter(~refused), rejected, done.places.filter(~refused))
