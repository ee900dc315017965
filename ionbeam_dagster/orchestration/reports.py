"""Telling Dagster what clients sent.

Belongs here: the external raw partitions that are reported as they arrive, by the sensor or by `ionbeam bridge`. Does
not belong here: how messages are taken in (doors/amqp), or what Dagster does about it (automation.py).
"""

from __future__ import annotations

import time

import dagster as dg

from ionbeam_dagster.orchestration.assets.source import raw_key
from ionbeam_dagster.stores.ledger import Ledger

MOST_AT_ONCE = 100
"""Windows reported between two looks at the clock; each costs Dagster's database some 20 ms."""


def report_arrivals(ledger: Ledger, instance: dg.DagsterInstance, seconds: float) -> int:
    """Report the raw partitions into which something was sent, for at most `seconds`; returns how many.

    Commands into one window are told together. What cannot be told in time waits for the next call.
    """
    until = time.monotonic() + seconds
    reported = 0
    while arrivals := ledger.commands.unreported(MOST_AT_ONCE):
        for arrival in arrivals:
            if time.monotonic() > until:
                return reported
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    raw_key(arrival.source),
                    partition=arrival.window.key,
                    metadata={
                        "commands": arrival.commands,
                        "rows in these commands": arrival.rows,
                        "last ingestion": arrival.last,
                        "window start": dg.MetadataValue.timestamp(arrival.window.start),
                        "window end": dg.MetadataValue.timestamp(arrival.window.end),
                    },
                    tags={"dagster/data_version": arrival.last},
                )
            )
            ledger.commands.note_reported([arrival])
            reported += 1
    return reported
