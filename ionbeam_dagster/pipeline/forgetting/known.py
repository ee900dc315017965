"""What is known of a station: the registry, what was heard of late, what a person said of it.

Belongs here: removing it there. Does not belong here: rows (kept.py, made.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial

import polars as pl

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.heard import STATION_KEY
from ionbeam_dagster.domain.station_entries import Entries
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import heard as lately
from ionbeam_dagster.pipeline import stations
from ionbeam_dagster.pipeline.forgetting.who import Removed, Who
from ionbeam_dagster.pipeline.platform import Platform


def when_heard(platform: Platform, source: SourceSettings, station: str) -> Window | None:
    """Since and until when a station was heard, of all that was taken in until now."""
    heard = stations.up_to_date(platform, [source.name])[source.name].registry.heard
    found = heard.filter(pl.col(STATION) == station)
    if found.is_empty():
        return None
    first, last = found.select("first_heard", "last_heard").row(0)
    return Window(first, last + timedelta.resolution)


def registry(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """What was heard of it since it was first heard."""
    for source, station in who.names:
        with stations.in_turn(platform, source.name):
            known = platform.stations.heard(source.name)
            others = known.stations.filter(pl.col(STATION) != station)
            if others.height == known.stations.height:
                continue
            if not dry_run:
                platform.stations.keep(source.name, replace(known, stations=others))
        yield Removed("the registry", f"stations of {source.name}")


def heard(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """What was heard of it in the last week, and what is told of that."""
    for source, station in who.names:
        with lately.in_turn(platform, source.name):
            week, told = platform.heard.week(source.name), platform.heard.told(source.name)
            others = pl.col(STATION_KEY).cast(pl.String) != station
            found = [week.stations, week.notes, *([] if told is None else [told.stations])]
            if not any(one.height > one.filter(others).height for one in found):
                continue
            if not dry_run:
                week.stations, week.notes = week.stations.filter(others), week.notes.filter(others)
                platform.heard.keep_week(source.name, week)
                if told is not None:
                    platform.heard.keep_told(source.name, replace(told, stations=told.stations.filter(others)))
        yield Removed("what was heard lately", f"stations of {source.name}")


def entries(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """What a person said of it in the CSV file."""
    if platform.stations.is_in_yaml:
        return
    for source, station in who.names:
        its_own = (pl.col("source") == source.name) & (pl.col("station") == station)
        if platform.stations.entries().table.filter(its_own).is_empty():
            continue
        if not dry_run:
            stations.change_entries(platform, partial(_without, its_own))
            platform.stations.entries()  # by which what was said before is written anew, too
        yield Removed("what was said of it", platform.stations.place)


def _without(rows: pl.Expr, told: Entries) -> Entries:
    return replace(told, table=told.table.filter(~rows))


def left_elsewhere(platform: Platform, who: Who) -> Iterator[str]:
    """What stands in the YAML, and what other datasets have of the same network."""
    if platform.stations.is_in_yaml:
        told = platform.stations.entries().table
        for source, station in who.names:
            if told.filter((pl.col("source") == source.name) & (pl.col("station") == station)).height:
                yield f"the YAML says something of it, at stations: of source {source.name}; remove that there"
    networks = {source.network for source, _ in who.names}
    ours = {source.name for source, _ in who.names}
    for name, source in platform.config.sources.items():
        if source.network in networks and name not in ours:
            yield f"{name} is of the same network and feeds {source.dataset}: forget it there, too"
