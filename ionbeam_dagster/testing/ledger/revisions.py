"""Revisions, exports and the feed."""

from __future__ import annotations

from ionbeam_dagster.domain.records import (
    BuiltRevision,
    ExportFacts,
    ExportRecord,
    Revision,
)
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.testing.ledger.samples import (
    HOUR,
    NEXT,
    NOON,
    WINDOW,
    Suite,
    built,
    claimed,
    latest,
)


class RevisionsContract(Suite):
    def test_the_latest_revision_of_each_window_is_remembered_with_its_facts(self, ledger: Ledger) -> None:
        first, second, other = built(WINDOW, 1, []), built(WINDOW, 2, []), built(NEXT, 1, [])
        for revision in (first, second, other):
            ledger.record_revision(revision, [])
        assert ledger.latest_revision("crowd", WINDOW) == second
        assert ledger.revisions("crowd", NOON, NOON + 2 * HOUR) == [second, other]
        assert ledger.revisions("crowd", NOON + HOUR, NOON + 2 * HOUR) == [other]
        assert ledger.latest_revision("other", WINDOW) is None

    def test_an_export_is_remembered_also_when_it_has_no_file(self, ledger: Ledger) -> None:
        full = ExportRecord(
            "crowd", WINDOW, "odb", 2, "x.odb", ExportFacts(rows=12, holds={"a": 3}, afterwards=True), made_by="odb 1"
        )
        empty = ExportRecord("crowd", WINDOW, "pygeoapi", 2, None)
        for record in (full, empty):
            ledger.record_export(record)
        assert ledger.export("crowd", WINDOW, "odb") == full
        assert ledger.export("crowd", WINDOW, "pygeoapi") == empty
        assert ledger.export("crowd", NEXT, "odb") is None
        assert ledger.exports("crowd", [NEXT, WINDOW], ["pygeoapi", "odb", "bufr"]) == [full, empty]
        assert ledger.exports("crowd", [WINDOW], ["pygeoapi"]) == [empty]
        assert ledger.exports("other", [WINDOW], ["odb"]) == ledger.exports("crowd", [], ["odb"]) == []

    def test_the_tenth_revision_follows_the_ninth(self, ledger: Ledger) -> None:
        for number in (9, 10, 2):
            ledger.record_revision(built(WINDOW, number, []), [])
        assert latest(ledger, WINDOW).revision.number == 10

    def test_windows_of_two_lengths_with_one_start_are_two(self, ledger: Ledger) -> None:
        day = Window(NOON, NOON + 24 * HOUR)
        claim = claimed(ledger, "first", WINDOW, day)
        for window, number in ((WINDOW, 1), (day, 3)):
            ledger.record_revision(built(window, number, [claim]), [claim])
        assert latest(ledger, day).revision.number == 3
        assert latest(ledger, WINDOW).revision.number == 1
        assert [one.revision.window for one in ledger.revisions("crowd", NOON, NOON + HOUR)] == [WINDOW, day]

    def test_a_window_tells_all_of_its_revisions(self, ledger: Ledger) -> None:
        first, second = (
            BuiltRevision(Revision("crowd", WINDOW, number, str(number)), f"r{number}", NOON + number * HOUR)
            for number in (1, 2)
        )
        for one in (first, second, built(NEXT, 1, [])):
            ledger.record_revision(one, [])
        assert ledger.revisions_of("crowd", WINDOW) == [first, second]
        assert ledger.revisions_of("other", WINDOW) == []
        ledger.forget_revision(first.revision)
        assert ledger.revisions_of("crowd", WINDOW) == [second]

    def test_superseded_revisions_can_be_forgotten_and_the_latest_cannot(self, ledger: Ledger) -> None:
        old, middle, latest = (
            BuiltRevision(Revision("crowd", WINDOW, number, str(number)), f"r{number}", NOON + number * HOUR)
            for number in (1, 2, 3)
        )
        for one in (old, middle, latest, built(NEXT, 1, [])):
            ledger.record_revision(one, [])
        assert ledger.superseded("crowd", NOON + 2 * HOUR) == [old]
        assert ledger.superseded("crowd", NOON + 9 * HOUR) == [old, middle]
        for one in (old, latest):
            ledger.forget_revision(one.revision)
        assert ledger.superseded("crowd", NOON + 9 * HOUR) == [middle]
        assert ledger.latest_revision("crowd", WINDOW) == latest
        assert [change.built for change in ledger.changes(0, 10)][:3] == [None, middle, latest]

    def test_the_feed_tells_new_claims_and_every_revision_in_order(self, ledger: Ledger) -> None:
        first = claimed(ledger, "first", WINDOW)
        made = built(WINDOW, 1, [first])
        ledger.record_revision(made, [first])
        claimed(ledger, "first", WINDOW)
        second = claimed(ledger, "second", NEXT)
        withdrawn = claimed(ledger, "withdrawn", NEXT)
        ledger.withdraw_claim(withdrawn.id)
        ledger.record_revision(built(NEXT, 1, [second]), [second])
        changes = ledger.changes(0, 10)
        assert [change.claim for change in changes] == [first, None, second, None, None]
        assert [change.built for change in changes] == [None, made, None, None, built(NEXT, 1, [second])]
        numbers = [change.number for change in changes]
        assert numbers == sorted(set(numbers))
        assert ledger.changes(numbers[1], 2) == changes[2:4]
        assert ledger.changes(numbers[-1], 10) == []
