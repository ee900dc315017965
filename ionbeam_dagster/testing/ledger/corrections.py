"""Corrections that sources told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ionbeam_dagster.domain.records import Correction
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.corrections import KnownCorrection
from ionbeam_dagster.testing.ledger.samples import HOUR, NEXT, NOON, WINDOW, Suite


class CorrectionsContract(Suite):
    def test_a_correction_is_open_until_it_is_closed_and_has_a_number(self, ledger: Ledger) -> None:
        memory = ledger.corrections
        one, other = Correction("9/1", WINDOW, "an override"), Correction("10/2", NEXT, "a deletion")
        assert memory.open("crowd") == memory.closed("crowd") == [] and memory.seen("crowd") is None
        memory.see("crowd", [], NOON)
        assert memory.seen("crowd") == NOON
        memory.see("crowd", [one], NOON)
        memory.see("crowd", [one, other], NOON + HOUR)
        assert memory.seen("crowd") == NOON + HOUR and memory.seen("other") is None
        memory.see("other", [one], NOON)
        first, second = memory.open("crowd")
        assert first == KnownCorrection(one, first.number, NOON) and first.number > 0
        assert second == KnownCorrection(other, second.number, NOON + HOUR) and second.number > first.number
        partly = replace(first, remaining=(WINDOW, NEXT), looked_until=NOON, by="somebody")
        assert memory.change("crowd", partly) and memory.open("crowd") == [partly, second]
        done = [replace(second, remaining=(), closed=NOON), replace(partly, closed=NOON + HOUR)]
        assert all(memory.change("crowd", one) for one in done)
        assert memory.open("crowd") == [] and memory.closed("crowd") == done[::-1]
        memory.see("crowd", [one, other], NOON + 2 * HOUR)
        assert memory.open("crowd") == [], "it is the same one"
        assert memory.change("crowd", replace(done[0], closed=None)) and len(memory.open("crowd")) == 1
        assert len(memory.open("other")) == 1

    def test_a_correction_that_changed_is_another_one(self, ledger: Ledger) -> None:
        memory = ledger.corrections
        memory.see("crowd", [Correction("1", WINDOW, "an override")], NOON)
        [before] = memory.open("crowd")
        wider = Correction("1", Window(NOON, NOON + 2 * HOUR), "an override")
        memory.see("crowd", [wider], NOON + HOUR)
        [known] = memory.open("crowd")
        assert known == KnownCorrection(wider, known.number, NOON + HOUR) and known.number > before.number
        assert not memory.change("crowd", replace(before, closed=NOON)) and memory.open("crowd") == [known]

    def test_numbers_follow_those_of_a_ledger_that_was_lost(self, ledger: Ledger) -> None:
        memory = ledger.corrections
        told = [Correction(str(n), WINDOW, "") for n in range(3)]
        memory.see("crowd", told[:2], NOON)
        memory.see("crowd", told, NOON - HOUR)
        milliseconds = int(NOON.timestamp() * 1000)
        assert [one.number - milliseconds for one in memory.open("crowd")] == [0, 1, 2]

    def test_of_closed_corrections_the_latest_are_remembered(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ionbeam_dagster.stores.ledger.corrections.MOST_CLOSED", 2)
        memory = ledger.corrections
        memory.see("crowd", [Correction(str(n), WINDOW, "") for n in range(4)], NOON)
        known = memory.open("crowd")
        for hour, n in enumerate((2, 0, 1)):
            memory.change("crowd", replace(known[n], closed=NOON - hour * HOUR))
        assert [one.correction.id for one in memory.closed("crowd")] == ["2", "1"]
        assert [one.correction.id for one in memory.open("crowd")] == ["3"]
