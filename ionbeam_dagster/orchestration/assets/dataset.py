"""A dataset in Dagster: its windows, and the job that builds and exports them.

Belongs here: `dataset_definitions`. Does not belong here: whether a window is to be built (domain/decisions.py).
"""

from time import perf_counter

import dagster as dg

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration import automation, checks, metadata
from ionbeam_dagster.orchestration.assets import FORCE_TAG, OUTDATED_TAG, Done, Events, range_runs, window_by_window
from ionbeam_dagster.orchestration.assets.cycles import cycle_asset
from ionbeam_dagster.orchestration.assets.exports import export_asset, export_key
from ionbeam_dagster.orchestration.assets.source import observations_key
from ionbeam_dagster.orchestration.automation import Ionbeam
from ionbeam_dagster.orchestration.internals import from_automation
from ionbeam_dagster.orchestration.partitions import dataset_partitions
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline.agenda import is_outdated
from ionbeam_dagster.pipeline.build import build, code_version, describe
from ionbeam_dagster.pipeline.cycles import outlook_of
from ionbeam_dagster.pipeline.platform import Platform


def dataset_key(dataset: str) -> dg.AssetKey:
    return dg.AssetKey([dataset, "dataset"])


def build_job(dataset: str) -> str:
    return f"{dataset}__build"


def dataset_definitions(ionbeam: Ionbeam, dataset: DatasetSettings) -> dg.Definitions:
    """``<name>/dataset``, an asset for each of its exports, and their job."""
    partitions = dataset_partitions(dataset)
    key = dataset_key(dataset.name)
    exports = [export_asset(ionbeam, dataset, format, partitions, key) for format in dataset.exports]
    exports += [cycle_asset(ionbeam, dataset, format, key) for format in dataset.cycle_exports]
    job = dg.define_asset_job(
        build_job(dataset.name),
        selection=dg.AssetSelection.assets(key, *(export_key(dataset.name, format) for format in dataset.exports)),
        description=f"Builds windows of {dataset.name} from what was ingested, and exports them.",
        tags={"ionbeam/dataset": dataset.name},
    )
    what = f"Builds and exports by itself what is due of {dataset.name}."
    keys = [key, *(asset.key for asset in exports)]
    sensor = automation.automation_sensor(ionbeam.platform.config.automation, f"{dataset.name}__building", keys, what)
    return dg.Definitions(assets=[_dataset(ionbeam, dataset, partitions), *exports], jobs=[job], sensors=[sensor])


def _dataset(
    ionbeam: Ionbeam, dataset: DatasetSettings, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.AssetsDefinition:
    key = dataset_key(dataset.name)
    # Sources of one dataset may begin at different times: what one of them never had is no missing dependency.
    begun = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(observations_key(source), partition_mapping=begun) for source in dataset.sources],
        partitions_def=partitions,
        backfill_policy=range_runs(dataset.span),
        automation_condition=automation.builds(ionbeam, dataset.name),
        check_specs=checks.dataset_specs(key, partitions),
        code_version=code_version(dataset),
        group_name=dataset.name,
        owners=metadata.OWNERS,
        kinds={"python", "parquet"},
        tags={"ionbeam/dataset": dataset.name, "ionbeam/stage": "dataset"},
        description=(
            f"Windows of {dataset.name}: every point once, the latest value of each variable, one Parquet file a "
            "revision.\n\nMaterialising a window by hand builds it from what there is, even with gaps; what holds "
            "everything that arrived, or is sealed, is left as it is, unless the run has the tag "
            f"`{FORCE_TAG}: true`. The decision and its reason stand in the metadata."
        ),
    )
    def windows(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> Events:
        insist = not from_automation(context.run)
        force = context.run.tags.get(FORCE_TAG) == "true"
        renew = ionbeam.platform.config.automation.remake_outdated or context.run.tags.get(OUTDATED_TAG) == "true"

        def work(window: Window) -> Done:
            begun = perf_counter()
            anew = force or (renew and is_outdated(ionbeam.platform, dataset, window))
            built = build(ionbeam.platform, dataset, window, ionbeam.platform.now(), insist, anew)
            if built.revision is None:
                raise PipelineError(f"{dataset.name} {window}: {describe(built.decision)[1]}")
            _tell_cycles(context, ionbeam.platform, dataset, window)
            claims = ionbeam.platform.ledger.claims(dataset.name, window)
            keys = [observations_key(source) for source in dataset.sources]
            with ionbeam.platform.files.fetched(built.revision.path) as path:
                results = checks.of_dataset(built.revision, path, claims)
                told = metadata.of_dataset(built, path, keys, perf_counter() - begun, dataset.limits)
                return Done(told, results)

        yield from window_by_window(context, ionbeam, dataset.span, work)

    return windows


def _tell_cycles(
    context: dg.AssetExecutionContext, platform: Platform, dataset: DatasetSettings, window: Window
) -> None:
    """Let the pages of the window's cycle say so when the window comes too late for it."""
    cycle = cycle_of(window.start)
    for format in dataset.cycle_exports:
        outlook = outlook_of(platform, dataset, platform.config.cycle_exporters[format], cycle, platform.now())
        for evaluation in checks.of_late_window(export_key(dataset.name, format), cycle, outlook):
            context.instance.report_runless_asset_event(evaluation)
