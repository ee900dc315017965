"""Stored files that are damaged when a step comes to read them: named, put out of the way, and no other's failure."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import polars as pl
import pyarrow as pa
import pytest
from test_half_removed import SENT, send
from test_retention import FIRST as MORNING
from told import HOUR, QUARTER, START, Told, window

from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.orchestration.runs import run_range
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest, ingest_raw

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

DAMAGES = {
    "text": lambda whole: whole.replace(b"\x01\x00\x00\x00a", b"\x01\x00\x00\x00\xff"),  # no UTF-8
    "bytes": lambda whole: whole[:40] + bytes(byte ^ 255 for byte in whole[40:80]) + whole[80:],
    "footer": lambda whole: whole[:-4] + b"????",
}
damages = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture
def platform(platform_with):
    return platform_with("  told: {start: 2026-06-21T00:00:00Z}")


def _damaged(path: str, damage) -> bytes:
    whole = Path(path).read_bytes()
    Path(path).write_bytes(damage(whole))
    assert Path(path).read_bytes() != whole
    return whole


@damages
def test_a_raw_file_that_cannot_be_read_fails_its_window_alone_and_is_collected_again(platform, instance, damage):
    for quarter in windows_between(START, START + HOUR, QUARTER):
        collect(platform, platform.source("told"), quarter, platform.now())
    raw = platform.ledger.raw("told", window("00:15"))
    whole = _damaged(raw.path, damage)

    results = run_range(platform, "told", START, START + HOUR, instance)

    [(asset, failed, reason)] = [(r.asset, r.window, r.failure) for r in results if r.failure]
    assert (asset, failed) == ("told/observations", window("00:15"))
    assert raw.path in reason and f"{raw.path}.damaged" in reason and not Path(raw.path).exists()
    assert sum(r.asset == "told/observations" for r in results) == 4

    mended = run_range(platform, "told", START, START + HOUR, instance)
    assert [r.failure for r in mended if r.failure] == [] and Path(raw.path).read_bytes() == whole
    assert platform.ledger.latest_revision("told", window("00:00", HOUR)).facts.gaps == ()


@damages
def test_a_raw_file_whose_hash_nobody_noted_is_named_too(platform, damage):
    collect(platform, platform.source("told"), window("00:15"), platform.now())
    raw = replace(platform.ledger.raw("told", window("00:15")), hash="")
    _damaged(raw.path, damage)
    with pytest.raises(PipelineError, match=raw.path):
        ingest_raw(platform, platform.source("told"), raw)
    assert platform.ledger.claims_of([raw.ingestion]) == []


@damages
def test_a_window_whose_file_is_damaged_is_collected_again_without_what_that_holds(platform, damage, caplog):
    collect(platform, platform.source("told"), window("00:15"), platform.now())
    path = platform.ledger.raw("told", window("00:15")).path
    whole = _damaged(path, damage)
    collect(platform, platform.source("told"), window("00:15"), platform.now())
    assert Path(path).read_bytes() == whole and f"{path}.damaged" in caplog.text


def test_of_a_raw_file_with_a_value_that_the_disk_changed_nothing_is_carried_on(platform):
    collect(platform, platform.source("told"), window("00:15"), platform.now())
    path = platform.ledger.raw("told", window("00:15")).path
    _damaged(path, lambda whole: whole.replace(struct.pack("<d", 11.0), struct.pack("<d", 11.5)))
    assert pl.read_parquet(path)["t"].to_list() == [10.0, 11.5]
    platform.sources["told"].lacking.add(window("00:15").key)
    assert collect(platform, platform.source("told"), window("00:15"), platform.now()).kept == 0
    assert pl.read_parquet(path)["t"].to_list() == [10.0] and Path(f"{path}.damaged").exists()


def _published_and_not_noted(platform, quarter: Window) -> bytes:
    """What a process leaves that was killed after it published a raw file, and before it noted it: a row more."""
    source, noted = platform.source("told"), platform.ledger.raw("told", quarter)
    file = platform.raws(source).open(noted.path)
    rows = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(file.batches())))
    more = rows.head(1).with_columns(pl.lit(12.0).alias("t"), pl.lit("late").alias("station_id"))
    batches = pl.concat([rows, more]).to_arrow().cast(pa.schema(next(iter(file.batches())).schema)).to_batches()
    platform.raws(source).write("told", quarter, file.collected, file.metadata, batches)
    return Path(noted.path).read_bytes()


def test_a_raw_file_whose_writer_was_killed_before_it_noted_it_is_not_taken_for_damaged(platform):
    quarter = window("00:15")
    collect(platform, platform.source("told"), quarter, platform.now())
    path = platform.ledger.raw("told", quarter).path
    newer = _published_and_not_noted(platform, quarter)
    with pytest.raises(PipelineError, match="collected again at this moment"):
        ingest(platform, platform.source("told"), quarter)
    assert Path(path).read_bytes() == newer and not Path(f"{path}.damaged").exists()
    assert collect(platform, platform.source("told"), quarter, platform.now()).kept == 1
    assert pl.read_parquet(path)["t"].to_list() == [10.0, 11.0, 12.0] and not Path(f"{path}.damaged").exists()
    ingest(platform, platform.source("told"), quarter)


@damages
def test_no_window_is_built_without_the_rows_of_a_raw_file_that_could_not_be_read(platform, damage):
    dataset, first = platform.dataset("told"), window("00:00", HOUR)
    for quarter in windows_between(START, START + HOUR, QUARTER):
        collect(platform, platform.source("told"), quarter, platform.now())
        ingest(platform, platform.source("told"), quarter)
    raw = platform.ledger.raw("told", window("00:15"))
    platform.ledger.record_raw(replace(raw, hash=""))  # as earlier versions did: it is read to be found damaged
    _damaged(raw.path, damage)
    rmtree("ionbeam-state/segments")
    for _ in range(2):
        with pytest.raises(PipelineError, match="told_20260621T001500_PT15M"):
            build(platform, dataset, first, platform.now(), insist=True)
    collect(platform, platform.source("told"), window("00:15"), platform.now())
    ingest(platform, platform.source("told"), window("00:15"))
    assert build(platform, dataset, first, platform.now()).revision.facts.rows == 8


def test_a_damaged_file_that_a_client_sent_stays_and_its_client_is_named(platform_of):
    platform = platform_of(SENT)
    raw = send(platform, MORNING, "a")
    _damaged(raw.path, DAMAGES["bytes"])
    with pytest.raises(PipelineError, match=f"{raw.path}.*ionbeam reingest sent --from"):
        ingest_raw(platform, platform.source("sent"), raw)
    assert Path(raw.path).exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Rust tells of it, too
def test_where_polars_panics_only_that_window_fails(platform, instance, monkeypatch):
    given = Told.fetch

    def fetch(source: Told, asked: Window):
        if asked == window("00:15"):
            damaged = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff" * 20]).buffers())
            pl.Series(damaged).to_list()
        yield from given(source, asked)

    monkeypatch.setattr(Told, "fetch", fetch)
    results = run_range(platform, "told", START, START + HOUR, instance)
    [(asset, failed, reason)] = [(r.asset, r.window, r.failure) for r in results if r.failure]
    assert (asset, failed) == ("told/raw", window("00:15")) and "PanicException" in reason


@damages
@pytest.mark.parametrize("is_noted", [True, False], ids=["noted", "not noted"])
@pytest.mark.parametrize("format", ["odb", "pygeoapi"])
def test_a_damaged_dataset_file_is_named_by_its_export_and_built_again(platform, damage, format, is_noted):
    path = _built_hour(platform, is_noted)
    _damaged(path, damage)
    dataset, first = platform.dataset("told"), window("00:00", HOUR)
    with pytest.raises(PipelineError, match=f"{path}.damaged.*materialise told/dataset"):
        export(platform, dataset, platform.config.exporters[format], first)
    assert build(platform, dataset, first, platform.now()).built
    assert export(platform, dataset, platform.config.exporters[format], first).report.rows == 8


@damages
@pytest.mark.parametrize("is_noted", [True, False], ids=["noted", "not noted"])
def test_who_insists_on_a_window_has_its_damaged_file_made_again(platform, damage, is_noted):
    path = _built_hour(platform, is_noted)
    whole = _damaged(path, damage)
    made = build(platform, platform.dataset("told"), window("00:00", HOUR), platform.now(), insist=True)
    assert made.built and Path(path).read_bytes() == whole and Path(f"{path}.damaged").exists()


@damages
@pytest.mark.parametrize("is_noted", [True, False], ids=["noted", "not noted"])
def test_what_an_export_finds_damaged_is_built_and_exported_again_at_once(platform, instance, damage, is_noted):
    path = _built_hour(platform, is_noted)
    whole, first = _damaged(path, damage), window("00:00", HOUR)
    doing = Doing(platform, instance)
    agenda.note(platform, [agenda.Work("export", f"told/{one}", first, "r1", "") for one in ("odb", "pygeoapi")], START)
    doing.dataset("told")
    assert not Path(path).exists() and Path(f"{path}.damaged").exists()
    [work] = agenda.due_of(platform, "build", "told", platform.now())
    assert work.window == first
    doing.dataset("told")
    assert Path(path).read_bytes() == whole
    assert all(agenda.export_is_current(platform, "told", one, first) for one in ("odb", "pygeoapi"))


def test_a_dataset_file_that_the_machine_cannot_read_now_stays(platform, monkeypatch):
    path = _built_hour(platform, is_noted=False)
    monkeypatch.setattr("ionbeam_dagster.stores.damage.pq.ParquetFile", _refusing)
    exporter = platform.config.window_exporters["pygeoapi"]
    monkeypatch.setattr(exporter, "export", _refusing)
    with pytest.raises(PipelineError, match="too many open files"):
        export(platform, platform.dataset("told"), exporter, window("00:00", HOUR))
    assert Path(path).exists()


def test_a_folder_where_a_file_belongs_is_put_aside_and_the_file_made_again(platform, instance, caplog):
    first = window("00:00", HOUR)
    run_range(platform, "told", START, START + HOUR, instance)
    made = [platform.ledger.raw("told", window("00:15")), platform.ledger.latest_revision("told", first)]
    made += [platform.ledger.export("told", first, format) for format in platform.dataset("told").exports]
    held = {path: path.read_bytes() for path in (Path(one.path) for one in made)}
    for path in held:
        path.unlink()
        (path / "x").mkdir(parents=True)
    results = run_range(platform, "told", START, START + HOUR, instance)
    assert [r.failure for r in results if r.failure] == []
    assert {path: path.read_bytes() for path in held} == held
    assert all(Path(f"{path}.damaged", "x").exists() and f"{path}: a folder stood" in caplog.text for path in held)


def test_a_file_where_a_folder_belongs_is_named_with_what_helps(platform):
    Path("data-raw").write_text("of somebody")
    with pytest.raises(PipelineError, match=r"told_20260621T001500_PT15M.*'data-raw.*Move away what stands there"):
        collect(platform, platform.source("told"), window("00:15"), platform.now())


def _refusing(*given, **named):
    raise OSError(errno.EMFILE, "too many open files")


def _built_hour(platform, is_noted: bool) -> str:
    """Where the dataset file of the first hour is; earlier versions did not note its hash."""
    for quarter in windows_between(START, START + HOUR, QUARTER):
        collect(platform, platform.source("told"), quarter, platform.now())
        ingest(platform, platform.source("told"), quarter)
    first = window("00:00", HOUR)
    built = build(platform, platform.dataset("told"), first, platform.now()).revision
    if not is_noted:
        earlier = replace(built, facts=replace(built.facts, hash=""))
        platform.ledger.record_revision(earlier, platform.ledger.claims("told", first))
    return built.path
