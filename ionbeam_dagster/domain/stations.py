"""The registry of stations: what is heard of them in their rows, and what a person tells of them beside it.

Belongs here: its tables, what rows add to them, and moves. Does not belong here: what a person may tell
(station_entries.py), where it is kept (stores/stations.py), or which rows are looked at (pipeline/stations.py).

A station is told from others by its network (the source) and its id there. Of one source:

    heard   a row a station: STATION, first_heard, last_heard, lat and lon (where it was last), mobile, places, for
            each canonical variable "measures.<name>" (whether it ever had a value), and for each descriptive column
            "told.<name>" (what the source said last)
    places  of a station, all that it was at: lat and lon (to about 100 m), since and until

What rows add does not depend on their order, nor on how often they are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations

import polars as pl

from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION
from ionbeam_dagster.domain.geo import great_circle
from ionbeam_dagster.domain.station_entries import NO_ENTRIES, Entries

_TIME = pl.Datetime("us", "UTC")

MOST_PLACES = 10
"""A station that was at more places than these is mobile, and stays so: one that is moved, or whose position is
corrected, has few."""

_PLACE_DECIMALS = 3  # of degrees: about 100 m, so that a wavering position is seldom at more than one place
_MOST_NAMED = 10
_A_MOVE = 300.0  # m: what is nearer is the same site
_TWO_SITES = 1_000.0  # m: in turns at places so far apart, it is not one station that stands still
_TOLD, _MEASURES = "told.", "measures."
_EXPORTED = ("name", "lat", "lon", "altitude", "mobile", "moved")
_NAMES = ("name", "station_name", "title")
_PLACE: dict[str, pl.DataType] = {"lat": pl.Float64(), "lon": pl.Float64(), "since": _TIME, "until": _TIME}
_HEARD: dict[str, pl.DataType] = {
    STATION: pl.String(), "first_heard": _TIME, "last_heard": _TIME, "lat": pl.Float64(), "lon": pl.Float64(),
    "mobile": pl.Boolean(), "places": pl.List(pl.Struct(_PLACE)),
}  # fmt: skip

# -- heard -------------------------------------------------------------------------------------------------------------


def heard_in(rows: pl.DataFrame, variables: Sequence[str], described: Sequence[str]) -> pl.DataFrame:
    """What canonical rows say of their stations, a row each; none of rows without a station id."""
    if STATION not in rows.columns or rows.is_empty():
        return nothing_heard()
    told = [name for name in described if name != STATION]
    rows = rows.sort("datetime")
    places = rows.group_by(
        STATION, *(pl.col(axis).round(_PLACE_DECIMALS) + 0.0 for axis in ("lat", "lon")), maintain_order=True
    ).agg(since=pl.col("datetime").first(), until=pl.col("datetime").last())
    stations = rows.group_by(STATION).agg(
        pl.col("datetime").first().alias("first_heard"),
        pl.col("datetime").last().alias("last_heard"),
        pl.col("lat", "lon").last(),
        pl.lit(False).alias("mobile"),
        *(pl.col(name).last(ignore_nulls=True).alias(_TOLD + name) for name in told),
        *(pl.col(name).is_not_null().any().alias(_MEASURES + name) for name in variables),
    )
    return _with_places(stations, places)


def nothing_heard() -> pl.DataFrame:
    return pl.DataFrame(schema=_HEARD)


def heard_together(known: pl.DataFrame, news: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """What was known of stations, with news of them; in order of their ids. Only those with news are worked on."""
    new = pl.concat([nothing_heard(), *news], how="diagonal")
    if new.is_empty():
        return known
    concerned = new.select(STATION).unique()
    untouched = known.join(concerned, on=STATION, how="anti")
    both = pl.concat([known.join(concerned, on=STATION, how="semi"), new], how="diagonal").sort("last_heard")
    stations = both.group_by(STATION).agg(
        pl.col("first_heard").min(),
        pl.col("last_heard").last(),
        pl.col("lat", "lon").last(),
        pl.col("mobile").any(),
        pl.col(rf"^{_TOLD}.*$").last(ignore_nulls=True),
        pl.col(rf"^{_MEASURES}.*$").any(),
    )
    places = places_of(both).group_by(STATION, "lat", "lon").agg(pl.col("since").min(), pl.col("until").max())
    return pl.concat([untouched, _with_places(stations, places)], how="diagonal").sort(STATION)


def places_of(heard: pl.DataFrame) -> pl.DataFrame:
    """A row for each place that a station was at: STATION, lat, lon, since, until. None of mobile stations."""
    some = heard.filter(pl.col("places").list.len() > 0).select(STATION, "places")
    return some.explode("places").unnest("places")


def _with_places(stations: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    nested = (
        places.sort("since", "until")
        .group_by(STATION, maintain_order=True)
        .agg(pl.struct("lat", "lon", "since", "until").alias("places"))
    )
    found = stations.join(nested, on=STATION, how="left")
    found = found.with_columns(pl.col("mobile") | (pl.col("places").list.len() > MOST_PLACES).fill_null(False))
    none = pl.lit([], pl.List(pl.Struct(_PLACE)))
    found = found.with_columns(pl.when("mobile").then(none).otherwise(pl.col("places").fill_null(none)).alias("places"))
    return found.select(*_HEARD, pl.exclude(*_HEARD))


def moves_of(heard: pl.DataFrame) -> pl.DataFrame:
    """The moves of stations that are not mobile: STATION, `at` (when it was first heard from there), from_lat,
    from_lon, lat, lon, metres, and `in_turns` (it was heard from both places by turns, far apart: two stations share
    an id, or one is mobile)."""
    places = places_of(heard.filter(pl.col("places").list.len() > 1)).sort(STATION, "since", "until")
    before = [pl.col(name).shift().over(STATION).alias(f"from_{name}") for name in ("lat", "lon", "until")]
    pairs = places.with_columns(before).drop_nulls("from_lat")
    ends = (pairs[name].to_numpy() for name in ("from_lat", "from_lon", "lat", "lon"))
    pairs = pairs.with_columns(pl.Series("metres", great_circle(*ends), pl.Float64))
    in_turns = (pl.col("since") < pl.col("from_until")) & (pl.col("metres") > _TWO_SITES)
    moved = pairs.filter(pl.col("metres") > _A_MOVE).with_columns(in_turns.alias("in_turns"))
    return moved.select(
        STATION, pl.col("since").alias("at"), "from_lat", "from_lon", "lat", "lon", "metres", "in_turns"
    )


# -- together ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registry:
    """What is known of the stations of one source, as it was heard and as a person tells it."""

    source: str
    heard: pl.DataFrame
    entries: Entries

    @cached_property
    def table(self) -> pl.DataFrame:
        """A row a station, also of those that are told of and were never heard: source, station, name, wigos_id, lat,
        lon, altitude (m), mobile, siting, parent, first_heard, last_heard, variables (how many it measures), moved
        (when it was last moved), status (``denied``, ``not heard``, ``in turns`` at two places, or empty) and why."""
        moves = moves_of(self.heard).group_by(STATION).agg(pl.col("at").max().alias("moved"), pl.col("in_turns").any())
        found = self.heard.join(moves, on=STATION, how="left")
        entries = self.entries.table.rename({"station": STATION, "name": "own_name", "mobile": "own_mobile"})
        found = found.join(entries, on=STATION, how="full", coalesce=True)
        name = [pl.col(_TOLD + name) for name in _NAMES if _TOLD + name in found.columns]
        height = [pl.col(_TOLD + name).cast(pl.Float64, strict=False) for name in HEIGHT_COLUMNS
                  if _TOLD + name in found.columns]  # fmt: skip
        measured = [name for name in found.columns if name.startswith(_MEASURES)]
        refused = self.entries.refused(found[STATION])
        status = (
            pl.when(refused.is_not_null())
            .then(pl.lit("denied"))
            .when(pl.col("last_heard").is_null())
            .then(pl.lit("not heard"))
            .when(pl.col("in_turns").fill_null(False))
            .then(pl.lit("in turns at two places"))
        )
        return found.select(
            pl.lit(self.source).alias("source"),
            pl.col(STATION).alias("station"),
            pl.coalesce("own_name", *name).alias("name"),
            "wigos_id",
            pl.coalesce("latitude", "lat").alias("lat"),
            pl.coalesce("longitude", "lon").alias("lon"),
            pl.coalesce("altitude", *height).alias("altitude"),
            pl.coalesce("own_mobile", "mobile").alias("mobile"),
            "siting",
            "parent",
            "first_heard",
            "last_heard",
            reduce(lambda a, b: a + b, [pl.col(name).cast(pl.UInt32).fill_null(0) for name in measured],
                   pl.lit(0, pl.UInt32)).alias("variables"),
            "moved",
            status.alias("status"),
            pl.coalesce("why", refused).alias("why"),
        ).sort("station")  # fmt: skip

    def one(self, station: str) -> Known | None:
        """All that is known of a station; None where nothing is."""
        row = self.table.filter(pl.col("station") == station)
        if row.is_empty():
            return None
        heard = self.heard.filter(pl.col(STATION) == station)
        said = heard.to_dicts()[0] if heard.height else {}
        return Known(
            row.to_dicts()[0],
            {name.removeprefix(_TOLD): str(value) for name, value in said.items()
             if name.startswith(_TOLD) and value is not None},
            [name.removeprefix(_MEASURES) for name, value in said.items() if name.startswith(_MEASURES) and value],
            places_of(heard).drop(STATION),
            moves_of(heard).drop(STATION),
        )  # fmt: skip


def exported(registry: Registry) -> pl.DataFrame:
    """A row a station: what a person says of it (ENTRY), and as ``heard_...`` what its source says."""
    heard = Registry(registry.source, registry.heard, NO_ENTRIES).table
    columns = {name: f"heard_{name}" for name in _EXPORTED}
    columns |= {"first_heard": "heard_first", "last_heard": "heard_last"}
    named = heard.select("source", "station", *(pl.col(name).alias(column) for name, column in columns.items()))
    return registry.entries.table.join(named, on=["source", "station"], how="full", coalesce=True).sort("station")


def apart_with_one_id(heard: Mapping[str, pl.DataFrame]) -> list[str]:
    """A sentence for each two sources of a dataset with stations of one id more than a kilometre apart, whose rows of
    one moment would be one point; with what was `heard` of each source."""
    found = []
    for first, second in combinations(heard, 2):
        ours, theirs = (heard[name].select(STATION, "lat", "lon") for name in (first, second))
        both = ours.join(theirs, on=STATION, how="inner", suffix="_there").sort(STATION)
        ends = (both[name].to_numpy() for name in ("lat", "lon", "lat_there", "lon_there"))
        metres = pl.Series(great_circle(*ends), dtype=pl.Float64)
        far = both.filter(metres > _TWO_SITES)
        if far.height:
            names = ", ".join(far[STATION].head(_MOST_NAMED)) + (", ..." if far.height > _MOST_NAMED else "")
            found.append(
                f"{first} and {second} feed one dataset and have stations of one id that are far apart, whose rows "
                f"become one point: {names}; give one of the two a station_prefix, or a dataset of its own"
            )
    return found


@dataclass(frozen=True, slots=True)
class Known:
    """One station: its row of the registry's table, what its source says of it, the canonical variables that it ever
    had a value of, the places where it was, and its moves."""

    facts: dict[str, object]
    told: dict[str, str]
    measures: list[str]
    places: pl.DataFrame
    moves: pl.DataFrame
