"""Removals that are killed half-way, and what retention used to keep for ever. On real stores."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_retention import DAY, FIRST, HOUR, LATER, MORNING, NETWORK, files, finish, quarters, take_in

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline import removals
from ionbeam_dagster.pipeline.agenda import needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.pipeline.retention import purge

SENT = """
  scheduler: {windows: [{source_name: sent, window_size: PT15M}]}
  sent: {type: ioncannon, kind: external, start: 2026-06-21T06:00:00Z, aggregation_span: PT1H}
"""


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", ["delete", "record_purged"])
@pytest.mark.parametrize("done", [False, True])
def test_a_purge_that_is_killed_has_nothing_collected_again_and_leaves_no_file(platform_of, monkeypatch, at, done):
    platform = platform_of(NETWORK % "", dataset_aggregator="{delete_after_export: true}")
    take_in(platform, *quarters(FIRST))
    finish(platform, FIRST)
    owner = platform.files if at == "delete" else platform.ledger
    real = getattr(owner, at)

    def killed(*given):
        if done:
            real(*given)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(owner, at, killed)
        purge(platform, LATER)
    lost = [quarter for quarter in quarters(FIRST) if needs_collecting(platform, "ioncannon", quarter)]
    assert (
        lost == [] and [work for work in reconcile(platform, datetime.now(UTC)).work if work.stage == "collect"] == []
    )
    assert purge(platform, LATER).failed == ()
    assert files("data-raw") == set() and purge(platform, LATER).gone == ()


def send(platform, collected: Window, name: str, replaces: bool = False) -> RawPartition:
    source = platform.sources["sent"]
    raw = platform.raws(platform.source("sent")).write_sent(
        "sent", name, collected, source.metadata, source.fetch(collected), replaces
    )
    touched = list(windows_between(max(collected.start, MORNING), collected.end, timedelta(minutes=15)))
    platform.ledger.record_sent([(raw, touched)])
    return raw


@pytest.mark.parametrize("who", ["purge", "reconcile"])
def test_an_ingest_that_is_killed_leaves_no_replaced_file_that_nobody_knows(platform_of, monkeypatch, who):
    platform = platform_of(SENT)
    old = send(platform, FIRST, "a")
    ingest(platform, platform.source("sent"), quarters(FIRST)[0])
    new = send(platform, FIRST, "b", replaces=True)

    def killed(path):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(platform.files, "delete", killed)
        ingest(platform, platform.source("sent"), quarters(FIRST)[0])
    assert Path(old.path).exists()
    purge(platform, LATER) if who == "purge" else reconcile(platform, LATER)
    assert not Path(old.path).exists() and Path(new.path).exists()


@pytest.mark.parametrize("who", ["purge", "reconcile"])
def test_a_file_that_is_collected_again_before_its_removal_goes_on_stays(platform_of, monkeypatch, who):
    platform = platform_of(NETWORK % "")
    take_in(platform, quarters(FIRST)[0])
    raw = platform.ledger.raw("ioncannon", quarters(FIRST)[0])
    platform.ledger.removals.intend([(raw, "")])
    platform.ledger.record_purged(raw, LATER)
    pending = platform.ledger.removals.pending

    def and_meanwhile() -> list[str]:
        found = pending()
        collect(platform, platform.source("ioncannon"), raw.window, LATER)
        return found

    monkeypatch.setattr(platform.ledger.removals, "pending", and_meanwhile)
    purge(platform, LATER) if who == "purge" else reconcile(platform, LATER)
    assert Path(raw.path).exists()


@pytest.mark.parametrize("who", ["purge", "reconcile"])
def test_a_file_that_is_collected_again_and_not_recorded_yet_stays(platform_of, monkeypatch, who):
    platform = platform_of(NETWORK % "")
    take_in(platform, quarters(FIRST)[0])
    raw = platform.ledger.raw("ioncannon", quarters(FIRST)[0])

    def killed() -> None:
        platform.ledger.record_purged(raw, LATER)
        raise Killed

    with pytest.raises(Killed):
        removals.remove(platform, [raw], killed)
    record = platform.ledger.record_raw

    def and_meanwhile(raw: RawPartition) -> None:
        purge(platform, LATER) if who == "purge" else reconcile(platform, LATER)
        record(raw)

    monkeypatch.setattr(platform.ledger, "record_raw", and_meanwhile)
    collect(platform, platform.source("ioncannon"), raw.window, LATER)
    assert Path(raw.path).exists() and platform.ledger.removals.pending() == []


def test_a_damaged_file_that_was_set_aside_goes_once_it_lay_there_for_as_long_as_what_is_in_quarantine(platform_of):
    platform, now = platform_of(NETWORK % "", retention="{quarantine: P1D}"), datetime.now(UTC)
    take_in(platform, quarters(FIRST)[0])
    raw = Path(platform.ledger.raw("ioncannon", quarters(FIRST)[0]).path)
    os.utime(raw, ((now - 30 * DAY).timestamp(),) * 2)
    kept = platform.files.set_aside(str(raw))
    (raw / "of somebody").mkdir(parents=True)
    with platform.files.published(str(raw)) as draft:
        draft.write_bytes(b"x")
    assert purge(platform, now).gone == () and Path(kept, "of somebody").exists()
    [gone] = purge(platform, now + 2 * DAY).gone
    assert (gone.kind, gone.of, gone.what) == ("damaged files", "ioncannon", kept)
    assert not Path(kept).exists() and purge(platform, now + 2 * DAY).gone == ()


def test_what_clients_sent_across_the_start_of_their_source_is_purged_as_the_rest(platform_of):
    platform = platform_of(SENT, dataset_aggregator="{delete_after_export: true}")
    raw = send(platform, Window(MORNING - HOUR, MORNING + HOUR), "early")
    ingest(platform, platform.source("sent"), quarters(FIRST)[0])
    build(platform, platform.dataset("sent"), FIRST, LATER)
    for format in ("odb", "pygeoapi"):
        export(platform, platform.dataset("sent"), platform.config.window_exporters[format], FIRST)
    assert [one.what for one in purge(platform, LATER).of_kind("raw partitions")] == [raw.path]


def test_a_sealed_window_into_which_a_correction_came_too_late_loses_the_rest_of_what_it_was_made_of(platform_of):
    platform = platform_of(NETWORK % ", revise_for: P2D", retention="{raw: P30D}")
    platform.now = lambda: MORNING + 2 * HOUR
    take_in(platform, *quarters(FIRST))
    finish(platform, FIRST)
    corrected = quarters(FIRST)[0]
    platform = platform_of(NETWORK % ", revise_for: P2D, seed: 7", retention="{raw: P30D}")
    platform.now = lambda: LATER
    collect(platform, platform.source("ioncannon"), corrected, LATER)
    ingest(platform, platform.source("ioncannon"), corrected)
    assert not platform.ledger.latest_revision("ioncannon", FIRST).revision.intact
    platform.now = lambda: LATER + 40 * DAY
    gone = {one.what for one in purge(platform, LATER + 40 * DAY).of_kind("raw partitions")}
    kept = platform.ledger.raw("ioncannon", corrected).path
    assert len(gone) == 3 and kept not in gone and Path(kept).exists(), "what came too late is kept"
