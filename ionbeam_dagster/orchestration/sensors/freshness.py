"""Freshness: a check of each source and dataset that turns when it is not as new as it should be.

Dagster's own freshness counts materialisations, and is content with one of a window of long ago, or without a row.
Belongs here: the checks, and the sensor that evaluates them, whether anything runs or not. Does not belong here:
what is late (pipeline/freshness.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import dagster as dg

from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.orchestration.assets.dataset import dataset_key
from ionbeam_dagster.orchestration.assets.source import observations_key
from ionbeam_dagster.orchestration.internals import ResultOfAll
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline.freshness import dataset_is_late, source_is_late
from ionbeam_dagster.pipeline.platform import Platform

CHECK = "freshness"
_LOOKED_EVERY = 60  # seconds
_WELL = "it is as new as it should be"


def freshness_definitions(ionbeam: PlatformResource | WatchedPlatform) -> dg.Definitions:
    """The check ``freshness`` of each ``<source>/observations`` and ``<dataset>/dataset``, and their sensor."""
    config = ionbeam.platform.config
    products: list[SourceSettings | DatasetSettings] = [*config.sources.values(), *config.datasets.values()]

    @dg.sensor(
        name=CHECK,
        minimum_interval_seconds=_LOOKED_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING if config.automation.enabled else dg.DefaultSensorStatus.STOPPED,
        description="Looks whether each source and dataset is as new as it should be, and turns its check when not.",
    )
    def freshness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before: dict[str, str] = json.loads(context.cursor or "{}")
        late = {_key(product): _is_late(ionbeam.platform, product) for product in products}
        now = {key.to_user_string(): _in_general(why) for key, why in late.items()}
        news = list(_evaluations(late, before))
        count = sum(why is not None for why in late.values())
        told = dg.SkipReason(f"{count} of {len(late)} sources and datasets are late")
        return dg.SensorResult(skip_reason=told, cursor=json.dumps(now), asset_events=news)

    return dg.Definitions(asset_checks=[_check(product) for product in products], sensors=[freshness])


def _check(product: SourceSettings | DatasetSettings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=_key(product),
        name=CHECK,
        description="It is as new as it should be by now: nothing that is due stands still, and rows come.",
    )
    def check(ionbeam: PlatformResource) -> dg.AssetCheckResult:
        why = _is_late(ionbeam.platform, product)
        return ResultOfAll(passed=why is None, description=why or _WELL)

    return check


def _evaluations(late: dict[dg.AssetKey, str | None], before: dict[str, str]) -> Iterator[dg.AssetCheckEvaluation]:
    """Those that are other than `before`."""
    for key, why in late.items():
        if before.get(key.to_user_string()) != _in_general(why):
            yield dg.AssetCheckEvaluation(
                asset_key=key, check_name=CHECK, passed=why is None, metadata={}, description=why or _WELL
            )


def _in_general(why: str | None) -> str:
    """A reason without its numbers: what is late for the same reason is not told again each minute."""
    return re.sub(r"\d[\d:,.-]*", "", why or "")


def _is_late(platform: Platform, product: SourceSettings | DatasetSettings) -> str | None:
    if isinstance(product, SourceSettings):
        return source_is_late(platform, product, platform.now())
    return dataset_is_late(platform, product, platform.now())


def _key(product: SourceSettings | DatasetSettings) -> dg.AssetKey:
    return observations_key(product.name) if isinstance(product, SourceSettings) else dataset_key(product.name)
