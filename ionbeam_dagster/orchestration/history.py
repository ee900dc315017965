"""Dagster's history of the platform: what of it goes when it is old, and how it is told of what it does not know.

Belongs here: `prune` and `rebuild`. Does not belong here: what becomes of data (pipeline/retention.py, recovery.py), or
how Dagster keeps its history (internals.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.config.sections import History
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.domain.windows import EPOCH, FOREVER, Window, windows_between
from ionbeam_dagster.orchestration.assets.dataset import dataset_key
from ionbeam_dagster.orchestration.assets.exports import export_key
from ionbeam_dagster.orchestration.assets.source import observations_key, raw_key
from ionbeam_dagster.orchestration.internals import delete_evaluations, delete_ticks, forget_run
from ionbeam_dagster.orchestration.partitions import cycle_partitions, dataset_partitions, source_partitions
from ionbeam_dagster.pipeline.platform import Platform

_AT_ONCE = 200
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True, slots=True)
class Pruned:
    """How much went of each kind."""

    runs: int
    ticks: int
    evaluations: int

    def __str__(self) -> str:
        return f"{self.runs} runs, {self.ticks} ticks and {self.evaluations} evaluations of automation"


def prune(instance: dg.DagsterInstance, settings: History, now: datetime) -> Pruned:
    """Remove what is older than the settings say; what assets' pages show of their partitions stays."""
    runs = 0
    filters = dg.RunsFilter(statuses=_ENDED, updated_before=now - settings.runs)
    while ended := instance.get_run_records(filters, limit=_AT_ONCE, ascending=True):
        for record in ended:
            forget_run(instance, record.dagster_run.run_id)
        runs += len(ended)
    ticks = delete_ticks(instance, now - settings.skipped_ticks, now - settings.runs)
    return Pruned(runs, ticks, delete_evaluations(instance, now - settings.evaluations))


def rebuild(
    platform: Platform, instance: dg.DagsterInstance, on_report: Callable[[str], object] = lambda asset: None
) -> Counter[str]:
    """Tell Dagster of every partition that is there and that it does not know, and how many these were of each asset.

    `on_report` is called for each. Doing it again tells nothing twice.
    """
    told: Counter[str] = Counter()
    for key, partitions, windows in _present(platform):
        known = instance.get_materialized_partitions(key)
        asset = key.to_user_string()
        for window, of in windows:
            if window.key in known or not partitions.has_partition_key(window.key):
                continue
            known.add(window.key)
            about = {"told again": "Dagster's history was lost; the partition was there", **of}
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key, partition=window.key, metadata=about, description="history rebuild")
            )
            told[asset] += 1
            on_report(asset)
    return told


Present = tuple[dg.AssetKey, dg.PartitionsDefinition[str], Iterator[tuple[Window, dict[str, int | str]]]]


def _present(platform: Platform) -> Iterator[Present]:
    """The partitions of each asset that the ledger knows, each with a little of what it knows of it."""
    for name, source in platform.config.sources.items():
        partitions = source_partitions(source, platform.dataset(source.dataset))
        yield raw_key(name), partitions, _raws(platform, source, ingested=False)
        yield observations_key(name), partitions, _raws(platform, source, ingested=True)
    for name, dataset in platform.config.datasets.items():
        yield dataset_key(name), dataset_partitions(dataset), _revisions(platform, name)
        for format in dataset.exports:
            yield export_key(name, format), dataset_partitions(dataset), _exports(platform, name, format)
        for format in dataset.cycle_exports:
            yield export_key(name, format), cycle_partitions(dataset), _cycles(platform, name, format)


def _raws(platform: Platform, source: SourceSettings, ingested: bool) -> Iterator[tuple[Window, dict[str, int | str]]]:
    size = source.window_size
    raws = platform.ledger.raws(source.name, FOREVER)
    claimed: set[str] = set()
    if ingested:
        for start in range(0, len(raws), _AT_ONCE):
            some = [raw.ingestion for raw in raws[start : start + _AT_ONCE]]
            claimed |= {claim.id for claim in platform.ledger.claims_of(some)}
    for raw in raws:
        if ingested and raw.ingestion not in claimed:
            continue
        if source.sent:
            reach = platform.reach(source, raw.window)
            windows = list(windows_between(reach.start, reach.end, size)) if reach else []
        else:
            windows = [raw.window] if raw.window.span == size else []
        for window in windows:
            yield window, {"rows": raw.rows, "ingestion": raw.ingestion}


def _revisions(platform: Platform, dataset: str) -> Iterator[tuple[Window, dict[str, int | str]]]:
    for one in platform.ledger.revisions(dataset, EPOCH, FOREVER):
        yield one.revision.window, {"revision": one.revision.number, "rows": one.facts.rows, "path": one.path}


def _exports(platform: Platform, dataset: str, format: str) -> Iterator[tuple[Window, dict[str, int | str]]]:
    for one in platform.ledger.revisions(dataset, EPOCH, FOREVER):
        if made := platform.ledger.export(dataset, one.revision.window, format):
            yield made.window, {"revision": made.number, "path": made.path or "no row, so no file"}


def _cycles(platform: Platform, dataset: str, format: str) -> Iterator[tuple[Window, dict[str, int | str]]]:
    built = platform.ledger.revisions(dataset, EPOCH, FOREVER)
    for cycle in sorted({cycle_of(one.revision.window.start) for one in built}):
        if made := platform.ledger.export(dataset, cycle, format):
            yield cycle, {"path": made.path or "no row, so no file"}
