"""What fails for long, told on the pages of its assets in Dagster.

Belongs here: the observation of a window that is late because its work fails. Does not belong here: what fails, and
since when (pipeline/agenda), or runs, which tell of each failure themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from hashlib import sha256

import dagster as dg

from ionbeam_dagster.orchestration.assets.dataset import dataset_key
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.assets.source import observations_key, raw_key
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.attempts import Attempt

MOST_AT_ONCE = 50
"""Windows that are told of in one tick; each costs Dagster's database some 20 ms."""


def report_overdue(
    platform: Platform, instance: dg.DagsterInstance, now: datetime, reported: Collection[str]
) -> list[str]:
    """Record what fails for long as observations of its assets, each once while its reason stays the same.

    `reported` is what was told before, as this returns it.
    """
    known, told = set(reported), list[str]()
    new = 0
    for one in agenda.overdue(platform, now):
        text = f"{one.stage} {one.product} {one.window} {one.since.isoformat()} {one.error}"
        name = sha256(text.encode()).hexdigest()[:12]
        if name not in known:
            if new == MOST_AT_ONCE:
                continue
            new += 1
            instance.report_runless_asset_event(_observation(platform, one))
        told.append(name)
    return told


def _observation(platform: Platform, one: Attempt) -> dg.AssetObservation:
    return dg.AssetObservation(
        _asset_of(one),
        partition=one.window.key,
        description=agenda.in_words(platform, [one]),
        metadata={
            "failing since": dg.MetadataValue.timestamp(one.since),
            "tries": one.failures,
            "reason": dg.MetadataValue.text(one.error or "its runs end without a word"),
            "next try": dg.MetadataValue.timestamp(one.next),
        },
    )


def _asset_of(one: Attempt) -> dg.AssetKey:
    if one.stage == "collect":
        return raw_key(one.product)
    if one.stage == "ingest":
        return observations_key(one.product)
    dataset, _, format = one.product.partition("/")
    return export_key(dataset, format) if format else dataset_key(dataset)
