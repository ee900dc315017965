"""The whole platform on one page: a configuration becomes assets, jobs, sensors and automation.

Belongs here: `build_definitions`. Does not belong here: any one asset or sensor.
"""

from __future__ import annotations

import warnings

import dagster as dg

for _known in (dg.BetaWarning, dg.PreviewWarning):  # of backfill policies and partitioned checks, at every start
    warnings.filterwarnings("ignore", category=_known)

from ionbeam_dagster import edr  # noqa: E402
from ionbeam_dagster.orchestration.assets.dataset import dataset_definitions  # noqa: E402
from ionbeam_dagster.orchestration.assets.heard import heard_definitions  # noqa: E402
from ionbeam_dagster.orchestration.assets.history import history_definitions  # noqa: E402
from ionbeam_dagster.orchestration.assets.report import report_definitions  # noqa: E402
from ionbeam_dagster.orchestration.assets.retention import retention_definitions  # noqa: E402
from ionbeam_dagster.orchestration.assets.source import source_definitions  # noqa: E402
from ionbeam_dagster.orchestration.assets.stations import stations_definitions  # noqa: E402
from ionbeam_dagster.orchestration.automation import Ionbeam  # noqa: E402
from ionbeam_dagster.orchestration.sealing import seal_job  # noqa: E402
from ionbeam_dagster.orchestration.sensors.bridge import bus_sensors  # noqa: E402
from ionbeam_dagster.orchestration.sensors.dead_runs import dead_runs_sensor  # noqa: E402
from ionbeam_dagster.orchestration.sensors.freshness import freshness_definitions  # noqa: E402
from ionbeam_dagster.orchestration.sensors.reconciliation import reconciliation_sensor  # noqa: E402


def build_definitions(ionbeam: Ionbeam) -> dg.Definitions:
    """Everything that Dagster is to know of a platform: one Definitions a source and a dataset, merged."""
    config = ionbeam.platform.config
    sources = [
        source_definitions(ionbeam, source, config.datasets[source.dataset]) for source in config.sources.values()
    ]
    datasets = [dataset_definitions(ionbeam, dataset) for dataset in config.datasets.values()]
    collecting = [job for source in sources for job in source.jobs or []]
    platform = dg.Definitions(
        jobs=[seal_job()],
        resources={"ionbeam": ionbeam},
        sensors=[dead_runs_sensor(ionbeam), reconciliation_sensor(ionbeam), *bus_sensors(ionbeam, collecting)],
        executor=dg.in_process_executor,  # parallelism comes from runs: a step's own process costs seconds
    )
    purged = retention_definitions(config.sections.retention, config.automation)
    pruned = history_definitions(config.sections.history, config.automation)
    served = []
    if not edr.lacking():  # an extra
        from ionbeam_dagster.orchestration.assets.service import service_definitions

        served = [service_definitions(ionbeam)]
    by_the_clock = [heard_definitions(config), stations_definitions(config), report_definitions(config.automation)]
    by_the_clock += [purged, pruned, freshness_definitions(ionbeam)]
    return dg.Definitions.merge(*sources, *datasets, *served, *by_the_clock, platform)
