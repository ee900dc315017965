"""The agenda on a clock that a test sets: work is never forgotten, never done twice, and waits at most ten minutes."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from told import HOUR, QUARTER, START, Told

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window, window_of, windows_between
from ionbeam_dagster.errors import IonbeamError
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import Work, due, due_of, export_is_current, misfits, outdated, to_export
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.stores.ledger.attempts import LONGEST_WAIT, Failure

YAML = """
automation: {{lookback: PT1H}}
sources:
  told: {{start: 2026-06-20, exports: [pygeoapi], allow_incomplete: always, data_path: {0}/raw}}
state_path: {0}/state
dataset_aggregator: {{data_path: {0}/data}}
projections: {{pygeoapi_service: {{output_path: {0}/exports}}}}
"""
KINDS = ("raw", "data", "exports")
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def do(platform: Platform, work: Work, now: datetime) -> None:
    """Do a line of the agenda, as a run does."""
    stage, of = work.stage, work.of.partition("/")[0]
    agenda.begin(platform, [work], now)
    in_hand = agenda.in_hand(platform, stage, work.of)
    failed = {}
    try:
        match stage:
            case "collect":
                collect(platform, platform.source(of), work.window, now)
            case "ingest":
                ingest(platform, platform.source(of), work.window)
            case "build":
                build(platform, platform.dataset(of), work.window, now)
            case "export":
                export(
                    platform,
                    platform.dataset(of),
                    platform.config.window_exporters[work.of.partition("/")[2]],
                    work.window,
                )
    except IonbeamError as error:
        failed = {work.window: Failure(str(error))}
    in_hand.settle([] if failed else [work.window], failed, now)


class Operation(RuleBasedStateMachine):
    """A platform through whatever may happen to it; at the end all is well for long enough, and all must be there."""

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory(dir=IN_MEMORY)
        self.place = Path(self.folder.name)
        (self.place / "config.yaml").write_text(YAML.format(self.place))
        self.clock = self.furthest = START + 6 * HOUR
        self.outage = False
        self.given: set[Window] = set()
        self.done: set[Work] = set()
        self.open()

    def open(self) -> None:
        with pytest.MonkeyPatch.context() as patched:
            kinds = {"told": SimpleNamespace(load=lambda: Told)}
            patched.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: kinds)
            self.platform = open_platform(IonbeamConfig.load(self.place / "config.yaml"))
        self.platform.now = lambda: self.clock
        self.platform.sources["told"].failing = _Everything() if self.outage else set()

    @rule(seconds=st.sampled_from([1, 15, 60, 900, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.clock += timedelta(seconds=seconds)

    @rule(hours=st.sampled_from([-1, 1]))
    def the_clock_jumps(self, hours: int) -> None:
        self.furthest = max(self.furthest, self.clock)
        self.clock += timedelta(hours=hours)
        self.done.clear()

    @rule()
    def an_outage_begins_or_ends(self) -> None:
        self.outage = not self.outage
        self.platform.sources["told"].failing = _Everything() if self.outage else set()

    @rule(seconds=st.sampled_from([60, 4000, 90000]))
    def an_outage_lasts(self, seconds: int) -> None:
        """Longer than the platform looks back, or not; whoever looks during it finds the work due."""
        self.an_outage_begins_or_ends()
        self.work_is_done()
        self.clock += timedelta(seconds=seconds)
        self.work_is_done()
        self.an_outage_begins_or_ends()

    @rule(kind=st.sampled_from(KINDS), which=st.integers(0, 50))
    def a_file_is_lost(self, kind: str, which: int) -> None:
        if files := self.files(kind):
            files[which % len(files)].unlink()
            self.done.clear()

    @rule(mark=st.sampled_from("abc"))
    def a_window_changes(self, mark: str) -> None:
        window = window_of(self.clock - HOUR, QUARTER)
        change = agenda.replacing(self.platform, "told", window, "it changed", mark)
        agenda.note(self.platform, [change], self.clock)
        self.done.discard(change)  # what changed there and back is to be collected again
        self.given.add(window)

    @rule()
    def the_ledger_is_emptied(self) -> None:
        for path in (self.place / "state").glob("ledger.sqlite*"):
            path.unlink()
        self.done.clear()
        self.open()
        self.given = {window for window in self.given if self.platform.ledger.raw("told", window)}

    @rule()
    def files_are_compared(self) -> None:
        reconcile(self.platform, self.clock)

    @rule()
    def work_is_done(self) -> None:
        for work in due(self.platform, self.clock):
            if work.stage == "collect":
                self.given.add(work.window)
            assert work not in self.done, "it succeeded, and nothing was lost since"
            do(self.platform, work, self.clock)
            opened = {(one.stage, one.product, one.window) for one in self.platform.ledger.attempts.open()}
            if (work.stage, work.of, work.window) not in opened:
                self.done.add(work)
        for kind in KINDS:  # what was written just now is of this clock
            for path in self.files(kind):
                if path.stat().st_mtime > (START + timedelta(days=30)).timestamp():
                    os.utime(path, (self.clock.timestamp(),) * 2)

    @invariant()
    def nothing_waits_longer_than_ten_minutes(self) -> None:
        if not hasattr(self, "platform"):
            return
        for one in self.platform.ledger.attempts.open():
            if one.tries:
                assert one.may_begin(self.clock) or one.next - self.clock <= LONGEST_WAIT

    def files(self, kind: str) -> list[Path]:
        return sorted(path for path in (self.place / kind).rglob("*.parquet") if not path.name.startswith("."))

    def teardown(self) -> None:
        if not hasattr(self, "platform"):
            return
        self.outage = False
        self.platform.sources["told"].failing = set()
        ahead = max(self.furthest - self.clock, HOUR)
        for _ in range(ahead // LONGEST_WAIT + 8):  # beyond what a clock was ahead
            self.clock += LONGEST_WAIT
            self.files_are_compared()
            for _ in range(4):  # from raw to export
                self.work_is_done()
        ledger = self.platform.ledger
        for window in self.given:
            raw = ledger.raw("told", window)
            assert raw is not None and Path(raw.path).exists() and raw.rows == 2, f"{window} is forgotten"
            assert ledger.claims_of([raw.ingestion]), f"{window} is not ingested"
            hour = window_of(window.start, HOUR)
            if hour.end <= self.clock:
                assert Path(ledger.latest_revision("told", hour).path).exists(), f"{hour} is not built"
                assert export_is_current(self.platform, "told", "pygeoapi", hour), f"{hour} is not exported"
        assert ledger.attempts.open() == []
        self.folder.cleanup()


class _Everything(set[str]):
    def __contains__(self, key: object) -> bool:
        return True


TestOperation = Operation.TestCase
TestOperation.settings = settings(max_examples=4, stateful_step_count=12, deadline=None, derandomize=True)


@pytest.mark.soak
def test_operation_for_long():
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Operation, settings=settings(max_examples=300, stateful_step_count=40, deadline=None))


@pytest.fixture
def built(platform_with):
    """A platform with an hour built and exported; its clock stands two hours later."""
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z, exports: [odb, pygeoapi]}")
    platform.now = lambda: START + 3 * HOUR
    for quarter in range(4):
        collect(
            platform,
            platform.source("told"),
            Window(START + quarter * QUARTER, START + (quarter + 1) * QUARTER),
            platform.now(),
        )
        ingest(platform, platform.source("told"), Window(START + quarter * QUARTER, START + (quarter + 1) * QUARTER))
    build(platform, platform.dataset("told"), FIRST, platform.now())
    for format in ("odb", "pygeoapi"):
        export(platform, platform.dataset("told"), platform.config.window_exporters[format], FIRST)
    return platform


FIRST = Window(START, START + HOUR)


@pytest.mark.parametrize("trigger", ["PT5M", "PT15M"])
def test_a_window_whose_collection_began_before_its_end_is_collected_once_more(platform_with, trigger):
    platform = platform_with(
        f"  scheduler: {{windows: [{{source_name: told, window_size: PT15M, trigger_interval: {trigger}}}]}}\n"
        "  told: {start: 2026-06-21T00:00:00Z}",
        automation="{lookback: PT15M}",
    )
    quarter = Window(START, START + QUARTER)
    before, after = (quarter.end + timedelta(seconds=seconds) for seconds in (-10, 20))
    collect(platform, platform.source("told"), quarter, before)
    _written(platform, quarter, quarter.end + timedelta(seconds=5))  # it took a while to be fetched
    ingest(platform, platform.source("told"), quarter)
    platform.now = lambda: after
    assert quarter in {work.window for work in due_of(platform, "collect", "told", after)}
    assert agenda.needs_collecting(platform, "told", quarter)
    collect(platform, platform.source("told"), quarter, after)
    _written(platform, quarter, after)
    ingest(platform, platform.source("told"), quarter)
    assert quarter not in {work.window for work in due_of(platform, "collect", "told", after)}
    assert not agenda.needs_collecting(platform, "told", quarter)


def _written(platform: Platform, window: Window, at: datetime) -> None:
    os.utime(platform.ledger.raw("told", window).path, (at.timestamp(),) * 2)


@pytest.mark.parametrize("remake_outdated", ["false", "true"])
def test_a_lost_export_of_a_sealed_window_comes_back_although_a_correction_came_too_late(
    platform_with, monkeypatch, remake_outdated
):
    platform = platform_with(
        "  told: {start: 2026-06-21T00:00:00Z, exports: [pygeoapi], revise_for: PT2H}",
        automation=f"{{remake_outdated: {remake_outdated}}}",
    )
    first, late = START + HOUR, START + 30 * HOUR
    platform.now = lambda: first
    for quarter in windows_between(START, START + HOUR, QUARTER):
        collect(platform, platform.source("told"), quarter, first)
        ingest(platform, platform.source("told"), quarter)
    build(platform, platform.dataset("told"), FIRST, first)
    export(platform, platform.dataset("told"), platform.config.window_exporters["pygeoapi"], FIRST)
    platform.now = lambda: late
    platform.sources["told"].warmer[FIRST.key] = 3.0
    collect(platform, platform.source("told"), Window(START, START + QUARTER), late)
    ingest(platform, platform.source("told"), Window(START, START + QUARTER))
    monkeypatch.setattr("ionbeam_dagster.domain.quality.VERSION", "another")
    Path(platform.ledger.export("told", FIRST, "pygeoapi").path).unlink()
    reconcile(platform, late)
    [work] = due_of(platform, "export", "told/pygeoapi", late)
    assert (work.window, work.reason) == (FIRST, "its file is lost or damaged")
    do(platform, work, late)
    assert export_is_current(platform, "told", "pygeoapi", FIRST)
    reconcile(platform, late)
    assert due_of(platform, "export", "told/pygeoapi", late) == []


def test_a_clock_that_is_put_back_has_nothing_forgotten(platform_with):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT1H}")
    quarter = Window(START + HOUR, START + HOUR + QUARTER)
    platform.sources["told"].failing = {quarter.key}
    for work in due_of(platform, "collect", "told", quarter.end):
        do(platform, work, quarter.end)
    assert due_of(platform, "collect", "told", START) == []
    days_later = START + 72 * HOUR
    assert quarter in {work.window for work in due_of(platform, "collect", "told", days_later)}


def test_what_failed_is_remembered_at_one_look_at_each_window(platform_with, monkeypatch):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT6H}")
    now = START + 6 * HOUR
    windows = list(windows_between(START, now, QUARTER))
    asked = []
    raw = platform.ledger.raw
    monkeypatch.setattr(platform.ledger, "raw", lambda source, window: asked.append(window) or raw(source, window))
    agenda.in_hand(platform, "collect", "told").settle([], dict.fromkeys(windows, Failure("no answer")), now)
    assert [one.window for one in platform.ledger.attempts.open("collect", "told")] == windows
    assert max(asked.count(window) for window in windows) <= 2  # once to collect it, and once to ingest it


def test_what_another_exporter_made_is_told_and_made_again_only_where_the_configuration_says_so(built, monkeypatch):
    assert outdated(built, built.dataset("told"), START, START + HOUR) == []
    monkeypatch.setattr(type(built.config.window_exporters["odb"]), "version", "another")
    assert outdated(built, built.dataset("told"), START, START + HOUR) == [FIRST]
    assert to_export(built, "told/odb", FIRST) is None
    assert to_export(built, "told/odb", FIRST, renew=True).reason == "an older exporter made it"
    assert to_export(built, "told/pygeoapi", FIRST, renew=True) is None
    reconcile(built, built.now())
    assert due_of(built, "export", "told/odb", built.now()) == []


def test_what_an_earlier_version_wrote_without_saying_who_made_it_is_current(built, monkeypatch):
    from dataclasses import replace

    latest, made = built.ledger.latest_revision("told", FIRST), built.ledger.export("told", FIRST, "odb")
    built.ledger.record_export(replace(made, made_by=""))
    built.ledger.record_revision(replace(latest, facts=replace(latest.facts, made_by="")), [])
    monkeypatch.setattr(type(built.config.window_exporters["odb"]), "version", "another")
    assert outdated(built, built.dataset("told"), START, START + HOUR) == []


def test_raw_partitions_of_windows_of_another_length_are_no_work_for_ever(built, platform_with):
    longer = platform_with(
        "  scheduler: {windows: [{source_name: told, window_size: PT30M, trigger_interval: PT30M}]}\n"
        "  told: {start: 2026-06-21T00:00:00Z, exports: [odb, pygeoapi]}"
    )
    for quarter in windows_between(START, START + HOUR, QUARTER):
        _written(built, quarter, built.now())
    half = Window(START + HOUR / 2, START + HOUR)
    collect(longer, longer.source("told"), half, built.now())
    _written(longer, half, built.now())
    ingest(longer, longer.source("told"), half)  # in the place of two quarters
    Path(built.ledger.raw("told", Window(START, START + QUARTER)).path).unlink()
    found = reconcile(longer, built.now())
    assert [work for work in found.work if work.stage in ("collect", "ingest")] == []


def test_a_configuration_that_no_longer_fits_is_told(built, platform_with):
    assert misfits(built) == []
    [told] = misfits(platform_with("  told: {start: 2026-06-21T00:00:00Z, aggregation_span: PT30M}"))
    assert "aggregation_span PT30M" in told and "windows of PT1H" in told
