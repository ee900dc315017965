"""Notices on files that are given away."""

from __future__ import annotations

from dataclasses import replace

from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.notices import Notice, Tally
from ionbeam_dagster.testing.ledger.samples import HOUR, NOON, Suite

FIRST = Notice(
    "de-example/crowd/bufr/one", "crowd/bufr", "5f6a2c1e-0000-5000-8000-000000000001", 1, "abc", "canonical",
    "s3://given/with a space.json", NOON,
)  # fmt: skip
SECOND = replace(
    FIRST, message_id="5f6a2c1e-0000-5000-8000-000000000002", number=2, relation="update", made=NOON + HOUR
)
OTHER = replace(FIRST, data_id="de-example/other/bufr/one", of="other/bufr", made=NOON - HOUR)


class NoticesContract(Suite):
    def test_a_notice_is_open_until_it_is_told(self, ledger: Ledger) -> None:
        notices = ledger.notices
        assert notices.open() == [] and notices.on([FIRST.data_id]) == {} and notices.on([]) == {}
        assert notices.tally(FIRST.of) == Tally()
        notices.keep(FIRST)
        notices.keep(OTHER)
        assert notices.open() == [OTHER, FIRST], "in the order in which they were made"
        notices.note_told(FIRST, NOON + HOUR)
        told = replace(FIRST, told=NOON + HOUR)
        assert notices.open() == [OTHER] and notices.on([FIRST.data_id, "unknown"]) == {FIRST.data_id: told}
        assert notices.tally(FIRST.of) == Tally(1, 0, NOON + HOUR) and notices.tally(OTHER.of) == Tally(0, 1, None)

    def test_the_latest_notice_on_a_file_takes_the_place_of_the_one_before(self, ledger: Ledger) -> None:
        notices = ledger.notices
        notices.keep(FIRST)
        notices.note_told(FIRST, NOON)
        notices.keep(SECOND)
        assert notices.on([FIRST.data_id]) == {FIRST.data_id: SECOND} and notices.open() == [SECOND]
        notices.note_told(FIRST, NOON + HOUR)
        assert notices.open() == [SECOND], "an answer to the one before is none to this"
        assert notices.tally(FIRST.of) == Tally(0, 1, None)
        notices.note_told(SECOND, NOON + HOUR)
        assert notices.open() == [] and notices.tally(FIRST.of) == Tally(1, 0, NOON + HOUR)

    def test_a_notice_that_is_to_be_told_again_is_open_again(self, ledger: Ledger) -> None:
        notices = ledger.notices
        told = replace(FIRST, told=NOON)
        notices.keep(told)
        assert notices.open() == [] and notices.on([FIRST.data_id]) == {FIRST.data_id: told}
        notices.keep(FIRST)
        assert notices.open() == [FIRST] and notices.tally(FIRST.of) == Tally(0, 1, None)
