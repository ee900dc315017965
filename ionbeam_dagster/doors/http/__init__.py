"""The HTTP door: stations write line protocol as to InfluxDB, devices upload their reports.

Belongs here: requests (app, reports), who may make them (tokens), the journal that holds what they brought until it is
taken in (journal, sequences, memory), how lines become rows of their source (lines, mapping, flush), where the others
are parked (parked), what people are told of them (status, proposals) and when they go (leftovers), and the server
(serving). Does not belong here: the block of a source (sources/door.py), or what happens to raw partitions afterwards.
"""

from __future__ import annotations

from importlib.util import find_spec


def lacking() -> str | None:
    """What has to be installed before the door can open; None when nothing has."""
    needed = ("waitress", "werkzeug", "line_protocol_parser", "msgpack")
    missing = [name for name in needed if find_spec(name) is None]
    return f"{', '.join(missing)}: pip install 'ionbeam-dagster[door]'" if missing else None
