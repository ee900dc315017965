"""Small CSV files are read many at a time, and each once for all windows; what comes out is what each alone gives."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files import Files, FilesConfig, small_files, text_lines, wide_parts, window_rows
from ionbeam_dagster.sources.files import index as index_module
from ionbeam_dagster.sources.files.csv_files import CsvReader

DAY = datetime(2024, 3, 1, tzinfo=UTC)
HOURS = [Window(DAY + n * timedelta(hours=1), DAY + (n + 1) * timedelta(hours=1)) for n in range(4)]
T = {"column": "t", "standard_name": "air_temperature", "unit": "degF", "cf_unit": "degC", "level": 2.0}
RH = {"column": "rh", "standard_name": "relative_humidity", "cf_unit": "%", "level": 2.0, "optional": True}


def source(folder: Path, **keys) -> Files:
    block = {
        "type": "files", "path": str(folder / "in" / "*.csv"), "data_path": str(folder / "raw"), "settle": 0,
        "time": {"column": "time", "zone": "Europe/Rome"}, "latitude": 45.0, "longitude": 7.0, "missing": [-999],
        "constants": {"station_id": "{stem}", "owner": "us"}, "variables": [T, RH],
    }  # fmt: skip
    return Files("s", FilesConfig.model_validate(block | keys))


def everything(read: Files) -> tuple:
    """What the index and the windows give; of a window that is refused, why."""
    files = {
        name: (file.parts, file.stations, file.error and file.error[:60]) for name, file in read._index.look().items()
    }
    windows = []
    for window in HOURS:
        try:
            rows = [pl.DataFrame(batch) for batch in read.fetch(window)]
            windows.append(pl.concat(rows).rows(named=True) if rows else [])
        except SourceError as error:
            windows.append(str(error)[:60])
    return files, windows, [read.signature(window) for window in HOURS]


def test_a_file_that_goes_while_files_are_looked_at_harms_no_other(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.csv").write_text("time,t,rh\n2024-03-01 01:30,50,40\n")
    read, seen = source(tmp_path), index_module.FileIndex._is_new

    def gone_then(index, name, path):
        is_new = seen(index, name, path)
        if name == "a.csv":
            path.unlink(missing_ok=True)
        return is_new

    monkeypatch.setattr(index_module.FileIndex, "_is_new", gone_then)
    assert list(read._index.look()) == ["b.csv"]


TIMES = st.integers(0, 23).map(lambda n: f"{DAY + n * timedelta(minutes=10):%Y-%m-%d %H:%M}")
LINES = st.one_of(
    st.builds("{},{},{}".format, TIMES, st.sampled_from(["1", "-999.0", "NA", "x", " 2 ", "é"]), st.just("50")),
    st.sampled_from(["", "never,1,50", ",1,50", "a,b", "1,2,3,4", "time,t,rh", "2024-03-31 02:30,1,1"]),
    st.just('"2024-03-01 01:00",1,50'),
)  # fmt: skip
TEXTS = st.builds(
    lambda mark, header, lines, ending, last: (
        mark + ending.join([header, *lines]) + (ending if last else "")
    ).encode(),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["time,t,rh", "time,t", "rh,time,t", "time,x", "time;t"]),
    st.lists(LINES, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)


@settings(max_examples=40)
@given(st.lists(TEXTS, min_size=1, max_size=6))
@example([b"time,t,rh\n2024-03-01 01:00,1,50\n", b"time,t,rh\nnever,1,50\n2024-03-01 02:00,2,50\n", b"\xff\n", b""])
def test_files_that_are_read_together_give_what_each_alone_gives(texts):
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        folder = Path(place)
        (folder / "in").mkdir()
        for number, text in enumerate(texts):
            (folder / "in" / f"st{number}.csv").write_bytes(text)
        together = everything(source(folder))
        for module in (index_module, window_rows):
            patched.setattr(module, "may_be_together", lambda config: False)
        patched.setattr(index_module.FileIndex, "_recalled", lambda index: ({}, True))
        assert everything(source(folder)) == together


def test_each_small_file_is_read_once_for_all_windows_and_again_when_it_changed(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(20):
        rows = [f"{DAY + n * timedelta(minutes=30):%Y-%m-%dT%H:%MZ},{n},50" for n in range(8)]
        (tmp_path / "in" / f"st{number:02}.csv").write_text("\n".join(["time,t,rh", *rows, ""]))
    read = source(tmp_path)
    read.extent()
    opened: list[str] = []
    one = small_files._small_table

    def counted(reader, name, path):
        opened.append(name)
        return one(reader, name, path)

    monkeypatch.setattr(small_files, "_small_table", counted)
    monkeypatch.setattr(small_files, "TOGETHER", 1000)
    for window in HOURS:
        [batch] = read.fetch(window)
        assert batch.num_rows == 40 and pl.DataFrame(batch)["station_id"].unique(maintain_order=True).len() == 20
    assert len(opened) == 20
    path = tmp_path / "in" / "st07.csv"
    path.write_text(path.read_text().replace(",0,50", ",32,50"))
    [batch] = read.fetch(HOURS[0])
    assert pl.DataFrame(batch).filter(pl.col("station_id") == "st07")["t"].cast(float).to_list()[0] == pytest.approx(0)
    assert opened[20:] == ["st07.csv"] * 2, "once to know it, and once for its rows"
    path.unlink()
    [batch] = read.fetch(HOURS[1])
    assert batch.num_rows == 38
    monkeypatch.setattr(small_files, "MOST_KEPT", 100)
    assert sum(batch.num_rows for batch in read.fetch(HOURS[1])) == 38, "what has no room is read by itself"


def test_a_file_sorted_by_station_is_read_once_for_all_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "CSV_PART", 3200)
    (tmp_path / "in").mkdir()
    lines = [
        f"{DAY + n * timedelta(minutes=10):%Y-%m-%dT%H:%M:%SZ},{'' if n % 5 else n},{station}"
        for station in "ABCDEFGHIJ"
        for n in range(140)
    ]
    path = tmp_path / "in" / "all.csv"
    path.write_text("\n".join(["time,t,id", *lines, ""]))
    keys = {"constants": {}, "metadata": {"station_id": "id"}}
    hours = [Window(DAY + n * timedelta(hours=1), DAY + (n + 1) * timedelta(hours=1)) for n in range(24)]
    monkeypatch.setattr(wide_parts, "MOST_KEPT", 0)
    each_time = [[pl.DataFrame(batch) for batch in source(tmp_path, **keys).fetch(hour)] for hour in hours]
    monkeypatch.setattr(wide_parts, "MOST_KEPT", 1 << 30)
    monkeypatch.setattr(wide_parts, "ROWS_A_PIECE", 100)
    read = source(tmp_path, **keys)
    read.extent()
    parts: list[tuple[int, ...]] = []
    reading = CsvReader.read

    def counted(self, path, places, columns):
        parts.extend(places := list(places))
        return reading(self, path, places, columns)

    monkeypatch.setattr(CsvReader, "read", counted)
    for hour, before in zip(hours, each_time, strict=True):
        now = [pl.DataFrame(batch) for batch in read.fetch(hour)]
        assert pl.concat(now).equals(pl.concat(before)) if before else not now
    assert len(parts) == len({*parts}) > 10 and sum(frame.height for frames in each_time for frame in frames) == 280
    path.write_text(path.read_text().replace(",0,A", ",32,A"))
    [batch] = read.fetch(hours[0])
    assert float(pl.DataFrame(batch)["t"][0]) == pytest.approx(0)
    there = tmp_path / "temporary"
    there.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(there))
    monkeypatch.setattr(wide_parts, "MOST_KEPT", 20_000)
    bounded = source(tmp_path, **keys)
    for hour, before in zip(hours[1:], each_time[1:], strict=True):
        now = [pl.DataFrame(batch) for batch in bounded.fetch(hour)]
        assert pl.concat(now).equals(pl.concat(before)) if before else not now, "what has no room is read each time"
    [kept] = bounded._rows._kept._files.values()
    assert not kept.has_room and not kept.numbers and not kept.pieces
    assert list(there.iterdir()) == [], "nothing is left of a process that is killed"
