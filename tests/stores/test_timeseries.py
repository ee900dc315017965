"""Both time-series stores pass the suite that is shipped for them; and what the segments promise besides."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from ionbeam_dagster.domain.windows import DAY, HOUR, Window
from ionbeam_dagster.errors import LostPoints
from ionbeam_dagster.stores import publish
from ionbeam_dagster.stores.timeseries import TimeSeriesStore, bundles, segments, selecting
from ionbeam_dagster.stores.timeseries.influxdb import store as influxdb
from ionbeam_dagster.stores.timeseries.influxdb.store import InfluxStore
from ionbeam_dagster.stores.timeseries.segments import SegmentStore
from ionbeam_dagster.stores.timeseries.steady import SegmentError
from ionbeam_dagster.testing.timeseries import (
    AFTERNOON,
    FIXED,
    NOON,
    TEMPERATURE,
    Row,
    TimeSeriesContract,
    frame,
    row,
    seen,
)


class CompactedStore(SegmentStore):
    """Segments that are made one file after everything that happens to them."""

    def write(self, dataset: str, *rest: Any) -> int:
        rows = super().write(dataset, *rest)
        compact(self, dataset)
        return rows

    def withdraw(self, dataset: str, ingestion: str) -> None:
        super().withdraw(dataset, ingestion)
        compact(self, dataset)


def compact(store: SegmentStore, dataset: str) -> None:
    """Compact every hour of `dataset`, however few segments it has."""
    for folder in (store.root / dataset).glob("[0-9]*"):
        start = datetime.strptime(folder.name, segments.BUCKET_FORMAT).replace(tzinfo=UTC)
        store.compact(dataset, Window(start, start + HOUR))


@pytest.fixture
def dataset() -> str:
    return f"d{uuid4().hex}"


class TestSegments(TimeSeriesContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> TimeSeriesStore:
        return SegmentStore(tmp_path / "observations")

    def compact(self, store: TimeSeriesStore, dataset: str) -> None:
        assert isinstance(store, SegmentStore)
        compact(store, dataset)


class TestSegmentsInTinyPieces(TestSegments):
    @pytest.fixture(autouse=True)
    def tiny(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"PART_ROWS": 3, "BUFFERED_ROWS": 5, "ROW_GROUP_ROWS": 2, "BATCH_ROWS": 3}.items():
            monkeypatch.setattr(segments, name, value)
        monkeypatch.setattr(selecting, "RANGE_ROWS", 4)
        monkeypatch.setattr(selecting, "SAMPLE_EVERY", 2)


class TestSegmentsInBundles(TestSegments):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TimeSeriesStore:
        monkeypatch.setattr(selecting, "RANGE_ROWS", 40)
        monkeypatch.setattr(selecting, "SAMPLE_EVERY", 4)
        monkeypatch.setattr(bundles, "GROUP_ROWS", 5)
        return CompactedStore(tmp_path / "observations")


class TestInfluxDB(TimeSeriesContract):
    examples = 8
    tells_what_it_lacks = False

    @pytest.fixture
    def store(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TimeSeriesStore:
        for name, value in {"REQUEST_LINES": 3, "SLICE_ROWS": 4, "BATCH_ROWS": 3}.items():
            monkeypatch.setattr(influxdb, name, value)
        server = request.getfixturevalue("influxdb")
        return InfluxStore(server.url, server.org, "contract", server.token)


def write_again_and_again(root: Path, dataset: str, arrivals: Sequence[int]) -> None:
    """What a writing process does: every ingestion corrects the same points, and one comes and goes."""
    store = SegmentStore(root)
    for arrival in arrivals:
        rows = [row(f"S{station:02d}", NOON, **{TEMPERATURE: float(arrival)}) for station in range(50)]
        for _ in range(2):
            store.write(dataset, f"i{arrival}", arrival, [frame(rows[:20]), frame(rows[20:])], ["station_id"])
        store.write(dataset, f"brief {arrivals[0]}", arrivals[0], [frame(rows)], ["station_id"])
        store.withdraw(dataset, f"brief {arrivals[0]}")


def compact_again_and_again(root: Path, dataset: str, going: Event) -> None:
    while going.is_set():
        compact(SegmentStore(root), dataset)


def test_two_processes_write_while_others_compact_and_read(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    context = multiprocessing.get_context("spawn")
    going = context.Event()
    going.set()
    writers = [
        context.Process(target=write_again_and_again, args=(tmp_path, dataset, range(first, 21, 2))) for first in (1, 2)
    ]
    compactors = [context.Process(target=compact_again_and_again, args=(tmp_path, dataset, going)) for _ in range(2)]
    for process in [*writers, *compactors]:
        process.start()
    latest = 0.0
    while any(writer.is_alive() for writer in writers):
        values = [point[TEMPERATURE] for point in seen(store, dataset)]
        assert len(values) in (0, 50) and len(set(values)) <= 1
        assert latest <= max(values, default=0.0) <= 20, "an ingestion was lost on its way into the bundle"
        latest = max(values, default=0.0)
    going.clear()
    for process in [*writers, *compactors]:
        process.join()
    assert [process.exitcode for process in [*writers, *compactors]] == [0, 0, 0, 0]
    assert latest > 0
    compact(store, dataset)
    assert [path.name for path in tmp_path.glob("*/[0-9]*/*")] == ["bundle.parquet"]
    assert seen(store, dataset) == [row(f"S{station:02d}", NOON, **{TEMPERATURE: 20.0}) for station in range(50)]
    assert store.lacking(dataset, [f"i{arrival}" for arrival in range(1, 21)]) == []


def hourly(count: int, value: float = 1.0) -> list[Row]:
    return [row("A", NOON + number * HOUR, **{TEMPERATURE: value}) for number in range(count)]


def die_while_publishing(root: Path, dataset: str) -> None:
    """Write six hours, and die as by a signal after two of them were renamed: nothing is tidied up."""
    rename, renamed = Path.replace, []

    def rename_two(draft: Path, target: Path) -> Path:
        if len(renamed) == 2:
            os._exit(9)
        renamed.append(target)
        return rename(draft, target)

    Path.replace = rename_two  # type: ignore[method-assign, assignment]
    SegmentStore(root).write(dataset, "one", 1, [frame(hourly(6, value=2.0))], ["station_id"])


def test_a_crash_while_publishing_is_healed_by_writing_again(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    day = Window(NOON, NOON + DAY)
    store.write(dataset, "one", 1, [frame(hourly(4))], ["station_id"])
    child = multiprocessing.get_context("spawn").Process(target=die_while_publishing, args=(tmp_path, dataset))
    child.start()
    child.join()
    assert child.exitcode == 9
    assert seen(store, dataset, day) == [*hourly(2, value=2.0), *hourly(4)[2:]]
    assert list(tmp_path.glob("*/.drafts/one/*"))
    store.write(dataset, "one", 1, [frame(hourly(1, value=3.0))], ["station_id"])
    assert seen(store, dataset, day) == hourly(1, value=3.0)
    assert not list(tmp_path.glob("*/.drafts/*"))


@pytest.mark.parametrize("lost", [1, 10, 30, 31])
def test_a_journal_that_was_cut_short_is_healed_by_writing_again(tmp_path: Path, dataset: str, lost: int) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(3))], ["station_id"])
    [journal] = tmp_path.glob("*/.ingestions/one")
    journal.write_bytes(journal.read_bytes()[:-lost])
    store.write(dataset, "one", 1, [frame(hourly(3))], ["station_id"])
    store.withdraw(dataset, "one")
    assert seen(store, dataset) == []


def test_a_writer_that_waits_for_a_withdrawal_is_not_forgotten(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(2))], ["station_id"])
    held, rmtree = threading.Event(), shutil.rmtree

    def wait(path: Path, **options: Any) -> None:
        if not held.is_set():
            held.set()
            time.sleep(0.3)
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", wait)
    withdrawal = threading.Thread(target=store.withdraw, args=(dataset, "one"))
    withdrawal.start()
    assert held.wait(10)
    store.write(dataset, "one", 1, [frame(hourly(3))], ["station_id"])
    withdrawal.join()
    assert seen(store, dataset) == hourly(3)
    store.withdraw(dataset, "one")
    assert seen(store, dataset) == []


def test_drafts_are_never_read(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    [segment] = tmp_path.glob("*/[0-9]*/*.parquet")
    segment.with_name(f".{segment.name}.draft").write_bytes(b"half a file")
    assert seen(store, dataset) == hourly(1)


def test_a_damaged_segment_is_set_aside_and_named_and_its_ingestion_is_lacking(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    [segment] = tmp_path.glob("*/[0-9]*/*.parquet")
    content = segment.read_bytes()
    for damaged in (
        b"",
        b"no Parquet at all",
        content[: len(content) // 2],
        content[:200] + bytes(200) + content[400:],
    ):
        segment.write_bytes(damaged)
        with pytest.raises(LostPoints, match=rf"{segment.name} cannot be read: .*kept as {segment.name}.damaged"):
            seen(store, dataset)
        assert store.lacking(dataset, ["one"]) == ["one"]
        assert segment.with_name(f"{segment.name}.damaged").read_bytes() == damaged


def test_a_folder_where_a_segment_belongs_is_set_aside_by_who_reads_and_by_who_writes(
    tmp_path: Path, dataset: str
) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    [segment] = tmp_path.glob("*/[0-9]*/*.parquet")
    aside = segment.with_name(f"{segment.name}.damaged")
    aside.touch()
    for found in ("read", "written"):
        segment.unlink(missing_ok=True)
        (segment / found).mkdir(parents=True)
        if found == "read":
            with pytest.raises(LostPoints, match=rf"kept as {aside.name}"):
                seen(store, dataset)
            assert store.lacking(dataset, ["one"]) == ["one"]
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    assert seen(store, dataset) == hourly(1) and (aside / "written").exists()


def test_a_sound_segment_of_other_types_is_no_damaged_one(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1)).with_columns(pl.lit("abc").alias(TEMPERATURE))], ["station_id"])
    with pytest.raises(SegmentError, match="as it should be"):
        seen(store, dataset)
    assert not list(tmp_path.rglob("*.damaged")) and store.lacking(dataset, ["one"]) == []


def test_what_is_set_aside_is_told_and_as_old_as_that(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    [segment] = tmp_path.glob("*/[0-9]*/*.parquet")
    segment.write_bytes(segment.read_bytes()[:-9])
    os.utime(segment, (0, 0))
    day = Window(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))
    assert store.damaged(dataset, day) == frozenset()
    with pytest.raises(LostPoints):
        seen(store, dataset)
    [aside] = map(Path, store.damaged(dataset, day))
    assert aside.stat().st_mtime > 0


def test_one_damaged_segment_of_an_hour_is_told_by_who_makes_a_bundle_of_it(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    for number in range(9):
        store.write(dataset, f"i{number}", number, [frame(hourly(1))], ["station_id"])
    damaged = min(tmp_path.glob("*/[0-9]*/*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(LostPoints, match=damaged.name):
        compact(store, dataset)
    assert store.lacking(dataset, ["i0", "i1"]) == ["i0"]
    compact(store, dataset)


def test_a_reader_bears_that_segments_vanish_and_change(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "RANGE_ROWS", 20)
    monkeypatch.setattr(selecting, "SAMPLE_EVERY", 5)
    store = SegmentStore(tmp_path)
    names = [f"S{number:03d}" for number in range(100)]
    for arrival in (1, 2, 3):
        rows = [row(name, NOON, **{TEMPERATURE: float(arrival)}) for name in names]
        store.write(dataset, f"i{arrival}", arrival, [frame(rows)], ["station_id"])

    disturbances: list[Callable[[], object]] = [
        lambda: store.withdraw(dataset, "i3"),
        lambda: compact(store, dataset),
        lambda: store.write(dataset, "i2", 2, [frame([row(name, NOON) for name in names])], ["station_id"]),
    ]
    scan = pl.scan_parquet

    def scan_disturbed(segment: Path, **options: Any) -> pl.LazyFrame:
        if len(found) > 10 and disturbances:
            disturbances.pop()()
        return scan(segment, **options)

    monkeypatch.setattr(pl, "scan_parquet", scan_disturbed)
    found: list[Row] = []
    for batch in store.read(dataset, AFTERNOON, FIXED, ["station_id"]):
        found += batch.to_pylist()
    assert not disturbances
    assert [point["station_id"] for point in found] == names
    assert found[0][TEMPERATURE] == 3.0
    assert found[-1][TEMPERATURE] == 1.0


def test_a_segment_that_is_written_again_while_it_is_compacted_is_not_lost(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sync, again = SegmentStore(tmp_path), publish.sync, hourly(1, value=2.0)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])

    def write_again_and_sync(path: Path) -> None:
        if path.name == ".bundle":  # what it was made of was read
            store.write(dataset, "one", 1, [frame(again)], ["station_id"])
        sync(path)

    with monkeypatch.context() as busy:
        busy.setattr(publish, "sync", write_again_and_sync)
        compact(store, dataset)
    assert seen(store, dataset) == again
    compact(store, dataset)
    assert seen(store, dataset) == again and len(list(tmp_path.glob("*/[0-9]*/*"))) == 1


class Killed(BaseException):
    """As if the process had ended here: nothing that comes later is done, either."""


def test_a_compaction_may_be_killed_at_every_step(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SegmentStore(tmp_path)
    for arrival in (1, 2, 3):
        store.write(dataset, f"i{arrival}", arrival, [frame(hourly(1, value=float(arrival)))], ["station_id"])
    folder = tmp_path / dataset / "20260701T12"
    real = {name: getattr(Path, name) for name in ("replace", "unlink")}
    for steps in count():
        store.write(dataset, "i2", 2, [frame(hourly(1, value=2.5))], ["station_id"])  # again in a file of its own
        left = steps

        def mortal(name: str) -> Callable[..., Any]:
            def step(path: Path, *given: Any, **options: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real[name](path, *given, **options)

            return step

        with monkeypatch.context() as dying:
            for name in real:
                dying.setattr(Path, name, mortal(name))
            try:
                compact(store, dataset)
            except Killed:
                done = False
            else:
                done = True
        assert seen(store, dataset) == hourly(1, value=3.0)
        assert store.lacking(dataset, ["i1", "i2", "i3"]) == []
        store.withdraw(dataset, "i3")
        assert seen(store, dataset) == hourly(1, value=2.5)
        store.write(dataset, "i3", 3, [frame(hourly(1, value=3.0))], ["station_id"])
        if done:
            break
    assert steps >= 4
    compact(store, dataset)
    assert [path.name for path in folder.iterdir()] == ["bundle.parquet"]


@pytest.mark.parametrize("asked", ["its rows", "what lacks"])
def test_a_damaged_bundle_is_set_aside_and_named_and_its_ingestions_are_lacking(
    tmp_path: Path, dataset: str, asked: str
) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    compact(store, dataset)
    [bundle] = tmp_path.glob("*/[0-9]*/bundle.parquet")
    bundle.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(LostPoints, match=r"bundle.parquet cannot be read: .*; it is kept as bundle.parquet.damaged"):
        seen(store, dataset) if asked == "its rows" else store.lacking(dataset, ["one"])
    assert not bundle.exists()
    assert store.lacking(dataset, ["one"]) == ["one"]


def test_a_segment_of_other_types_keeps_its_file(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    store.write(dataset, "one", 1, [frame(hourly(1))], ["station_id"])
    numbered = frame([row("7", NOON)]).with_columns(pl.col("station_id").cast(pl.Int64))
    store.write(dataset, "two", 2, [numbered], ["station_id"])
    before = seen(store, dataset)
    compact(store, dataset)
    compact(store, dataset)
    names = sorted(path.name for path in tmp_path.glob("*/[0-9]*/*"))
    assert names == ["000000000002-two-00000.parquet", "bundle.parquet"]
    assert seen(store, dataset) == before


def test_thousands_of_hours_need_few_open_files(tmp_path: Path, dataset: str) -> None:
    store = SegmentStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 30, hard))
    try:
        store.write(dataset, "long", 1, [frame(hourly(300))], ["station_id"])
        assert seen(store, dataset, Window(NOON, NOON + 30 * DAY)) == hourly(300)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_rows_without_a_time_are_refused(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(ValueError, match="1 rows have no datetime"):
        SegmentStore(tmp_path).write(dataset, "one", 1, [frame([row("A", None)])], ["station_id"])  # type: ignore[arg-type]
