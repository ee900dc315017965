"""Files that are damaged without a change of their size: found in the end, named, kept, and made again."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_half_removed import SENT, send
from test_retention import FIRST as MORNING
from test_retention import LATER, quarters
from told import HOUR, QUARTER, START
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.decisions import Wait
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration.runs import reingest_range
from ionbeam_dagster.pipeline import agenda, contents
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.pipeline.retention import purge

TOLD = "  told: {start: 2026-06-21T00:00:00Z}"
FIRST, NOW = Window(START, START + HOUR), START + 24 * HOUR


@pytest.fixture
def platform(platform_with):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT15M}")
    platform.now = lambda: NOW
    for quarter in windows_between(START, START + 2 * HOUR, QUARTER):
        collect(platform, platform.source("told"), quarter, NOW)
        ingest(platform, platform.source("told"), quarter)
    build(platform, platform.dataset("told"), FIRST, NOW)
    for folder in ("data-raw", "data"):
        for path in Path(folder).rglob("*.parquet"):
            _written_long_ago(path)
    return platform


def _written_long_ago(path: Path) -> None:
    os.utime(path, ((NOW - HOUR).timestamp(),) * 2)


def _found(platform):
    return [work for work in reconcile(platform, NOW).work if work.stage != "export"]  # nothing was exported


def _damaged(path: Path) -> bytes:
    before = path.read_bytes()
    path.write_bytes(before[:100] + bytes(byte ^ 255 for byte in before[100:110]) + before[110:])
    _written_long_ago(path)
    return before


def test_a_damaged_raw_file_is_found_named_kept_and_collected_again(platform):
    raw = platform.ledger.raw("told", Window(START, START + QUARTER))
    before = _damaged(Path(raw.path))
    [work] = _found(platform)
    assert (work.stage, work.window) == ("collect", raw.window)
    assert "its raw file does not hold what was written" in work.reason and f"{raw.path}.damaged" in work.reason
    assert Path(f"{raw.path}.damaged").exists() and not Path(raw.path).exists()
    assert raw.window in {one.window for one in agenda.due_of(platform, "collect", "told", NOW)}
    collect(platform, platform.source("told"), raw.window, NOW)
    assert Path(raw.path).read_bytes() == before


def test_a_damaged_dataset_file_is_found_named_kept_and_built_again(platform):
    latest = platform.ledger.latest_revision("told", FIRST)
    before = _damaged(Path(latest.path))
    [work] = _found(platform)
    assert (work.stage, work.window) == ("build", FIRST) and f"{latest.path}.damaged" in work.reason
    assert FIRST in {one.window for one in agenda.due_of(platform, "build", "told", NOW)}
    build(platform, platform.dataset("told"), FIRST, NOW)
    assert Path(latest.path).read_bytes() == before


def test_a_damaged_dataset_file_of_a_sealed_window_that_nobody_builds_again_is_told_until_it_is_there(platform):
    latest = platform.ledger.latest_revision("told", FIRST)
    platform.ledger.seal("told", [FIRST], NOW)
    late = Window(START, START + QUARTER)
    platform.sources["told"].warmer[late.key] = 3.0
    collect(platform, platform.source("told"), late, NOW)
    ingest(platform, platform.source("told"), late)
    _written_long_ago(Path(platform.ledger.raw("told", late).path))
    _damaged(Path(latest.path))
    [sentence] = reconcile(platform, NOW).for_a_person
    assert f"{latest.path}.damaged" in sentence
    for _ in range(2):
        [sentence] = reconcile(platform, NOW).for_a_person
        assert sentence.startswith(f"{latest.path}: it is gone") and "sealed by a person" in sentence
        assert "ionbeam rebuild told --force --from 2026-06-21T00:00Z --to 2026-06-21T01:00Z" in sentence
    build(platform, platform.dataset("told"), FIRST, NOW, force=True)
    assert reconcile(platform, NOW).for_a_person == []


def test_a_person_is_told_of_a_damaged_file_of_a_sealed_window_also_where_nothing_is_known_to_have_come_late(platform):
    latest = platform.ledger.latest_revision("told", FIRST)
    unknown = replace(latest, facts=replace(latest.facts, made_of=None))  # as earlier versions noted it
    platform.ledger.record_revision(unknown, platform.ledger.claims("told", FIRST))
    platform.ledger.seal("told", [FIRST], NOW)
    platform.sources["told"].warmer[Window(START, START + QUARTER).key] = 3.0
    collect(platform, platform.source("told"), Window(START, START + QUARTER), NOW)
    ingest(platform, platform.source("told"), Window(START, START + QUARTER))
    _damaged(Path(latest.path))
    with pytest.raises(PipelineError, match=r"sealed.*ionbeam rebuild told --force"):
        build(platform, platform.dataset("told"), FIRST, NOW, insist=True)
    assert Path(latest.path).exists()
    build(platform, platform.dataset("told"), FIRST, NOW, force=True)
    assert build(platform, platform.dataset("told"), FIRST, NOW, insist=True).revision.revision.number == 2


def test_a_person_is_told_of_a_damaged_file_of_a_window_of_which_nothing_is_left_that_it_could_be_made_of(platform):
    latest = platform.ledger.latest_revision("told", FIRST)
    platform.ledger.seal("told", [FIRST], NOW)
    for quarter in windows_between(START, START + HOUR, QUARTER):
        raw = platform.ledger.raw("told", quarter)
        platform.ledger.record_purged(raw, NOW)
        Path(raw.path).unlink()
        platform.ledger.withdraw_claim(raw.ingestion)
    whole = _damaged(Path(latest.path))
    for fault in (f"(kept as {latest.path}.damaged)", "it is gone"):
        found = reconcile(platform, NOW)
        [sentence] = found.for_a_person
        assert sentence.startswith(f"{latest.path}: ") and fault in sentence
        assert "waits: nothing has been collected for this window yet" in sentence
        assert "ionbeam reingest told --from 2026-06-21T00:00Z --to 2026-06-21T01:00Z" in sentence
    Path(latest.path).write_bytes(whole)
    assert reconcile(platform, NOW).for_a_person == []


def test_a_person_is_told_of_a_damaged_file_whose_rows_were_purged_and_nobody_tries_to_build_it(
    platform, platform_with, instance
):
    latest = platform.ledger.latest_revision("told", FIRST)
    platform.ledger.seal("told", [FIRST], NOW)
    for quarter in windows_between(START, START + HOUR, QUARTER):
        raw = platform.ledger.raw("told", quarter)
        platform.ledger.record_purged(raw, NOW)
        Path(raw.path).unlink()
        platform.series.withdraw("told", raw.ingestion)
    whole = _damaged(Path(latest.path))
    for fault in (f"(kept as {latest.path}.damaged)", "it is gone"):
        found = reconcile(platform, NOW)
        assert [work for work in found.work if work.window == FIRST and work.stage == "build"] == []
        [sentence] = found.for_a_person
        assert fault in sentence and "rows that retention removed" in sentence
        assert "ionbeam reingest told --from 2026-06-21T00:00Z --to 2026-06-21T01:00Z" in sentence
        assert FIRST not in {one.window for one in agenda.due_of(platform, "build", "told", NOW)}
    kept, retaining = Path(f"{latest.path}.damaged"), platform_with(TOLD, retention="{quarantine: PT0S}")
    assert not purge(retaining, datetime.now(UTC) + HOUR).of_kind("damaged files") and kept.exists(), "all there is"
    told = " ".join(CliRunner().invoke(app, ["--config", "config.yaml", "status"]).output.split())
    assert f"{latest.path}: it is gone, and is not made again by itself" in told
    reingest_range(platform, "told", FIRST.start, FIRST.end, instance)
    assert Path(latest.path).read_bytes() == whole and reconcile(platform, NOW).for_a_person == []
    assert len(purge(retaining, datetime.now(UTC) + HOUR).of_kind("damaged files")) == 1 and not kept.exists()


def test_a_person_is_told_of_a_lost_file_whose_rows_stood_in_the_store_alone_and_nobody_tries_to_build_it(
    platform, instance
):
    quarter = Window(START, START + QUARTER)
    first = platform.ledger.raw("told", quarter)
    platform.ledger.record_purged(first, NOW)
    Path(first.path).unlink()
    platform.sources["told"].warmer[quarter.key] = 1.0
    collect(platform, platform.source("told"), quarter, NOW)
    ingest(platform, platform.source("told"), quarter)
    assert platform.ledger.raw("told", quarter).beside == (first.ingestion,)
    build(platform, platform.dataset("told"), FIRST, NOW)
    latest = platform.ledger.latest_revision("told", FIRST)
    platform.series.withdraw("told", first.ingestion)
    Path(latest.path).unlink()
    found = reconcile(platform, NOW)
    assert [work for work in found.work if work.window == FIRST and work.stage == "build"] == []
    [sentence] = found.for_a_person
    assert f"{latest.path}: it is gone, and is not made again by itself" in sentence, sentence
    assert "where one gives other rows now, with `--replace`" in sentence
    reingest_range(platform, "told", FIRST.start, FIRST.end, instance, replace=True)
    remade = platform.ledger.latest_revision("told", FIRST)
    assert remade.revision.number == latest.revision.number + 1 and Path(remade.path).exists()
    assert reconcile(platform, NOW).for_a_person == []


def test_nobody_is_told_of_a_lost_file_that_is_built_again_once_its_window_rests(platform, platform_with):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z, debounce: PT30M}", automation="{lookback: PT15M}")
    platform.now = lambda: NOW
    late = Window(START, START + QUARTER)
    platform.sources["told"].warmer[late.key] = 3.0
    collect(platform, platform.source("told"), late, NOW)
    ingest(platform, platform.source("told"), late)
    Path(platform.ledger.latest_revision("told", FIRST).path).unlink()
    assert isinstance(agenda.assess(platform, platform.dataset("told"), FIRST, NOW), Wait)
    assert reconcile(platform, NOW).for_a_person == []


def test_a_file_that_is_replaced_while_it_is_looked_at_is_not_set_aside(platform, monkeypatch):
    raw = platform.ledger.raw("told", Window(START, START + QUARTER))
    before, found = _damaged(Path(raw.path)), contents.file_hash

    def meanwhile(path: Path) -> str:
        hash = found(path)
        if path == Path(raw.path):
            path.write_bytes(before)
        return hash

    monkeypatch.setattr(contents, "file_hash", meanwhile)
    assert _found(platform) == [] and Path(raw.path).read_bytes() == before


def test_a_file_that_its_disk_cannot_read_is_told_and_holds_up_no_other(platform, monkeypatch):
    found, latest = contents.file_hash, platform.ledger.latest_revision("told", FIRST)

    def failing(path: Path) -> str:
        if path == Path(latest.path):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return found(path)

    monkeypatch.setattr(contents, "file_hash", failing)
    raw = platform.ledger.raw("told", Window(START, START + QUARTER))
    _damaged(Path(raw.path))
    done = reconcile(platform, NOW)
    [sentence] = done.for_a_person
    assert latest.path in sentence and "Input/output error" in sentence and "its disk" in sentence
    assert raw.window in [work.window for work in done.work] and Path(latest.path).exists()


def test_however_little_a_pass_looks_at_every_file_is_come_to_by_whoever_goes_on(platform, platform_with, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.pipeline.contents.MOST_FILES", 2)
    last = platform.ledger.raw("told", Window(START + HOUR + 3 * QUARTER, START + 2 * HOUR))
    _damaged(Path(last.path))
    passes = 0
    while not (found := _found(platform)):
        passes += 1
        platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT15M}")
        platform.now = lambda: NOW
    assert passes == 4 and [work.window for work in found] == [last.window]  # one dataset file and eight raw files
    assert platform.ledger.reconciliations.reached() == ""


@pytest.mark.parametrize(
    "damage, fault",
    [
        (lambda whole: whole[:-4] + b"????", "its raw file is damaged"),
        (lambda whole: whole[:100] + b"????" + whole[104:], "its raw file does not hold what was written"),
    ],
    ids=["footer", "rows"],
)
def test_a_damaged_file_that_a_client_sent_is_for_a_person_and_stays_where_it_is(platform_of, damage, fault):
    platform = platform_of(SENT)
    path = Path(send(platform, MORNING, "a").path)
    ingest(platform, platform.source("sent"), quarters(MORNING)[0])
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    os.utime(path, ((LATER - timedelta(days=1)).timestamp(),) * 2)
    [told] = reconcile(platform, LATER).for_a_person
    assert fault in told and "ionbeam reingest sent --from" in told and path.exists()


def test_a_file_that_was_written_since_its_folder_was_listed_is_not_damaged(platform, monkeypatch):
    listed = platform.files.listed
    older = {path: replace(file, size=file.size - 1) for path, file in listed("data-raw/told").items()}
    assert older
    monkeypatch.setattr(platform.files, "listed", lambda root: older if root == "data-raw/told" else listed(root))
    assert _found(platform) == []


def test_a_raw_file_of_another_size_is_damaged(platform):
    raw = platform.ledger.raw("told", Window(START, START + QUARTER))
    Path(raw.path).write_bytes(Path(raw.path).read_bytes() + b"more")
    [work] = _found(platform)
    assert work.window == raw.window and f"bytes instead of {raw.bytes}" in work.reason


@pytest.fixture
def exported(platform_with):
    """A platform with two windows, and the exports of both."""
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z, exports: [pygeoapi]}")
    platform.now = lambda: NOW
    dataset, exporter = platform.dataset("told"), platform.config.window_exporters["pygeoapi"]
    for quarter in windows_between(START, START + 2 * HOUR, QUARTER):
        collect(platform, platform.source("told"), quarter, NOW)
        ingest(platform, platform.source("told"), quarter)
    for window in (FIRST, Window(FIRST.end, FIRST.end + HOUR)):
        build(platform, dataset, window, NOW)
        export(platform, dataset, exporter, window)
    return platform


def test_a_damaged_export_is_kept_and_made_again_or_stays_where_it_cannot_be(exported):
    made = exported.ledger.export("told", FIRST, "pygeoapi")
    _damaged(Path(made.path))
    latest = Path(exported.ledger.latest_revision("told", FIRST).path)
    whole = latest.read_bytes()
    latest.unlink()
    found = reconcile(exported, NOW)
    assert [work for work in found.work if work.stage == "export"] == [] and Path(made.path).exists()
    [sentence] = [told for told in found.for_a_person if made.path in told]
    assert "its export" in sentence and "ionbeam rebuild told --force" in sentence
    latest.write_bytes(whole)
    [work] = [work for work in reconcile(exported, NOW).work if work.stage == "export"]
    assert work.window == FIRST and f"{made.path}.damaged" in work.reason and not Path(made.path).exists()


def test_exports_are_looked_for_a_portion_a_step_and_every_one_is_come_to(exported, monkeypatch):
    monkeypatch.setattr("ionbeam_dagster.pipeline.contents._AT_ONCE", 1)
    monkeypatch.setattr("ionbeam_dagster.pipeline.contents.MOST_FILES", 1)
    last = exported.ledger.export("told", Window(FIRST.end, FIRST.end + HOUR), "pygeoapi")
    first = exported.ledger.export("told", FIRST, "pygeoapi")
    exported.ledger.record_export(replace(first, facts=replace(first.facts, hash="")))  # an earlier version made it
    for path in Path().rglob("*.parquet"):
        _written_long_ago(path)
    assert None in list(contents.looked_at_all(exported, NOW, []))
    exported.ledger.reconciliations.reach("export told/pygeoapi\n/a/path/as/earlier/versions/noted/it.json")
    _damaged(Path(last.path))
    while not (found := [work for work in reconcile(exported, NOW).work if work.stage == "export"]):
        assert exported.ledger.reconciliations.reached() != ""
    assert [work.window for work in found] == [last.window]
