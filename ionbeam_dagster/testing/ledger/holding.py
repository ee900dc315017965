"""Locks, and who is alive."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Event, Thread

import pytest

from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.alerts import Alert
from ionbeam_dagster.stores.ledger.silences import Silence
from ionbeam_dagster.testing.ledger.samples import (
    HOUR,
    NEXT,
    NOON,
    WINDOW,
    Suite,
)


def _hold(open_ledger: Callable[[], Ledger], pipe: Connection) -> None:
    with open_ledger().holding("crowd", WINDOW):
        pipe.send("held")
        pipe.recv()


def _do(open_ledger: Callable[[], Ledger], pipe: Connection) -> None:
    job = open_ledger().job("outbox")
    assert job.acquire()
    pipe.send("does it")
    pipe.recv()


class HoldingContract(Suite):
    @pytest.fixture
    def silent_for(self) -> float:
        """For how long, in seconds, a holder of a window or a job may be silent before it is taken for dead."""
        return 2.0

    def test_a_window_is_held_by_one_process_at_a_time_and_by_none_that_died(
        self, open_ledger: Callable[[], Ledger], silent_for: float
    ) -> None:
        here, there = get_context("fork").Pipe()
        process = get_context("fork").Process(target=_hold, args=(open_ledger, there))
        process.start()
        assert here.recv() == "held"
        ledger, holds = open_ledger(), Event()

        def hold() -> None:
            with ledger.holding("crowd", WINDOW):
                holds.set()

        waiting = Thread(target=hold)
        waiting.start()
        with ledger.holding("crowd", NEXT):
            assert not holds.wait(1.5 * silent_for), "longer than a holder may be silent"
        process.kill()
        assert holds.wait(10)
        waiting.join()
        process.join()

    def test_a_heartbeat_raises_its_number_until_its_holder_leaves(self, ledger: Ledger) -> None:
        workers = ledger.workers
        assert workers.present() == []
        workers.beat("b", "there 1", 7, "run of a job")
        workers.beat("a", "here", 8, "")
        workers.beat("b", "there 1", 7, "run of a job")
        a, b = workers.present()
        assert (a.holder, a.host, a.process, a.doing) == ("a", "here", 8, "")
        assert (b.holder, b.host, b.process, b.doing) == ("b", "there 1", 7, "run of a job")
        workers.beat("b", "elsewhere", 9, "another")
        after = workers.present()[1]
        assert after.beats > b.beats and (after.host, after.process, after.doing) == ("elsewhere", 9, "another")
        workers.leave("b")
        workers.leave("nobody")
        assert [worker.holder for worker in workers.present()] == ["a"]

    def test_a_lease_is_one_holders_until_he_gives_it_back_or_is_no_worker_any_longer(self, ledger: Ledger) -> None:
        leases, workers = ledger.leases, ledger.workers
        for holder in ("a", "b"):
            workers.beat(holder, "here", 1, "")
        assert leases.take(["one", "two"], "a") == ["one", "two"] == leases.take(["one", "two"], "a")
        assert leases.take(["two", "three"], "b") == ["three"]
        assert leases.held() == {"one": "a", "two": "a", "three": "b"}
        leases.give_back(["one", "three"], "a")
        assert leases.held() == {"two": "a", "three": "b"}
        workers.leave("a")
        assert leases.held() == {"three": "b"}
        assert leases.take(["one", "two"], "b") == ["one", "two"]
        workers.beat("a", "here", 1, "")
        assert leases.take(["two"], "a") == [], "he was believed dead, and finds that it is another's"
        assert leases.take([], "a") == []

    def test_a_silence_is_counted_until_it_ends(self, ledger: Ledger) -> None:
        first, later = WINDOW.start, WINDOW.end
        ledger.silences.end("crowd")
        ledger.silences.add("crowd", 1, first)
        ledger.silences.add("crowd", 2, later)
        ledger.silences.add("other", 1, later)
        assert ledger.silences.all() == {"crowd": Silence(3, first), "other": Silence(1, later)}
        ledger.silences.end("crowd")
        assert ledger.silences.all() == {"other": Silence(1, later)}

    def test_a_trouble_is_remembered_until_it_ends(self, ledger: Ledger) -> None:
        disk = Alert("disk", WINDOW.start, "it is 97 % full")
        ledger.alerts.end("disk")
        ledger.alerts.keep(Alert("work", WINDOW.end, "it stands still"))
        ledger.alerts.keep(disk)
        ledger.alerts.keep(replace(disk, told=True))
        assert ledger.alerts.all() == [replace(disk, told=True), Alert("work", WINDOW.end, "it stands still")]
        ledger.alerts.end("disk")
        assert [one.subject for one in ledger.alerts.all()] == ["work"]

    def test_a_job_is_done_by_one_process_at_a_time_and_by_none_that_died(
        self, open_ledger: Callable[[], Ledger], silent_for: float
    ) -> None:
        here, there = get_context("fork").Pipe()
        process = get_context("fork").Process(target=_do, args=(open_ledger, there))
        process.start()
        assert here.recv() == "does it"
        ledger = open_ledger()
        job, other = ledger.job("outbox"), ledger.job("intake")
        assert not job.acquire() and not job.is_ours
        assert other.acquire() and other.acquire() and other.is_ours
        time.sleep(1.5 * silent_for)
        assert not job.acquire() and other.is_ours, "who is alive keeps it"
        process.kill()
        process.join()
        until = time.monotonic() + 10
        while not job.acquire():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert job.is_ours and not ledger.job("outbox").acquire()
        assert job.left > 0 and ledger.job("outbox").left == 0
        for one in (job, other, job):
            one.close()
        assert not job.is_ours and ledger.job("outbox").acquire()
        shorter = ledger.job("daemon", silent_for / 2)
        assert shorter.acquire()
        for _ in range(4):
            assert shorter.left > 0 and (shorter.left == inf or shorter.left <= silent_for / 2)
            time.sleep(silent_for / 4)
        shorter.close()
        assert shorter.left == 0

    def test_it_is_remembered_when_files_were_last_compared_and_how_far_their_contents(self, ledger: Ledger) -> None:
        comparisons = ledger.reconciliations
        assert comparisons.last() is None and comparisons.reached() == ""
        comparisons.note(NOON)
        comparisons.note(NOON + HOUR)
        comparisons.reach("crowd 7")
        assert comparisons.last() == NOON + HOUR and comparisons.reached() == "crowd 7"
