"""A crowd of which a station is forgotten, and a program that kills the forgetting, one at every write.

    python forgotten.py FOLDER STEP

Belongs here: what tests/test_forgetting.py starts, and what it has in common with it. Each copy of what was made is
forgotten in a process that dies before its n-th write, and then by the next one. Prints what is wrong with what came of
it, a line each, and how many writes there are.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from crowd import crowd
from killed import Counter, forked, opened

from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import heard
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.cycles import export_cycle
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.forgetting import forget, who_is
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.stations import up_to_date

HOUR = timedelta(hours=1)
DAY = datetime(2026, 6, 21, tzinfo=UTC)
LATER = DAY + timedelta(days=3)
GONE, STAYS = "Jansen-Dorp.7", "town-hall"
CROWD = crowd("EXPORTS", "{station_id: s, owner: owner}")
_OF_THE_OWNER = ("config.yaml", "crowd.files.json")
"""The configuration, and the index of the files in `in`, which are not the platform's."""
WINDOWS = [Window(DAY + number * HOUR, DAY + (number + 1) * HOUR) for number in range(2)]


def rows(stations=(GONE, STAYS)):
    lines = ["t,s,lat,lon,warm,owner"]
    for window in WINDOWS:
        for minute in range(0, 60, 10):
            moment = window.start + timedelta(minutes=minute)
            lines += [f"{moment:%Y-%m-%dT%H:%M:%SZ},{one},52.{len(one)},5.0,20.0,of {one}" for one in stations]
        # A row without a place goes to the quarantine.
        lines += [f"{window.start + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ},{one},,5.0,20.0,x" for one in stations]
    return "\n".join(lines) + "\n"


def made(platform: Platform, again: bool = False) -> None:
    """All that is made of the crowd, twice of its first window, and what is known of its stations."""
    source, dataset, config = platform.source("crowd"), platform.dataset("crowd"), platform.config
    for window in WINDOWS:
        collect(platform, source, window, LATER)
        ingest(platform, source, window)
        build(platform, dataset, window, LATER)
        for format in dataset.exports:
            export(platform, dataset, config.window_exporters[format], window)
    if not again:
        build(platform, dataset, WINDOWS[0], LATER, force=True)
    for format in dataset.exports:
        export(platform, dataset, config.window_exporters[format], WINDOWS[0])
    for format in dataset.cycle_exports:
        export_cycle(platform, dataset, config.cycle_exporters[format], cycle_of(DAY), LATER)
    up_to_date(platform, ["crowd"])
    heard.up_to_date(platform, "crowd")


def mentions(folder: Path, name: str) -> list[str]:
    """The files, but for those of the source's owner, that have the name in their bytes, or in a text of Parquet."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or "in" in path.relative_to(folder).parts or path.name in _OF_THE_OWNER:
            continue
        told = path.read_bytes()
        if told[:4] == b"PAR1":
            table = pq.read_table(pa.BufferReader(told))
            texts = [table.column(one).cast(pa.string()) for one in table.schema.names if _is_text(table, one)]
            told += "\n".join(str(value) for text in texts for value in text.unique().to_pylist()).encode()
        if name.encode() in told:
            found.append(str(path.relative_to(folder)))
    return found


def _is_text(table: pa.Table, name: str) -> bool:
    kind = table.schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def left_of(platform: Platform) -> None:
    """What has to hold once the station is forgotten."""
    for window in WINDOWS:
        latest = platform.ledger.latest_revision("crowd", window)
        with platform.files.fetched(latest.path) as file:
            assert pl.read_parquet(file)["station_id"].unique().to_list() == [STAYS]
        assert (latest.facts.rows, latest.facts.stations) == (6, 1)
        [raw] = [one for one in platform.ledger.raws("crowd", LATER) if one.window == window]
        assert platform.raws(platform.source("crowd")).measured(raw.path) == (raw.rows, raw.bytes, raw.hash)
        assert raw.rows == 7 and platform.ledger.claims_of([raw.ingestion])
        assert platform.series.lacking("crowd", [raw.ingestion]) == []


def _forget() -> Platform:
    platform = opened()
    forget(platform, who_is(platform, "crowd", GONE))
    return platform


def main(root: Path, step: int) -> None:
    whole = root / "whole"
    (whole / "in").mkdir(parents=True)
    (whole / "in" / "all.csv").write_text(rows())
    (whole / "config.yaml").write_text(
        f"state_path: state\nsources:\n{CROWD.replace('EXPORTS', '[pygeoapi, odb_cycle]')}"
    )
    assert forked(whole, lambda: made(opened())) == 0

    def counted() -> None:
        counter = Counter(None)
        counter.watch()
        _forget()
        Path("in/writes").write_text(str(counter.seen))

    copytree(whole, root / "counted")
    assert forked(root / "counted", counted) == 0
    writes = int((root / "counted" / "in" / "writes").read_text())
    for number in range(1, writes + 1, step):
        folder = copytree(whole, root / f"killed{number}")

        def killed(number: int = number) -> None:
            Counter(number).watch()
            _forget()

        def again() -> None:
            left_of(_forget())

        forked(folder, killed)
        if forked(folder, again):
            print(f"killed before write {number}: it is not ended by the next one")
        for draft in folder.rglob(".*.????????"):
            draft.unlink()  # as the purge does a day later
        if found := mentions(folder, GONE):
            print(f"killed before write {number}: {found}")
    print(f"writes: {writes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
