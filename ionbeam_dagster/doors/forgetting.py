"""What doors keep of a station that is to be forgotten: lines that were parked, payloads, parts that wait for others.

Belongs here: finding and removing that. Does not belong here: what became a raw partition (pipeline/forgetting).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import polars as pl

from ionbeam_client.payloads import PayloadStore
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.windows import FOREVER
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.doors.amqp.intake import PAYLOAD_BYTES, PAYLOAD_ROWS
from ionbeam_dagster.doors.http.memory import Memory, door_folder
from ionbeam_dagster.pipeline.forgetting import Removed, Who
from ionbeam_dagster.pipeline.forgetting.kept import rows_in
from ionbeam_dagster.pipeline.forgetting.who import is_of, telling_unread, without
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.sources.door import DoorConfig
from ionbeam_dagster.stores.raw import RawStore

_SEPARATORS = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})


def parked(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Lines of the HTTP door that were not taken in, and the samples that are told of them."""
    folder = door_folder(platform)
    for source, station in who.names:
        if not isinstance(source.config, DoorConfig) or not folder.exists():
            continue
        its_tag = re.compile(f",{re.escape(f'{source.config.station}={station.translate(_SEPARATORS)}')}[, ]")
        for path in sorted((folder / "parked" / source.name).glob("*.parquet")):
            yield from rows_in(platform, str(path), partial(_lines_with, its_tag), "parked lines", dry_run)
        if samples := Memory(folder).forget_samples(source.name, its_tag, remove=not dry_run):
            yield Removed("parked lines", f"samples of {source.name}", samples)


def _lines_with(tag: re.Pattern[str], lines: pl.DataFrame) -> pl.Series:
    return lines["line"].str.contains(tag.pattern)


def bus(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Payloads whose rows are raw partitions by now, and parts of commands."""
    if platform.config.sections.broker is None:
        return
    intake, names = bridge_of(platform).intake, {source.name: station for source, station in who.names}
    for location, source in platform.ledger.commands.payloads(FOREVER):
        if source in names and (rows := _rows_of(intake.payloads, location, names[source])):
            if not dry_run:
                intake.payloads.remove(location)
                platform.ledger.commands.forget_payload(location)
            yield Removed("payloads", location, rows)
    parts = RawStore(platform.files, str(intake.parts.folder))
    for source, station in names.items():
        for path in parts.files(source):
            if rows := _part_without(parts, path, station, dry_run):
                yield Removed("parts that wait for others", path, rows)


def _part_without(parts: RawStore, path: str, station: str, dry_run: bool) -> int:
    """Take a station out of a part; how many rows of it there were."""
    rows = 0
    with telling_unread(path):
        file = parts.open(path)
        rows = sum(int(is_of(batch, station).sum()) for batch in file.batches() if STATION in batch.schema.names)
        if rows and not dry_run:
            parts.write_again(file, "", partial(without, station))
    return rows


def _rows_of(payloads: PayloadStore, location: str, station: str) -> int:
    with telling_unread(location):
        if payloads.size(location) and STATION in payloads.schema(location).names:
            batches = payloads.batches(location, max_rows=PAYLOAD_ROWS, max_bytes=PAYLOAD_BYTES)
            return sum(int(is_of(batch, station).sum()) for batch in batches)
    return 0
