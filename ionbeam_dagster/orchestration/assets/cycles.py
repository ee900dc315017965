"""The analysis cycles of a dataset in Dagster: one asset, whose partitions are the cycles.

Belongs here: `cycle_asset`. Does not belong here: what a cycle's file is to hold (domain/cycles.py).
"""

from contextlib import ExitStack
from time import perf_counter

import dagster as dg

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.cycles import CYCLE
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration import automation, checks, metadata
from ionbeam_dagster.orchestration.assets import Done, Events, range_runs, window_by_window
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.automation import Ionbeam
from ionbeam_dagster.orchestration.partitions import cycle_partitions
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline.cycles import export_cycle


def cycle_asset(ionbeam: Ionbeam, dataset: DatasetSettings, format: str, made_of: dg.AssetKey) -> dg.AssetsDefinition:
    """``<dataset>/<format>``: the current file of every analysis cycle, at a stable path."""
    key, partitions = export_key(dataset.name, format), cycle_partitions(dataset)
    exporter = ionbeam.platform.config.cycle_exporters[format]
    within = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(made_of, partition_mapping=within)],
        partitions_def=partitions,
        backfill_policy=range_runs(CYCLE),
        automation_condition=automation.cycles(ionbeam, dataset.name, format),
        check_specs=checks.export_specs(key, partitions, exporter),
        code_version=exporter.fingerprint,
        group_name=dataset.name,
        owners=metadata.OWNERS,
        kinds={"python", *exporter.kinds},
        tags={"ionbeam/dataset": dataset.name, "ionbeam/stage": "export", "ionbeam/format": format},
        description=(
            f"Analysis cycles of {dataset.name} (21 to 03, 03 to 09, 09 to 15 and 15 to 21 UTC), one file each, as "
            f"{exporter.title}.\n\n"
            "A cycle waits for its windows until its cut-off, and takes what is built anew until then. "
            "Materialising one by hand makes its file of what there is."
        ),
    )
    def cycles(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> Events:
        platform = ionbeam.platform

        def work(cycle: Window) -> Done:
            begun = perf_counter()
            exported = export_cycle(platform, dataset, exporter, cycle, platform.now())
            seconds = perf_counter() - begun
            with ExitStack() as opened:
                files = [opened.enter_context(platform.files.fetched(path)) for path in exported.files]
                told = metadata.of_cycle(exported, made_of, files, seconds)
            own = checks.of_export(exporter, exported.made.report)
            return Done(told, [*checks.of_cycle(exported.outlook), *own])

        yield from window_by_window(context, ionbeam, CYCLE, work)

    return cycles
