"""The records of the doors: commands and their parts, requests, refusals and announcements."""

from __future__ import annotations

from datetime import datetime, timedelta

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.announcements import Replay
from ionbeam_dagster.stores.ledger.commands import Arrival, Taken
from ionbeam_dagster.stores.ledger.keys import KEPT_FOR
from ionbeam_dagster.stores.ledger.parts import Part, Unfinished
from ionbeam_dagster.stores.ledger.refusals import REFUSALS_KEPT, Refusal, Stranger, TooEarly
from ionbeam_dagster.stores.ledger.requests import ClientRequest
from ionbeam_dagster.testing.ledger.samples import HOUR, NEXT, NOON, WINDOW, Suite, arrived

BOTH = Window(NOON, NOON + 2 * HOUR)
LONG_AFTER = NOON + KEPT_FOR + HOUR


def taken(id: str = "one", *windows: Window, source: str = "crowd", payload: str | None = None) -> Taken:
    raw = RawPartition(id, source, BOTH, f"{id}.parquet", 7, bytes=70, hash=f"of {id}")
    return Taken(raw, windows or (WINDOW, NEXT), payload)


def part(number: int, id: str = "one", parts: int = 3, common: str = "same") -> Part:
    return Part(id, number, parts, common, "crowd", f"{id}_{number}.parquet")


def refusal(number: int, at: datetime = NOON) -> Refusal:
    return Refusal("a queue", f"m{number}", f"it is no. {number}: \u00e9 '\"", at)


class DoorsContract(Suite):
    def test_a_command_is_taken_once_with_its_raw_file_and_told_to_dagster(self, ledger: Ledger) -> None:
        commands = ledger.commands
        assert not commands.knows("one", 1) and commands.count() == 0 and commands.unreported(10) == []
        commands.take([taken("one"), taken("a: second", NEXT, source="other source")], NOON)
        commands.take([taken("one")], NOON + HOUR)
        assert commands.knows("one", 1) and commands.knows("one", 2) and not commands.knows("two", 1)
        assert commands.count() == 2
        assert ledger.sent("crowd", WINDOW) == [taken("one").raw] and ledger.waiting("crowd") == [WINDOW, NEXT]
        first, second = Arrival("crowd", WINDOW, 1, 7, "one"), Arrival("crowd", NEXT, 1, 7, "one")
        other = Arrival("other source", NEXT, 1, 7, "a: second")
        assert commands.unreported(10) == [first, second, other] and commands.unreported(1) == [first]
        commands.take([taken("three", WINDOW)], NOON)
        commands.note_reported([first, second])
        more = Arrival("crowd", WINDOW, 2, 14, "three")
        assert commands.unreported(10) == [more, other], "what came meanwhile is still to be told"
        commands.note_reported([Arrival("crowd", WINDOW, 2, 14, "another")])
        assert commands.unreported(10) == [more, other], "as many may be others, where it was told and came anew"
        commands.note_reported([more])
        commands.take([], NOON)
        assert commands.unreported(10) == [other]

    def test_a_command_is_known_by_its_raw_file_or_its_claim_and_for_a_month_without_them(self, ledger: Ledger) -> None:
        commands = ledger.commands
        commands.take([taken("replaced"), taken("waits")], NOON)
        arrived(ledger, "claimed", NOON)
        arrived(ledger, "new", NOON, replaces=["replaced"])
        assert all(commands.knows(id, 1) for id in ("replaced", "waits", "claimed", "new"))
        commands.take([taken("later")], LONG_AFTER)
        assert all(commands.knows(id, 1) for id in ("waits", "claimed", "new", "later"))
        assert not commands.knows("replaced", 1) and commands.count() == 1

    def test_parts_wait_for_the_others_of_their_command(self, ledger: Ledger) -> None:
        parts, commands = ledger.parts, ledger.commands
        assert parts.of("one") == [] and parts.files() == set() and parts.unfinished() == []
        parts.add([part(2), part(1, "two"), part(1)])
        parts.add([part(2, common="other")])
        parts.add([])
        assert parts.of("one") == [part(1), part(2, common="other")]
        assert commands.knows("one", 2) and not commands.knows("one", 3) and commands.count() == 0
        assert parts.files() == {"one_1.parquet", "one_2.parquet", "two_1.parquet"}
        assert parts.unfinished() == [Unfinished("one", "crowd", 2, 3), Unfinished("two", "crowd", 1, 3)]
        parts.forget("one", 2)
        parts.forget("two", 1)
        parts.forget("two", 5)
        assert parts.unfinished() == [Unfinished("one", "crowd", 1, 3)]
        commands.take([taken("one")], NOON)
        assert parts.of("one") == [] and parts.unfinished() == [] and parts.files() == set()

    def test_payloads_are_remembered_until_they_are_gone(self, ledger: Ledger) -> None:
        commands = ledger.commands
        commands.take([taken("one", payload="b/x"), taken("two", payload="a/x")], NOON)
        commands.take([taken("three", payload="late"), taken("one", payload="b/x")], NOON + HOUR)
        assert commands.payloads(NOON) == []
        assert commands.payloads(NOON + HOUR) == [("a/x", "crowd")]
        assert [name for name, _ in commands.payloads(NOON + 2 * HOUR)] == ["a/x", "b/x", "late"]
        commands.forget_payload("a/x")
        assert commands.payloads(NOON + HOUR) == []

    def test_a_request_is_open_until_what_covers_it_was_taken(self, ledger: Ledger) -> None:
        requests = ledger.requests
        assert requests.unanswered(10) == [] and requests.last("crowd", WINDOW) is None
        assert [requests.note("crowd", WINDOW, NOON + hours * HOUR) for hours in (0, 1)] == [1, 2]
        requests.note("a source", WINDOW, NOON)
        half = Window(NOON, NOON + HOUR / 2)
        requests.note("crowd", half, NOON + 2 * HOUR)
        wide = Window(NOON, NOON + 9 * HOUR)
        requests.note("crowd", wide, NOON + 3 * HOUR)
        last = NOON + 3 * HOUR
        assert [(one.source, one.window, one.times) for one in requests.unanswered(3)] == [
            ("crowd", wide, 1), ("crowd", half, 1), ("crowd", WINDOW, 2)
        ]  # fmt: skip
        assert requests.unanswered(10, "a source") == [ClientRequest("a source", WINDOW, 1, NOON, None)]
        found = requests.last("crowd", WINDOW)
        assert found == ClientRequest("crowd", half, 1, NOON + 2 * HOUR, None), "the part of it that had passed"
        assert requests.last("crowd", NEXT) is None
        ledger.commands.take([taken("one")], last)
        assert [one.window for one in requests.unanswered(10, "crowd")] == [wide], "it was not taken whole"
        found = requests.last("crowd", WINDOW)
        assert found is not None and found.answered == last
        assert requests.note("crowd", WINDOW, last + HOUR) == 1, "since its last answer"
        ledger.commands.note_again("one", last + 2 * HOUR)
        ledger.commands.note_again("unknown", last)
        found = requests.last("crowd", WINDOW)
        assert found == ClientRequest("crowd", WINDOW, 1, last + HOUR, last + 2 * HOUR)

    def test_old_requests_are_forgotten(self, ledger: Ledger) -> None:
        requests = ledger.requests
        requests.note("crowd", WINDOW, NOON)
        requests.note("crowd", NEXT, NOON + 2 * HOUR)
        requests.note("other", NEXT, LONG_AFTER)
        assert [(one.source, one.window) for one in requests.unanswered(10)] == [("other", NEXT), ("crowd", NEXT)]
        assert requests.last("crowd", WINDOW) is None

    def test_ranges_that_clients_want_are_numbered_above_all_earlier_ones(self, ledger: Ledger) -> None:
        requests, cursor = ledger.requests, 1000 * int((NOON - HOUR).timestamp())
        assert requests.after(0, 10) == []
        for number, id in enumerate(["b", "a", "b", "c"]):
            requests.add(id, "crowd", WINDOW, id == "a", NOON - number * HOUR)
        found = requests.after(cursor, 10)
        assert [one.id for one in found] == ["b", "a", "c"], "also by a clock that went back"
        assert [one.use_cache for one in found] == [False, True, False]
        assert found[0].number > cursor and (found[0].source, found[0].range) == ("crowd", WINDOW)
        assert requests.after(found[0].number, 1) == [found[1]] and requests.after(found[2].number, 9) == []
        last = found[2].number
        for id in ("b", "e"):  # b is known: it uses no number up, whatever the clock says
            requests.add(id, "crowd", WINDOW, False, NOON if id == "e" else NOON + 9 * HOUR)
        assert [one.number for one in requests.after(last, 9)] == [last + 1]
        requests.add("d", "crowd", NEXT, False, LONG_AFTER)
        assert [one.id for one in requests.after(0, 10)] == ["d"], "those of long ago are forgotten"

    def test_the_newest_refusals_are_kept_until_their_messages_were_taken(self, ledger: Ledger) -> None:
        refusals = ledger.refusals
        refusals.add([])
        refusals.add([refusal(number) for number in range(3)])
        refusals.add([refusal(3, NOON + HOUR)])
        assert refusals.newest(2) == [refusal(3, NOON + HOUR), refusal(2)] and refusals.newest(0) == []
        refusals.forget(["m2", "unknown"])
        refusals.forget([])
        assert [one.message_id for one in refusals.newest(9)] == ["m3", "m1", "m0"]
        refusals.add([refusal(number) for number in range(10, 10 + REFUSALS_KEPT)])
        kept = refusals.newest(2 * REFUSALS_KEPT)
        assert len(kept) == REFUSALS_KEPT and kept[-1] == refusal(10)

    def test_what_was_accepted_is_to_be_sent_back_once(self, ledger: Ledger) -> None:
        refusals = ledger.refusals
        for dataset in ("roofs", "balconies", "roofs"):
            refusals.accept(dataset)
        assert refusals.accepted() == ["balconies", "roofs"]
        refusals.sent_back("roofs")
        assert refusals.accepted() == ["balconies"]

    def test_strangers_and_what_comes_too_early_are_counted(self, ledger: Ledger) -> None:
        refusals, year_one = ledger.refusals, NOON.replace(year=1)
        assert refusals.too_early() == [] and refusals.strangers(10) == []
        for start in (NOON, year_one, NOON + HOUR):
            refusals.note_too_early("crowd", start, NOON + HOUR)
        refusals.note_too_early("a source", NOON, NOON)
        assert refusals.too_early() == [
            TooEarly("a source", 1, NOON, NOON),
            TooEarly("crowd", 3, year_one, NOON + HOUR),
        ]
        for minute, sender in enumerate(["guest", "", "guest", "\u00e9: x"]):
            refusals.note_stranger("crowd", sender, NOON + timedelta(minutes=minute))
        assert refusals.strangers(2) == [
            Stranger("crowd", "\u00e9: x", 1, NOON + timedelta(minutes=3)),
            Stranger("crowd", "guest", 2, NOON + timedelta(minutes=2)),
        ]

    def test_what_was_announced_is_never_taken_back(self, ledger: Ledger) -> None:
        announcements = ledger.announcements
        assert announcements.announced() == 0
        for number in (5, 1_796_017_533_236, 7):
            announcements.note_announced(number)
        assert announcements.announced() == 1_796_017_533_236

    def test_replays_are_done_in_the_order_in_which_they_were_asked_for(self, ledger: Ledger) -> None:
        announcements = ledger.announcements
        assert announcements.next_replay() is None
        for minute, id in enumerate(["b", "a", "b"]):
            announcements.add_replay(id, f'{{"id": "{id}"}}', NOON + timedelta(minutes=minute))
        assert announcements.next_replay() == Replay("b", '{"id": "b"}', 0)
        announcements.note_replayed("b", 50, done=False)
        assert announcements.next_replay() == Replay("b", '{"id": "b"}', 50)
        announcements.note_replayed("b", 70, done=True)
        announcements.note_replayed("unknown", 1, done=False)
        assert announcements.next_replay() == Replay("a", '{"id": "a"}', 0)
        announcements.add_replay("b", "again", NOON + HOUR)
        announcements.note_replayed("b", 1, done=False)
        announcements.note_replayed("a", 2, done=True)
        assert announcements.next_replay() is None, "what is done stays done"
        announcements.add_replay("c", "c", LONG_AFTER)
        announcements.add_replay("b", "after a month it is another", LONG_AFTER)
        announcements.note_replayed("c", 0, done=True)
        assert announcements.next_replay() == Replay("b", "after a month it is another", 0)
