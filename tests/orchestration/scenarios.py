"""What may happen to a window, as a table, and what is to be said of it: read by test_scenarios.

Times are of Monday 15 June 2026, or ``<n>d`` and a time of a later day. A step is a moment, what happens at it, and
what is then said of the windows that begin at the times given. ``build 2`` also means that revision 2 is there
afterwards: automation builds what is ready at every moment of the table, whichever scenario it is from.

What happens: the platform collects its windows from one time to another (``give``), each a row of two stations, where
the source may give ``warmer`` values, ``fewer`` stations, nothing (``empty``) or a row of another time (``stray``), or
fail (``miss``); a client sends rows for a range (``send``), none (``hush``), or others in their place
(``resend``); a person builds a window (``by hand``),
seals or unseals it; a file is lost; the whole platform restarts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Step = tuple[str, str, str]


@dataclass(frozen=True)
class Scenario:
    """`sources` are the sizes of the raw windows, by name; one that clients send has none."""

    name: str
    steps: list[Step]
    policy: dict[str, str] = field(default_factory=dict)
    span: str = "PT1H"
    sources: dict[str, str | None] = field(default_factory=lambda: {"s": "PT30M"})


SENT: dict[str, str | None] = {"s": None}
HOURLY: dict[str, str | None] = {"s": "PT1H"}
LATE = "PT2H"

SCENARIOS = [
    Scenario("in order", [
        ("00:30", "give 00:00 00:30", "00:00 wait: the window is open until 2026-06-15 01:00"),
        ("01:00", "give 00:30 01:00", "00:00 build 1"),
        ("02:00", "give 01:00 02:00", "00:00 unchanged / 01:00 build 1"),
    ]),
    Scenario("out of order", [
        ("02:00", "give 01:30 02:00; give 00:30 01:00", "00:00 wait: s has not collected 00:00-00:30"),
        ("03:00", "give 01:00 01:30", "00:00 wait: s has not / 01:00 build 1"),
        ("04:00", "give 00:00 00:30", "00:00 build 1 / 01:00 unchanged"),
    ]),
    Scenario("nothing is collected", [("04:00", "", "00:00 wait: nothing has been collected")]),
    Scenario("a gap that is filled", [
        ("01:00", "give 00:00 00:30", "00:00 wait: built all the same at 2026-06-16 01:00"),
        ("04:00", "give 00:30 01:00", "00:00 build 1"),
    ]),
    Scenario("a gap that stays", [
        ("01:00", "give 00:00 00:30", "00:00 wait: s has not collected 00:30-01:00"),
        ("1d01:00", "", "00:00 build 1, 1 gap"),
    ]),
    Scenario("a gap filled after it was built with it", [
        ("01:00", "give 00:00 00:30", "00:00 wait: s has not collected 00:30-01:00"),
        ("1d01:00", "", "00:00 build 1, 1 gap"),
        ("1d02:00", "give 00:30 01:00", "00:00 build 2"),
    ]),
    Scenario("a gap that is never borne", [
        ("01:00", "give 00:00 00:30", "00:00 wait: it is never built with gaps"),
        ("7d00:00", "", "00:00 wait: it is never built with gaps"),
        ("8d00:00", "give 00:30 01:00", "00:00 build 1"),
    ], {"allow_incomplete": "never"}),
    Scenario("gaps are borne at once", [
        ("01:00", "give 00:00 00:30", "00:00 build 1, 1 gap"),
        ("02:00", "give 00:30 01:00", "00:00 build 2"),
    ], {"allow_incomplete": "always"}),
    Scenario("patience of two hours", [
        ("01:00", "give 00:30 01:00", "00:00 wait: built all the same at 2026-06-15 03:00"),
        ("03:00", "", "00:00 build 1, 1 gap"),
    ], {"allow_incomplete": "PT2H"}),
    Scenario("two gaps are one answer", [
        ("01:00", "send 00:10 00:20; send 00:40 00:50",
         "00:00 wait: s has not collected 00:00-00:10, 00:20-00:40, 00:50"),
        ("1d01:00", "", "00:00 build 1, 3 gaps"),
    ], sources=SENT),
    Scenario("sent in one piece", [("01:00", "send 00:00 01:00", "00:00 build 1")], sources=SENT),
    Scenario("sent in pieces that overlap", [
        ("00:30", "send 00:00 00:35", "00:00 wait: open"),
        ("01:00", "send 00:25 01:00", "00:00 build 1"),
        ("02:00", "send 00:20 00:40", "00:00 build 2"),
    ], sources=SENT),
    Scenario("offset windows: a piece that touches two", [
        ("01:00", "send 00:00 00:45", "00:00 wait: s has not collected 00:45-01:00"),
        ("02:00", "send 00:45 01:30", "00:00 build 1 / 01:00 wait: s has not collected 01:30-02:00"),
        ("03:00", "send 01:30 02:30", "01:00 build 1 / 02:00 wait: s has not collected 02:30-03:00"),
    ], sources=SENT),
    Scenario("a piece for many windows at once", [
        ("04:00", "send 00:00 04:00", "00:00 build 1 / 01:00 build 1 / 02:00 build 1 / 03:00 build 1"),
    ], sources=SENT),
    Scenario("the same again changes nothing", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "give 00:00 01:00", "00:00 unchanged"),
        ("03:00", "give 00:30 01:00", "00:00 unchanged"),
    ]),
    Scenario("the same range sent twice is two ingestions", [
        ("01:00", "send 00:00 01:00", "00:00 build 1"),
        ("02:00", "send 00:00 01:00", "00:00 build 2"),
    ], sources=SENT),
    Scenario("a correction", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "warmer 00:30 01:00", "00:00 build 2"),
        ("03:00", "warmer 00:30 01:00", "00:00 unchanged"),
    ]),
    Scenario("a correction taken back", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "warmer 00:00 00:30", "00:00 build 2"),
        ("03:00", "give 00:00 00:30", "00:00 build 3"),
    ]),
    Scenario("a correction before it was built", [
        ("00:30", "give 00:00 00:30", "00:00 wait: open"),
        ("01:00", "warmer 00:00 00:30; give 00:30 01:00", "00:00 build 1"),
    ]),
    Scenario("a point is given no longer", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "fewer 00:00 00:30", "00:00 unchanged"),
    ]),
    Scenario("no point is given any longer", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "empty 00:00 01:00", "00:00 unchanged"),
    ]),
    Scenario("an empty one counts", [("01:00", "give 00:00 00:30; empty 00:30 01:00", "00:00 build 1")]),
    Scenario("only empty ones", [("01:00", "empty 00:00 01:00", "00:00 build 1")]),
    Scenario("an empty message counts", [
        ("01:00", "send 00:00 00:50; hush 00:50 01:00", "00:00 build 1"),
    ], sources=SENT),
    Scenario("a failed collection is a gap", [
        ("01:00", "give 00:00 00:30; miss 00:30 01:00", "00:00 wait: s has not collected 00:30-01:00"),
        ("02:00", "give 00:30 01:00", "00:00 build 1"),
    ]),
    Scenario("an open window collected again and again", [
        ("00:30", "give 00:00 01:00", "00:00 wait: open"),
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "give 00:00 01:00", "00:00 unchanged"),
    ], sources=HOURLY),
    Scenario("an open window not collected to its end", [
        ("00:30", "give 00:00 01:00", "00:00 wait: open"),
        ("01:00", "", "00:00 wait: s has not collected 00:30-01:00"),
        ("02:00", "give 00:00 01:00", "00:00 build 1"),
    ], sources=HOURLY),
    Scenario("a client takes back what it sent", [
        ("01:00", "send 00:00 00:20; send 00:20 01:10", "00:00 build 1"),
        ("02:00", "resend 00:00 01:00", "00:00 build 2"),
        ("03:00", "resend 00:00 02:00", "00:00 build 3 / 01:00 build 1"),
    ], sources=SENT),
    Scenario("a late row", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "give 01:00 01:30; stray 01:30 00:20", "00:00 build 2 / 01:00 build 1"),
    ]),
    Scenario("a late row of a window that has nothing else", [
        ("02:00", "give 01:00 01:30; stray 01:30 00:20", "00:00 wait: s has not collected 00:00-01:00 / 01:00 build 1"),
        ("1d01:00", "", "00:00 build 1, 1 gap"),
    ]),
    Scenario("a late row is given no more", [
        ("02:00", "give 00:00 01:30; stray 01:30 00:20", "00:00 build 1 / 01:00 build 1"),
        ("03:00", "give 01:30 02:00", "00:00 unchanged / 01:00 unchanged"),
    ]),
    Scenario("subject to change", [
        ("01:00", "give 00:00 01:00", "00:00 wait: its data may still change until 2026-06-15 03:00"),
        ("03:00", "", "00:00 build 1"),
    ], {"subject_to_change_window": LATE}),
    Scenario("late within subject to change", [
        ("01:00", "give 00:00 01:00", "00:00 wait: may still change"),
        ("02:00", "warmer 00:30 01:00", "00:00 wait: may still change"),
        ("03:00", "", "00:00 build 1"),
    ], {"subject_to_change_window": LATE}),
    Scenario("late after subject to change", [
        ("01:00", "give 00:00 01:00", "00:00 wait: may still change"),
        ("03:00", "", "00:00 build 1"),
        ("04:00", "warmer 00:30 01:00", "00:00 build 2"),
    ], {"subject_to_change_window": LATE}),
    Scenario("a gap within subject to change", [
        ("01:00", "give 00:00 00:30", "00:00 wait: may still change"),
        ("03:00", "", "00:00 build 1, 1 gap"),
    ], {"subject_to_change_window": LATE, "allow_incomplete": "PT1H"}),
    Scenario("a fixed lateness", [
        ("01:00", "give 00:00 01:00", "00:00 wait: data may still be on their way until 2026-06-15 01:30"),
        ("01:30", "", "00:00 build 1"),
    ], {"lateness": "PT30M"}),
    Scenario("the longer of lateness and subject to change", [
        ("01:00", "give 00:00 01:00", "00:00 wait: its data may still change until 2026-06-15 03:00"),
        ("01:30", "", "00:00 wait: its data may still change"),
        ("03:00", "", "00:00 build 1"),
    ], {"lateness": "PT30M", "subject_to_change_window": LATE}),
    Scenario("p95 of what was measured", [
        ("01:30", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "give 01:00 02:00",
         "01:00 wait: data may still be on their way (95% come within PT30M) until 2026-06-15 02:30"),
        ("02:30", "", "01:00 build 1"),
    ], {"lateness": "p95"}, sources=HOURLY),
    Scenario("p95 of nothing measured", [("01:00", "give 00:00 01:00", "00:00 build 1")], {"lateness": "p95"}),
    Scenario("p95 leaves a backfill out", [
        ("6d00:00", "give 00:00 01:00; give 5d23:00 6d00:00", "00:00 build 1 / 5d23:00 build 1"),
        ("7d00:00", "give 6d23:00 7d00:00", "6d23:00 build 1"),
    ], {"lateness": "p95"}, sources=HOURLY),
    Scenario("p95 of the slowest of two sources", [
        ("01:00", "give 00:00 01:00 of a", "00:00 wait: b has not collected"),
        ("01:30", "give 00:00 01:00 of b", "00:00 build 1"),
        ("02:00", "give 01:00 02:00 of a; give 01:00 02:00 of b", "01:00 wait: 95% come within PT30M"),
        ("02:30", "", "01:00 build 1"),
    ], {"lateness": "p95"}, sources={"a": "PT1H", "b": "PT1H"}),
    Scenario("sealed", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("04:00", "warmer 00:30 01:00",
         "00:00 sealed: sealed since 2026-06-15 03:00; 1 ingestion with 2 rows arrived later"),
        ("1d01:00", "", "00:00 sealed: kept, not built"),
    ], {"revise_for": LATE}),
    Scenario("late but in time", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:30", "warmer 00:30 01:00", "00:00 build 2"),
        ("04:00", "", "00:00 unchanged"),
    ], {"revise_for": LATE}),
    Scenario("a window that was never built is not sealed", [
        ("8d00:00", "give 00:00 01:00", "00:00 build 1"),
    ], {"revise_for": LATE}),
    Scenario("a sealed window does not hold up the next", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("04:00", "warmer 00:00 00:30; give 03:00 04:00", "00:00 sealed: sealed since / 03:00 build 1"),
    ], {"revise_for": LATE}),
    Scenario("built by hand, the sealed window stays", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("04:00", "warmer 00:30 01:00; by hand 00:00", "00:00 sealed: 1 ingestion with 2 rows arrived later"),
    ], {"revise_for": LATE}),
    Scenario("the file of a sealed window is lost", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("04:00", "lose 00:00; by hand 00:00", "00:00 unchanged"),
    ], {"revise_for": LATE}),
    Scenario("a person seals, and opens again", [
        ("01:00", "give 00:00 01:00; ", "00:00 build 1"),
        ("02:00", "seal 00:00; warmer 00:00 00:30", "00:00 sealed: sealed by a person on 2026-06-15 02:00"),
        ("03:00", "unseal 00:00", "00:00 build 2"),
    ]),
    Scenario("a storm of corrections makes one revision", [
        ("00:30", "send 00:00 01:00", "00:00 wait: open"),
        ("01:30", "", "00:00 build 1"),
        ("02:00", "send 00:10 00:20", "00:00 wait: more keeps arriving; built at 2026-06-15 03:00"),
        ("02:30", "send 00:20 00:30", "00:00 wait: more keeps arriving; built at 2026-06-15 03:30"),
        ("03:00", "send 00:30 00:40", "00:00 wait: more keeps arriving; built at 2026-06-15 04:00"),
        ("04:00", "", "00:00 build 2"),
    ], {"debounce": "PT1H"}, sources=SENT),
    Scenario("debounced at first, too", [
        ("01:00", "send 00:00 01:00", "00:00 wait: more keeps arriving; built at 2026-06-15 01:30"),
        ("01:30", "", "00:00 build 1"),
    ], {"debounce": "PT30M"}, sources=SENT),
    Scenario("a storm without an end does not starve a window", [
        ("01:00", "send 00:00 01:00", "00:00 wait: built at 2026-06-15 01:30"),
        ("01:30", "send 00:00 00:30", "00:00 wait: built at 2026-06-15 02:00"),
        ("02:00", "send 00:00 00:30", "00:00 wait: built at 2026-06-15 02:30"),
        ("02:30", "send 00:00 00:30", "00:00 wait: built at 2026-06-15 03:00"),
        ("03:00", "send 00:00 00:30", "00:00 wait: built at 2026-06-15 03:30"),
        ("03:30", "send 00:00 00:30", "00:00 wait: built at 2026-06-15 04:00"),
        ("04:00", "send 00:00 00:30", "00:00 build 1"),
    ], {"debounce": "PT30M"}, sources=SENT),
    Scenario("a person does not wait for the storm to pass", [
        ("01:00", "send 00:00 01:00; by hand 00:00", "00:00 unchanged"),
    ], {"debounce": "PT30M"}, sources=SENT),
    Scenario("what came in time is built although debounced past the seal", [
        ("01:00", "give 00:00 01:00", "00:00 wait: more keeps arriving"),
        ("02:00", "", "00:00 build 1"),
        ("02:30", "warmer 00:00 00:30", "00:00 wait: more keeps arriving; built at 2026-06-15 03:30"),
        ("03:30", "", "00:00 build 2"),
        ("04:00", "warmer 00:30 01:00", "00:00 sealed: 1 ingestion"),
    ], {"debounce": "PT1H", "revise_for": LATE}),
    Scenario("a person builds what would wait", [
        ("01:00", "give 00:00 00:30; by hand 00:00", "00:00 unchanged"),
        ("02:00", "give 00:30 01:00", "00:00 build 2"),
    ], {"allow_incomplete": "never"}),
    Scenario("two sources, one of them late", [
        ("01:00", "give 00:00 01:00 of a", "00:00 wait: b has not collected 00:00-01:00"),
        ("02:00", "give 00:00 01:00 of b", "00:00 build 1"),
    ], sources={"a": "PT30M", "b": "PT1H"}),
    Scenario("two sources, one of them never", [
        ("01:00", "give 00:00 01:00 of a", "00:00 wait: b has not collected 00:00-01:00"),
        ("1d01:00", "", "00:00 build 1, 1 gap"),
    ], sources={"a": "PT30M", "b": "PT1H"}),
    Scenario("two sources, one given and one sent", [
        ("01:00", "give 00:00 01:00 of a; send 00:00 00:30 of b", "00:00 wait: b has not collected 00:30-01:00"),
        ("02:00", "send 00:30 01:10 of b", "00:00 build 1 / 01:00 wait: a has not collected 01:00-02:00; b has not"),
    ], sources={"a": "PT30M", "b": None}),
    Scenario("an hour from windows of five minutes", [
        ("01:00", "give 00:00 00:25; give 00:30 01:00", "00:00 wait: s has not collected 00:25-00:30"),
        ("02:00", "give 00:25 00:30", "00:00 build 1"),
    ], sources={"s": "PT5M"}),
    Scenario("six hours from hourly and from ten-minute windows", [
        ("1d01:00", "give 18:00 1d00:00 of a; give 18:00 21:00 of b", "18:00 wait: b has not collected 21:00-00:00"),
        ("1d02:00", "give 21:00 1d00:00 of b", "18:00 build 1"),
    ], span="PT6H", sources={"a": "PT1H", "b": "PT10M"}),
    Scenario("a day from hourly windows", [
        ("1d01:00", "give 00:00 1d00:00", "00:00 build 1"),
        ("1d02:00", "warmer 13:00 14:00", "00:00 build 2"),
    ], span="P1D", sources=HOURLY),
    Scenario("hours from a window of three", [
        ("03:00", "give 00:00 03:00", "00:00 build 1 / 01:00 build 1 / 02:00 build 1"),
    ], sources={"s": "PT3H"}),
    Scenario("a week to Monday", [
        ("6d00:00", "give 00:00 6d00:00", "00:00 wait: open until 2026-06-22 00:00"),
        ("7d00:00", "", "00:00 wait: s has not collected 06-21 00:00-06-22 00:00"),
        ("8d00:00", "give 6d00:00 7d00:00", "00:00 build 1"),
    ], span="P7D", sources={"s": "P1D"}),
    Scenario("a file that is lost is made again, the same", [
        ("01:00", "give 00:00 01:00", "00:00 build 1"),
        ("02:00", "lose 00:00; by hand 00:00", "00:00 unchanged"),
    ]),
    Scenario("a restart in between", [
        ("01:00", "give 00:00 00:30; restart", "00:00 wait: s has not collected 00:30-01:00"),
        ("03:00", "give 00:30 01:00; restart", "00:00 build 1"),
        ("04:00", "warmer 00:30 01:00", "00:00 build 2"),
    ]),
    Scenario("down for a week", [
        ("00:30", "give 00:00 00:30", "00:00 wait: open"),
        ("8d00:00", "give 00:30 01:00; restart", "00:00 build 1"),
    ], {"allow_incomplete": "never"}),
]  # fmt: skip
