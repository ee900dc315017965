"""Reports whose bytes are known: made once with the vendor's package, as facts for machines that do not have it.

``python tests/client_archfx/archfx_vectors.py`` makes `vectors.json` anew from what is listed here. Belongs here: what
the reports are made of. Does not belong here: any encoding.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

FILE = Path(__file__).with_name("vectors.json")
TENTH = datetime(2021, 1, 20, 0, 0, 0, 100_000, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))

SPECIFIED = [
    {"timestamp": TENTH, "stream": "0001-5090", "value": 2.0,
     "summary_data": {"foo": 5, "bar": "foobar"}, "raw_data": None, "reading_id": 1000},
    {"timestamp": TENTH + timedelta(milliseconds=100), "stream": "0001-5090", "value": 3.0,
     "summary_data": {"foo": 6, "bar": "foobar"}, "reading_id": 1001},
]  # fmt: skip
REPORTS = {
    "the specification's": (
        SPECIFIED,
        {"device": "d--1234", "report_id": 1003, "streamer": 0xFF, "sent_timestamp": datetime(2021, 1, 20, 0, 0, 1)},
    ),
    "empty": ([], {"device": 1}),
    "out of order, and one without an id": (
        [*reversed(SPECIFIED), {"timestamp": datetime(2021, 1, 20), "stream": 0x5051, "value": -0.0}],
        {"device": "d--0000-0001-0000-0001", "selector": 0, "sent_timestamp": TENTH},
    ),
    "times of every kind": (
        [
            {"timestamp": moment, "stream": (1, 0x5090), "value": place, "reading_id": place + 1}
            for place, moment in enumerate(
                [
                    datetime(1, 1, 1),
                    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
                    datetime(1969, 12, 31, 23, 59, 59, tzinfo=INDIA),
                    "2021-01-20T00:00:00Z",
                ]
            )
        ],
        {"device": 2**64 - 1, "report_id": 2**64 - 1},
    ),
    "data of every kind": (
        [
            {"timestamp": TENTH, "stream": 1, "value": 1e300, "reading_id": 2**32,
             "summary_data": {"text": "Wärme 🌡", "nothing": None, "yes": True, "": 2**63,
                              "far": TENTH.astimezone(INDIA)},
             "raw_data": {"list": [1, -129, 2.5, "x" * 300, {"deep": {"er": [[]]}}], "bytes": b"\xcb\x7f\xf8" * 80}},
        ],
        {"device": "m--0001"},
    ),
}  # fmt: skip


def main() -> None:
    from archfx_oracle import Vendor, vendors_python

    vendor = Vendor(vendors_python())
    made = {name: vendor("report", points, **arguments).hex() for name, (points, arguments) in REPORTS.items()}
    FILE.write_text(json.dumps(made, indent=1) + "\n")
    vendor.process.stdin.close()


if __name__ == "__main__":
    main()
