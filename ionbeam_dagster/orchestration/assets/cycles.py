"""The analysis cycles of a dataset in Dagster: one asset, whose partitions are the cycles.

Belongs here: `cycle_asset`. Does not belong here: what a cycle's file is to hold (domain/cycles.py).
"""

from contextlib import ExitStack
from time import perf_counter

import dagster as dg

from ionbeam_dagster import __version__
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.cycles import CYCLE
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration import automation, checks, metadata
from ionbeam_dagster.orchestration.assets import Done, Events, range_runs, window_by_window
from ionbeam_dagster.orchestration.automation import Ionbeam
from ionbeam_dagster.orchestration.partitions import cycle_partitions
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline.cycles import FORMAT, export_cycle


def cycle_key(dataset: str) -> dg.AssetKey:
    return dg.AssetKey([dataset, FORMAT])


def cycle_asset(ionbeam: Ionbeam, dataset: DatasetSettings, made_of: dg.AssetKey) -> dg.AssetsDefinition:
    """``<dataset>/odb_cycle``: the current file of every analysis cycle, at a stable path."""
    key, partitions = cycle_key(dataset.name), cycle_partitions(dataset)
    within = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(made_of, partition_mapping=within)],
        partitions_def=partitions,
        backfill_policy=range_runs(CYCLE),
        automation_condition=automation.cycles(ionbeam, dataset.name),
        check_specs=checks.cycle_specs(key, partitions),
        code_version=__version__,
        group_name=dataset.name,
        owners=metadata.OWNERS,
        kinds={"python", "odb"},
        tags={"ionbeam/dataset": dataset.name, "ionbeam/stage": "export", "ionbeam/format": FORMAT},
        description=(
            f"Analysis cycles of {dataset.name} as ODB-2: 21 to 03, 03 to 09, 09 to 15 and 15 to 21 UTC, one file each."
            "\n\nA cycle waits for its windows until its cut-off, and takes what is built anew until then. "
            "Materialising one by hand makes its file of what there is."
        ),
    )
    def cycles(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> Events:
        platform = ionbeam.platform

        def work(cycle: Window) -> Done:
            begun = perf_counter()
            exported = export_cycle(platform, dataset.name, cycle, platform.now())
            seconds = perf_counter() - begun
            with ExitStack() as opened:
                files = [opened.enter_context(platform.files.fetched(path)) for path in exported.files]
                told = metadata.of_cycle(exported, made_of, files, seconds)
            return Done(told, checks.of_cycle(exported.outlook))

        yield from window_by_window(context, ionbeam, CYCLE, work)

    return cycles
