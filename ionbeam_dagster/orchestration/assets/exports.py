"""The exports of a dataset in Dagster: one asset a format.

Belongs here: `export_asset`. Does not belong here: how a format is written (ionbeam_dagster.exporters).
"""

from time import perf_counter

import dagster as dg

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration import automation, checks, metadata
from ionbeam_dagster.orchestration.assets import Done, Events, range_runs, window_by_window
from ionbeam_dagster.orchestration.automation import Ionbeam
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline.export import export


def export_key(dataset: str, format: str) -> dg.AssetKey:
    return dg.AssetKey([dataset, format])


def export_asset(
    ionbeam: Ionbeam,
    dataset: DatasetSettings,
    format: str,
    partitions: dg.TimeWindowPartitionsDefinition,
    exported_from: dg.AssetKey,
) -> dg.AssetsDefinition:
    """``<dataset>/<format>``: the current export of every window, at a stable path."""
    exporter = ionbeam.platform.config.window_exporters[format]
    key = export_key(dataset.name, format)

    @dg.asset(
        key=key,
        deps=[exported_from],
        partitions_def=partitions,
        backfill_policy=range_runs(dataset.span),
        automation_condition=automation.exports(ionbeam, dataset.name, format),
        check_specs=checks.export_specs(key, partitions, exporter),
        code_version=exporter.fingerprint,
        group_name=dataset.name,
        owners=metadata.OWNERS,
        kinds={"python", *exporter.kinds},
        tags={"ionbeam/dataset": dataset.name, "ionbeam/stage": "export", "ionbeam/format": format},
        description=(
            f"Windows of {dataset.name} as {exporter.title}.\n\n"
            "Each file is read back by a decoder that is not ours before it takes its predecessor's place."
        ),
    )
    def exported(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> Events:
        def work(window: Window) -> Done:
            begun = perf_counter()
            made = export(ionbeam.platform, dataset, exporter, window)
            seconds = perf_counter() - begun
            latest = ionbeam.platform.ledger.latest_revision(dataset.name, window)
            assert latest is not None  # export() has just read it
            with ionbeam.platform.files.fetched(latest.path) as path:
                told = metadata.of_export(made, exported_from, [path], seconds)
                return Done(told, checks.of_export(exporter, made.report))

        yield from window_by_window(context, ionbeam, dataset.span, work)

    return exported
