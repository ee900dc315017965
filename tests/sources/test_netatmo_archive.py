"""Netatmo's archives: member by member, by hour and country, and what is damaged of them."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from esoh_messages import message

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.netatmo.archive import NetatmoArchive, NetatmoArchiveConfig

START = datetime(2026, 6, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
TEMPERATURE = "air_temperature:2.0:point:PT0S"
HUMIDITY = "relative_humidity:2.0:point:PT0S"


def window(hour: int, hours: int = 1) -> Window:
    return Window(START + hour * HOUR, START + (hour + hours) * HOUR)


def lines(country: str, hour: int, stations: int = 3) -> bytes:
    moment = START + hour * HOUR
    found = []
    for number in range(stations):
        for parameter, value in ((TEMPERATURE, 10 + hour), (HUMIDITY, 50 + number)):
            found.append(message(f"{country}-{number}", moment + timedelta(minutes=5), value, moment, parameter))
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


def pack(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def packed(folder: Path, name: str = "netatmo-raw-2026062100-2026062103.tar.gz", **more: bytes) -> Path:
    members = {
        f"raw/{country}/{START + hour * HOUR:%Y%m%d%H}.jsonl": lines(country, hour)
        for country in ("no", "se")
        for hour in range(3)
    }
    return pack(folder / name, members | {"raw/README": b"not data"} | more)


def source(folder: Path, **settings: object) -> NetatmoArchive:
    return NetatmoArchive("old", NetatmoArchiveConfig(path=str(folder), data_path=folder / "raw", **settings))


def rows(feed: NetatmoArchive, of: Window) -> list[dict]:
    batches = list(feed.fetch(of))
    return pa.Table.from_batches(batches).to_pylist() if batches else []


@pytest.mark.parametrize("name", ["a-2026062100-2026062103.tar", "a-2026062100-2026062103.tgz"])
def test_each_hour_of_each_country(tmp_path, name):
    packed(tmp_path, name)
    feed = source(tmp_path)
    found = rows(feed, window(1))
    assert [row["station_id"] for row in found] == ["no-0", "no-1", "no-2", "se-0", "se-1", "se-2"]
    assert {row["datetime"] for row in found} == {START + HOUR + timedelta(minutes=5)}
    assert [(row[TEMPERATURE], row[HUMIDITY]) for row in found[:3]] == [(11.0, 50.0), (11.0, 51.0), (11.0, 52.0)]
    assert len(rows(feed, window(0, 3))) == 18
    assert len(rows(source(tmp_path, countries=("se",)), window(1))) == 3
    assert rows(source(tmp_path, countries=("dk",)), window(1)) == []
    assert feed.problems() == []
    assert feed.extent() == Window(START, START + 4 * HOUR)


def test_hours_that_no_archive_has_are_a_failure(tmp_path):
    with pytest.raises(SourceError, match="no archive under"):
        rows(source(tmp_path), window(0))
    assert source(tmp_path).problems() == [f"{tmp_path}: no archive matches"]
    packed(tmp_path)
    with pytest.raises(SourceError, match="has a member for 2026-06-21T03Z"):
        rows(source(tmp_path), window(3))
    pack(tmp_path / "odd.tar.gz", {})
    assert "its name tells no range" in source(tmp_path).problems()[0]


def test_damaged_lines_are_kept_aside_with_their_place(tmp_path):
    broken = lines("no", 0)[:-5] + b"\n\n{\n" + lines("no", 0, stations=1)
    packed(tmp_path, **{f"raw/no/{START:%Y%m%d%H}.jsonl": broken})
    feed = source(tmp_path)
    assert len(rows(feed, window(0))) == 6
    [path] = (tmp_path / "raw" / "old.refused").glob("*.parquet")
    kept = pl.read_parquet(path)
    assert kept["line"].to_list() == ["raw/no/2026062100.jsonl:6", "raw/no/2026062100.jsonl:8"]
    assert feed.problems() == [f"{path}: 2 lines could not be read"]
    packed(tmp_path)
    assert len(rows(feed, window(0))) == 6 and feed.problems() == []


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_damaged_archive_fails_its_windows_and_changes_their_signature(tmp_path, cut):
    path = packed(tmp_path)
    feed = source(tmp_path)
    whole, other = feed.signature(window(2)), feed.signature(window(9))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    assert feed.signature(window(2)) != whole and feed.signature(window(9)) == other
    with pytest.raises(SourceError, match=r"netatmo-raw-.*is damaged after .*fetch it again"):
        rows(feed, window(2))
    path.write_bytes(b"no archive at all")
    with pytest.raises(SourceError, match="is damaged after its beginning"):
        rows(feed, window(2))
