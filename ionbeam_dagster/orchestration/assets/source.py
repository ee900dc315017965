"""A source in Dagster: its raw partitions, its observations and the job that collects both.

Belongs here: `source_definitions`. Does not belong here: the sources themselves (ionbeam_dagster.sources).
"""

from time import perf_counter

import dagster as dg

from ionbeam_dagster.config import DatasetSettings, SourceSettings
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration import automation, checks, metadata
from ionbeam_dagster.orchestration.assets import (
    REPLACE_TAG,
    TRIES,
    USE_CACHE_TAG,
    Done,
    Events,
    range_runs,
    window_by_window,
)
from ionbeam_dagster.orchestration.assets.request import request_asset, request_key
from ionbeam_dagster.orchestration.automation import Ionbeam
from ionbeam_dagster.orchestration.dead_runs import pool_of
from ionbeam_dagster.orchestration.partitions import source_partitions
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.orchestration.sensors.corrections import confirmations_sensor, corrections_check
from ionbeam_dagster.orchestration.sensors.files import changes_sensor, is_looked_at_again
from ionbeam_dagster.pipeline.agenda import outlook
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest

SOURCE_TAG = "ionbeam/source"
"""On the runs that ask a source: how many of these there are at once is limited (dagster.yaml), so that services that
hang leave places for datasets."""


def raw_key(source: str) -> dg.AssetKey:
    return dg.AssetKey([source, "raw"])


def observations_key(source: str) -> dg.AssetKey:
    return dg.AssetKey([source, "observations"])


def collect_job(source: str) -> str:
    return f"{source}__collect"


def source_definitions(ionbeam: Ionbeam, source: SourceSettings, dataset: DatasetSettings) -> dg.Definitions:
    """``<name>/raw`` and ``<name>/observations``, their job, and a sensor where past windows may change.

    A source that clients send has ``<name>/request`` before them, if there is a broker to ask them by.
    """
    partitions = source_partitions(source, dataset)
    asking = source.kind == "external" and ionbeam.platform.config.sections.broker is not None
    requests = [request_asset(ionbeam, source, partitions)] if asking else []
    raw = _sent_raw(source, partitions, asking) if source.sent else _raw(ionbeam, source, partitions)
    observations = _observations(ionbeam, source, dataset, partitions)
    selection = [observations.key] if source.sent else [raw_key(source.name), observations.key]
    job = dg.define_asset_job(
        collect_job(source.name),
        selection=dg.AssetSelection.assets(*selection),
        description=f"Collects windows of {source.name} and ingests them.",
        tags={SOURCE_TAG: source.name},
    )
    what = f"Collects and ingests by itself what is due of {source.name}."
    keys = [asset.key for asset in (*requests, raw, observations)]
    settings, tags = ionbeam.platform.config.automation, {SOURCE_TAG: source.name}
    sensors: list[dg.SensorDefinition] = [
        automation.automation_sensor(settings, f"{source.name}__collecting", keys, what, tags)
    ]
    if source.tells_changes or is_looked_at_again(source):
        sensors.append(changes_sensor(ionbeam, source))
    checks: list[dg.AssetChecksDefinition] = []
    if source.corrects:
        sensors.append(confirmations_sensor(ionbeam, source))
        checks.append(corrections_check(source))
    return dg.Definitions(assets=[*requests, raw, observations], asset_checks=checks, jobs=[job], sensors=sensors)


def _raw(
    ionbeam: Ionbeam, source: SourceSettings, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.AssetsDefinition:
    by_itself = not source.tells_changes

    @dg.asset(
        key=raw_key(source.name),
        partitions_def=partitions,
        backfill_policy=range_runs(source.window_size),
        automation_condition=automation.collects(ionbeam, source),
        pool=None if isinstance(ionbeam, WatchedPlatform) else pool_of(source.name),
        group_name=source.name,
        owners=metadata.OWNERS,
        kinds={"python", "parquet"},
        tags={"ionbeam/source": source.name, "ionbeam/stage": "raw"},
        description=(
            f"What {source.name} gave for each window, as it came: one Parquet file with its ingestion metadata.\n\n"
            "Materialising a window asks the source again. What comes back the same changes nothing downstream. With "
            f"the tag `{USE_CACHE_TAG}: true` on the run the source may use what it downloaded before. What the source "
            f"gave before and no longer gives stays; with the tag `{REPLACE_TAG}: true` it goes."
        ),
    )
    def raw(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> Events:
        use_cache = context.run.tags.get(USE_CACHE_TAG) == "true"
        replace = context.run.tags.get(REPLACE_TAG) == "true"

        def work(window: Window) -> Done:
            begun = perf_counter()
            collected = collect(ionbeam.platform, source, window, ionbeam.platform.now(), use_cache, replace)
            with ionbeam.platform.files.parquet(collected.path) as file:
                return Done(metadata.of_raw(collected, file.schema_arrow, perf_counter() - begun))

        yield from window_by_window(context, ionbeam, source.window_size, work, TRIES if by_itself else 1)

    return raw


def _sent_raw(source: SourceSettings, partitions: dg.TimeWindowPartitionsDefinition, asked: bool) -> dg.AssetSpec:
    return dg.AssetSpec(
        raw_key(source.name),
        deps=[request_key(source.name)] if asked else [],
        partitions_def=partitions,
        group_name=source.name,
        owners=metadata.OWNERS,
        kinds={"parquet"},
        tags={"ionbeam/source": source.name, "ionbeam/stage": "raw"},
        description=f"What a client outside sent for each window of {source.name}: reported as it arrives.",
    )


def _observations(
    ionbeam: Ionbeam,
    source: SourceSettings,
    dataset: DatasetSettings,
    partitions: dg.TimeWindowPartitionsDefinition,
) -> dg.AssetsDefinition:
    @dg.asset(
        key=observations_key(source.name),
        deps=[raw_key(source.name)],
        partitions_def=partitions,
        backfill_policy=range_runs(source.window_size),
        automation_condition=automation.ingests(ionbeam, source),
        group_name=source.name,
        owners=metadata.OWNERS,
        kinds={"python", "timeseries"},
        tags={"ionbeam/source": source.name, "ionbeam/stage": "observations"},
        description=(
            f"Observations of {source.name} in canonical CF columns and units, in the time-series store.\n\n"
            "Materialising a window ingests its raw partition again. Rows that cannot be used go to a quarantine file "
            "with their reasons. The metadata tell what is now to be said of each dataset window that it touches."
        ),
    )
    def observations(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> Events:
        def work(window: Window) -> Done:
            begun = perf_counter()
            ingested = ingest(ionbeam.platform, source, window)
            windows = outlook(ionbeam.platform, ingested.claim, ionbeam.platform.now())
            for evaluation in checks.of_late_data(dg.AssetKey([dataset.name, "dataset"]), windows):
                context.instance.report_runless_asset_event(evaluation)
            return Done(metadata.of_observations(ingested, raw_key(source.name), perf_counter() - begun, windows))

        yield from window_by_window(context, ionbeam, source.window_size, work)

    return observations
