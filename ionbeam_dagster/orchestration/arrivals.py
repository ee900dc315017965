"""What clients sent, told to Dagster and brought up to date in this process, as soon as it is there.

Belongs here: what `ionbeam bridge` and `ionbeam receive` do once something was taken in. The ledger says what there is
to do, as it does for automation, which finds nothing left where this was first. Does not belong here: taking in
(doors/), or what a run does (assets/).
"""

from __future__ import annotations

from uuid import uuid4

import dagster as dg

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.intake import inbox_of
from ionbeam_dagster.orchestration.assets.dataset import build_job, dataset_key
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.assets.source import collect_job, observations_key
from ionbeam_dagster.orchestration.dead_runs import PROCESS_TAG, end_dead_runs, this_process
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.heartbeats import beating
from ionbeam_dagster.orchestration.partitions import contiguous_runs, dataset_partitions, source_partitions, tags_of_run
from ionbeam_dagster.orchestration.reports import report_arrivals
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import QUIET
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import Stage
from ionbeam_dagster.pipeline.platform import Platform

Partitions = dg.TimeWindowPartitionsDefinition


class Arrivals:
    """Ingests what clients sent, and builds and exports the windows that are ready by it, each by a Dagster run.

    What there is to do, and when what failed is tried again, the agenda says, as it does to automation.
    """

    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self._platform = platform
        self._instance = instance
        self._inbox = inbox_of(platform)
        self._definitions = build_definitions(WatchedPlatform(platform))
        sources = platform.config.sources.values()
        self._sources = [source for source in sources if source.sent]
        self._datasets = [platform.dataset(name) for name in sorted({source.dataset for source in self._sources})]
        end_dead_runs(instance)

    def bring_up_to_date(self) -> None:
        """Do what there is to do now."""
        report_arrivals(self._inbox, self._instance, 5.0)
        if not self._platform.config.automation.enabled:
            return
        for source in self._sources:
            partitions = source_partitions(source, self._platform.dataset(source.dataset))
            name = source.name
            self._do("ingest", name, collect_job(name), [observations_key(name)], partitions)
        for dataset in self._datasets:
            partitions, name = dataset_partitions(dataset), dataset.name
            exports = {format: export_key(name, format) for format in dataset.exports}
            self._do("build", name, build_job(name), [dataset_key(name), *exports.values()], partitions)
            for format, key in exports.items():
                self._do("export", f"{name}/{format}", build_job(name), [key], partitions)

    def _do(self, stage: Stage, of: str, job: str, assets: list[dg.AssetKey], partitions: Partitions) -> None:
        now = self._platform.now()
        work = agenda.due_of(self._platform, stage, of, now)
        work = [one for one in work if partitions.has_partition_key(one.window.key)]
        agenda.begin(self._platform, work, now)
        self._run(job, assets, sorted(one.window for one in work))

    def _run(self, job: str, assets: list[dg.AssetKey], windows: list[Window]) -> None:
        for run in contiguous_runs(windows, windows[0].span) if windows else []:
            run_id = str(uuid4())
            with beating(self._platform, run_id, f"run of {job}"):
                self._definitions.resolve_job_def(job).execute_in_process(
                    asset_selection=assets,
                    tags=tags_of_run(run, windows[0].span) | {PROCESS_TAG: this_process()},
                    instance=self._instance,
                    run_config=QUIET,
                    raise_on_error=False,
                    run_id=run_id,
                )
