"""What comes, ends or fails while work is going on: it is noticed, done in the end, and told when it takes too long."""

from __future__ import annotations

from datetime import timedelta

import pytest
from told import HOUR, QUARTER, START

from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.orchestration.runs import run_range
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import due_of, overdue
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.stores.ledger.attempts import Failure

FIRST = Window(START, START + QUARTER)
FINER = "  scheduler: {windows: [{source_name: told, window_size: PT15M, trigger_interval: PT5M, window_lag: PT10M}]}\n"


def collected(platform, work, now) -> None:
    """Do the work of collecting a window, as a run does."""
    agenda.begin(platform, [work], now)
    in_hand = agenda.in_hand(platform, "collect", "told")
    collect(platform, platform.source("told"), work.window, now)
    in_hand.settle([work.window], {}, now)


def test_a_change_that_is_noted_while_its_window_is_collected_is_collected_too(platform_with):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT15M}")
    now, later = START + 2 * HOUR, START + 2 * HOUR + timedelta(seconds=1)
    source, fetch = platform.sources["told"], platform.sources["told"].fetch
    agenda.note(platform, [agenda.replacing(platform, "told", FIRST, "it changed", "a")], now)

    def changing(window):
        yield from fetch(window)
        source.warmer[window.key] = 5.0
        agenda.note(platform, [agenda.replacing(platform, "told", FIRST, "it changed", "b")], now)

    source.fetch = changing
    [first] = [work for work in due_of(platform, "collect", "told", now) if work.window == FIRST]
    collected(platform, first, now)
    source.fetch = fetch
    before = platform.ledger.raw("told", FIRST)
    [again] = [work for work in due_of(platform, "collect", "told", later) if work.window == FIRST]
    collected(platform, again, later)
    assert platform.ledger.raw("told", FIRST).ingestion != before.ingestion
    assert FIRST not in {work.window for work in due_of(platform, "collect", "told", later + HOUR)}


def test_a_window_that_was_replaced_is_given_to_nobody_while_its_run_goes_on(platform_with, instance):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT15M}")
    source, fetch, due = platform.sources["told"], platform.sources["told"].fetch, []
    quarters = list(windows_between(START, START + HOUR, QUARTER))
    agenda.note(platform, [agenda.replacing(platform, "told", one, "it changed") for one in quarters], START + HOUR)

    def looking(window):
        found = {work.window for work in due_of(platform, "collect", "told", START + 10 * HOUR)}
        due.append([quarter for quarter in quarters if quarter in found])
        yield from fetch(window)

    source.fetch = looking
    run_range(platform, "told", START, START + HOUR, instance)
    assert due == [quarters[number:] for number in range(4)]


def test_what_is_noted_while_the_agenda_looks_is_not_dropped(platform_with, monkeypatch):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT15M}")
    now = START + 2 * HOUR
    collect(platform, platform.source("told"), FIRST, now)
    raw = platform.ledger.raw("told", FIRST)
    agenda.note(platform, [agenda.Work("collect", "told", FIRST, str(agenda.Lost(raw.ingestion)), "lost")], now)
    known = platform.ledger.raw

    def meanwhile(source, window):
        found = known(source, window)
        if window == FIRST:
            monkeypatch.setattr(platform.ledger, "raw", known)
            agenda.note(platform, [agenda.replacing(platform, "told", FIRST, "it changed", "b")], now)
        return found

    monkeypatch.setattr(platform.ledger, "raw", meanwhile)
    assert FIRST not in {work.window for work in due_of(platform, "collect", "told", now)}
    assert FIRST in {work.window for work in due_of(platform, "collect", "told", now)}


@pytest.mark.parametrize("section", [FINER, FINER.replace("PT5M", "PT15M")])
def test_a_window_that_was_asked_for_before_its_lag_was_over_is_collected_once_more(platform_with, section):
    platform = platform_with(f"{section}  told: {{start: 2026-06-21T00:00:00Z}}", automation="{lookback: PT15M}")
    over = FIRST.end + timedelta(minutes=10)
    collect(platform, platform.source("told"), FIRST, over - timedelta(seconds=10))  # its answer comes after the lag
    ingest(platform, platform.source("told"), FIRST)
    after = over + timedelta(seconds=20)
    platform.now = lambda: after
    assert agenda.needs_collecting(platform, "told", FIRST)
    assert FIRST in {work.window for work in due_of(platform, "collect", "told", after)}
    collect(platform, platform.source("told"), FIRST, after)
    assert not agenda.needs_collecting(platform, "told", FIRST)
    assert FIRST not in {work.window for work in due_of(platform, "collect", "told", after)}


def test_a_trigger_of_a_clock_that_was_ahead_waits_until_it_comes(platform_with):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT1H}")
    source, opened = platform.sources["told"], Window(START + 2 * HOUR, START + 2 * HOUR + QUARTER)
    source.failing = {opened.key}
    for work in due_of(platform, "collect", "told", opened.end):
        agenda.begin(platform, [work], opened.end)
    before = opened.start + timedelta(minutes=5)
    assert opened not in {work.window for work in due_of(platform, "collect", "told", before)}
    assert opened in {work.window for work in due_of(platform, "collect", "told", opened.end + timedelta(minutes=11))}


@pytest.mark.parametrize("debounce", ["PT0S", "PT1M"])
def test_a_build_that_always_fails_is_told_although_ever_more_arrives(platform_with, debounce):
    platform = platform_with(
        f"  told: {{start: 2026-06-21T00:00:00Z, allow_incomplete: always, debounce: {debounce}}}",
        automation="{lookback: PT1H}",
    )
    hour, clock = Window(START, START + HOUR), START + HOUR
    platform.now = lambda: clock
    for quarter in windows_between(hour.start, hour.end, QUARTER):
        collect(platform, platform.source("told"), quarter, clock)
        ingest(platform, platform.source("told"), quarter)
    failed = []
    for minute in range(75):
        clock = START + HOUR + timedelta(minutes=minute)
        if minute % 10 == 5:
            platform.sources["told"].warmer[FIRST.key] = float(minute)
            collect(platform, platform.source("told"), FIRST, clock)
            ingest(platform, platform.source("told"), FIRST)
        for work in due_of(platform, "build", "told", clock):
            agenda.begin(platform, [work], clock)
            in_hand = agenda.in_hand(platform, "build", "told")
            in_hand.settle([], {hour: Failure("the disk is full")}, clock)
            failed.append(clock)
    [told] = overdue(platform, clock)
    assert (told.window, told.since, told.failures) == (hour, failed[0], len(failed))
    assert told.error == "the disk is full" and failed[0] <= START + HOUR + timedelta(minutes=2)


def test_reconciliation_asks_for_the_open_work_no_more_often_where_there_is_more_to_do(platform_with, monkeypatch):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT15M}")
    now = START + 24 * HOUR
    for quarter in windows_between(START, START + 20 * HOUR, QUARTER):
        collect(platform, platform.source("told"), quarter, now)
    asked = []
    attempts = type(platform.ledger.attempts)
    opened = attempts.open
    monkeypatch.setattr(attempts, "open", lambda *given: asked.append(given) or opened(*given))
    monkeypatch.setattr("ionbeam_dagster.pipeline.reconciliation._AT_ONCE", 4)
    found = reconcile(platform, now)
    assert len(found.work) == 80 and len(asked) <= 2
    assert reconcile(platform, now).work == []


def test_work_that_a_run_did_not_come_to_has_not_failed_itself(platform_with):
    platform = platform_with("  told: {start: 2026-06-21T00:00:00Z}", automation="{lookback: PT1H}")
    now = START + HOUR
    windows = [work.window for work in due_of(platform, "collect", "told", now)]
    in_hand = agenda.in_hand(platform, "collect", "told")
    failures = [Failure("no answer"), *[Failure("not tried", was_tried=False)] * (len(windows) - 1)]
    in_hand.settle([], dict(zip(windows, failures, strict=True)), now)
    assert agenda.in_hand(platform, "collect", "told").failed_before == {windows[0]}
