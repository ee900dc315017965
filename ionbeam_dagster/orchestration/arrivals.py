"""What clients sent, told to Dagster and brought up to date in this process, as soon as it is there.

Belongs here: the work of `ionbeam bridge` between taking in and announcing. The ledger says what there is to do, as it
does for automation, which finds nothing left where this was first. Does not belong here: messages (doors/amqp), or what
a run does (assets/).
"""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.decisions import Build
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.bridge import bridge_of
from ionbeam_dagster.orchestration.assets.dataset import build_job, dataset_key
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.assets.source import collect_job, observations_key
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.partitions import contiguous_runs, dataset_partitions, source_partitions, tags_of_run
from ionbeam_dagster.orchestration.reports import report_arrivals
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.orchestration.runs import PROCESS_TAG, QUIET, end_dead_runs, this_process
from ionbeam_dagster.pipeline.build import assess_due
from ionbeam_dagster.pipeline.ingest import waiting_raws
from ionbeam_dagster.pipeline.platform import Platform


class Arrivals:
    """Ingests what clients sent, and builds and exports the windows that are ready by it, each by a Dagster run.

    What failed is not tried again here: automation does that, a bounded number of times.
    """

    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self._platform = platform
        self._instance = instance
        self._definitions = build_definitions(WatchedPlatform(platform))
        self._tried: dict[str, dict[Window, str]] = {}
        sources = platform.config.sources.values()
        self._sources = [source for source in sources if source.kind == "external"]
        self._datasets = [platform.dataset(name) for name in sorted({source.dataset for source in self._sources})]
        end_dead_runs(instance)

    def bring_up_to_date(self) -> None:
        """Do what there is to do now."""
        report_arrivals(bridge_of(self._platform).inbox, self._instance, 5.0)
        if not self._platform.config.automation.enabled:
            return
        for source in self._sources:
            self._ingest(source.name)
        for dataset in self._datasets:
            self._build(dataset)

    def _ingest(self, name: str) -> None:
        source = self._platform.source(name)
        partitions = source_partitions(source, self._platform.dataset(source.dataset))
        waiting = {window: waiting_raws(self._platform, name, window) for window in self._platform.ledger.waiting(name)}
        work = {
            window: raws[-1].ingestion
            for window, raws in waiting.items()
            if raws and partitions.has_partition_key(window.key)
        }
        self._run(collect_job(name), [observations_key(name)], self._not_tried(name, work))

    def _build(self, dataset: DatasetSettings) -> None:
        partitions, now = dataset_partitions(dataset), datetime.now(UTC)
        assets = [dataset_key(dataset.name), *(export_key(dataset.name, format) for format in dataset.exports)]
        due = self._platform.ledger.due(dataset.name, now)
        due = [window for window in due if partitions.has_partition_key(window.key)]
        decisions = {window: assess_due(self._platform, dataset.name, window, now) for window in due}
        work = {window: decision.inputs for window, decision in decisions.items() if isinstance(decision, Build)}
        self._run(build_job(dataset.name), assets, self._not_tried(f"{dataset.name}/dataset", work))

    def _not_tried(self, of: str, work: dict[Window, str]) -> list[Window]:
        """The windows whose work is not what was tried before, and is remembered until it is done."""
        before, self._tried[of] = self._tried.get(of, {}), work
        return [window for window, what in work.items() if before.get(window) != what]

    def _run(self, job: str, assets: list[dg.AssetKey], windows: list[Window]) -> None:
        for run in contiguous_runs(windows, windows[0].span) if windows else []:
            self._definitions.resolve_job_def(job).execute_in_process(
                asset_selection=assets,
                tags=tags_of_run(run, windows[0].span) | {PROCESS_TAG: this_process()},
                instance=self._instance,
                run_config=QUIET,
                raise_on_error=False,
            )
