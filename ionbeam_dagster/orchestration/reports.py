"""Telling Dagster what clients sent, and `ionbeam bridge`, which does it as a process of its own.

Belongs here: the external raw partitions that are reported as they arrive. Does not belong here: how messages are taken
in (bus/), or what Dagster does about it (automation.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

import dagster as dg

from ionbeam_dagster.bus.inbox import Inbox
from ionbeam_dagster.orchestration.assets.source import raw_key
from ionbeam_dagster.pipeline import Platform

MOST_AT_ONCE = 100
"""Windows reported between two looks at the clock; each costs Dagster's database some 20 ms."""


def report_arrivals(inbox: Inbox, instance: dg.DagsterInstance, seconds: float) -> int:
    """Report the raw partitions into which something was sent, for at most `seconds`; returns how many.

    Commands into one window are told together. What cannot be told in time waits for the next call.
    """
    until = time.monotonic() + seconds
    reported = 0
    while arrivals := inbox.unreported(MOST_AT_ONCE):
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
            inbox.reported(arrival)
            reported += 1
    return reported


def serve_bridge(platform: Platform) -> None:
    """Take in and announce until SIGTERM or SIGINT, and report to the Dagster of ``$DAGSTER_HOME`` if that is set."""
    bridge = platform.bridge

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if not os.environ.get("DAGSTER_HOME"):
            await bridge.serve(stop)
            return
        with dg.DagsterInstance.get() as instance:
            await bridge.serve(stop, partial(report_arrivals, bridge.inbox, instance, 1.0))

    asyncio.run(serve())
