"""What we use of Dagster that has no public name yet.

Belongs here: every such use, so that a new Dagster minor version has one place to be tried against (pyproject.toml
stays on one minor version; tests/orchestration holds each of these). Does not belong here: what has a public name, and
Dagster's databases (kept_storage.py).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.asset_graph_view.entity_subset import EntitySubset
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunTagsTable
from dagster._core.storage.schedules.schema import AssetDaemonAssetEvaluationsTable, JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTOMATION_CONDITION_TAG,
    PARTITION_NAME_TAG,
    RESUME_RETRY_TAG,
)
from dagster_shared.check import CheckError
from sqlalchemy import Connection, Table, literal, or_, select
from sqlalchemy.sql.dml import Delete

__all__ = ["UnresolvedAssetJobDefinition"]

Subset = EntitySubset[dg.AssetKey]


def subset_of(context: dg.AutomationContext[dg.AssetKey], keys: Iterable[str]) -> Subset:
    """Those of the partitions `keys` that exist, as what a condition has to answer with."""
    asset_partitions = {AssetKeyPartitionKey(context.key, key) for key in keys}
    return context.asset_graph_view.get_asset_subset_from_asset_partitions(
        context.key, asset_partitions, validate_existence=True
    )


class BackfillGoesOn(dg.AutomationCondition[dg.AssetKey]):
    """True for the partitions that a backfill is still to do.

    Dagster's own raises an error, which ends the whole tick, as long as a backfill is open whose partitions are no
    longer partitions of the asset: its windows have another length now, or begin later.
    """

    @property
    def name(self) -> str:
        return "backfill_in_progress"

    async def evaluate(  # type: ignore[override]
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        view = context.asset_graph_view
        try:
            found = await view.compute_backfill_in_progress_subset(
                key=context.key, from_subset=context.candidate_subset
            )
        except CheckError:
            found = context.get_empty_subset()
        return dg.AutomationResult(context, found)


def keys_of(subset: Subset) -> list[str]:
    """The partition keys of a subset, in order. Costs about 40 microseconds a key: only for small subsets."""
    return sorted(subset.expensively_compute_partition_keys())


def partition_tags(first: str, last: str) -> dict[str, str]:
    """The tags of a run for the partitions from `first` to `last`, as Dagster sets them on its own runs."""
    if first == last:
        return {PARTITION_NAME_TAG: first}
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def from_automation(run: dg.DagsterRun) -> bool:
    """Whether the platform's own automation asked for a run, itself or through a backfill."""
    return run.tags.get(AUTOMATION_CONDITION_TAG) == "true"


def recorded_before(context: dg.AssetExecutionContext) -> Mapping[str, dict[str, dg.MetadataValue]]:
    """The partitions of this asset, with their metadata, that were recorded by the run that this one re-executes from
    its failure; none when it re-executes none."""
    if context.run.tags.get(RESUME_RETRY_TAG) != "true" or not context.run.parent_run_id:
        return {}
    logged = context.instance.all_logs(context.run.parent_run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [entry.asset_materialization for entry in logged]
    return {m.partition: dict(m.metadata) for m in made if m and m.asset_key == context.asset_key and m.partition}


class ResultOfAll(dg.AssetCheckResult):
    """A check's result for all partitions of an asset together.

    Dagster would list every partition that there is, to say which materialisation was looked at: ten minutes of twenty
    million.
    """

    def _get_target_materialization_data(
        self, step_context: StepExecutionContext, check_key: dg.AssetCheckKey
    ) -> AssetCheckEvaluationTargetMaterializationData | None:
        return None


def evaluation_of_partition(
    context: dg.AssetExecutionContext, result: dg.AssetCheckResult, blocking: bool, partition: str, storage_id: int
) -> dg.AssetCheckEvaluation:
    """A check's result for one partition of a range run, which Dagster itself would record for no partition."""
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=storage_id, run_id=context.run.run_id, timestamp=datetime.now(UTC).timestamp()
    )
    return dg.AssetCheckEvaluation(
        asset_key=context.asset_key,
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        target_materialization_data=target,
        severity=result.severity,
        description=result.description,
        blocking=blocking,
        partition=partition,
    )


def late_evaluation(asset: dg.AssetKey, check: str, partition: str, why: str) -> dg.AssetCheckEvaluation:
    """A check that a partition does not pass for what happened outside of its own runs."""
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=check,
        passed=False,
        metadata={},
        severity=dg.AssetCheckSeverity.WARN,
        description=why,
        partition=partition,
    )


def latest_materialisations(context: dg.AssetExecutionContext, keys: Iterable[str]) -> Mapping[str, int]:
    """The storage id of the latest materialisation of each of the partitions `keys`."""
    instance: dg.DagsterInstance = context.instance
    return instance.event_log_storage.get_latest_storage_id_by_partition(
        context.asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(keys)
    )


def fail_run(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str, again: bool) -> None:
    """Record, from outside of a run, that it failed: as one whose process died, or as one of which a step failed."""
    reason = RunFailureReason.UNEXPECTED_TERMINATION if again else RunFailureReason.STEP_FAILURE
    instance.report_run_failed(run, why, JobFailureData(error=None, failure_reason=reason))


def was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a run in this process ended because a person stopped the process, which Dagster keeps to itself."""
    steps = [event.step_failure_data for event in result.filter_events(lambda event: event.is_step_failure)]
    return any(step.error_source == ErrorSource.INTERRUPT for step in steps)


_KEPT = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION", "ASSET_CHECK_EVALUATION")
"""Events of a run that assets' pages are made of."""


def forget_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run that has ended, with its log, but for the events that assets' pages are made of.

    Dagster's own deletion takes these, too, so that partitions that are there would be missing.
    """
    storage = instance.event_log_storage
    table = SqlEventLogStorageTable
    other = table.c.dagster_event_type.is_(None) | table.c.dagster_event_type.not_in(_KEPT)
    if isinstance(storage, SqlEventLogStorage):
        with storage.index_connection() as connection:
            connection.execute(table.delete().where((table.c.run_id == run_id) & other))
    if isinstance(storage, SqliteEventLogStorage):  # a file a run; the events of assets are also in the index
        for ending in ("", "-wal", "-shm", "-journal"):
            Path(f"{storage.path_for_shard(run_id)}{ending}").unlink(missing_ok=True)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    if isinstance(instance.run_storage, SqlRunStorage):  # SQLite does not follow them by itself
        with instance.run_storage.connect() as connection:
            connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id == run_id))
    instance.run_storage.delete_run(run_id)


@dataclass(frozen=True, slots=True)
class Told:
    """An event as Dagster keeps it, as JSON; with its asset's key, as JSON, and its partition, where it has them."""

    event: str
    asset: str
    partition: str


def rewrite_events(
    instance: dg.DagsterInstance, texts: Iterable[str], changed: Callable[[Told], str | None], dry_run: bool
) -> int:
    """Write those events anew, of all that have one of `texts`, that `changed` gives otherwise; how many they are.

    In SQLite nothing of those before is left in the file or its log.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    encoded = [json.dumps(text)[1:-1] for text in texts]
    with storage.index_connection() as connection:
        number = sum(_rewritten(connection, *column, encoded, changed, dry_run) for column in _TELLING)
    if isinstance(storage, SqliteEventLogStorage):
        shards = [id for id in instance.get_run_ids() if Path(storage.path_for_shard(id)).exists()]
        for run_id in shards:
            with storage.run_connection(run_id) as connection:
                number += _rewritten(connection, *_TELLING[0], encoded, changed, dry_run)
        for shard in (*shards, INDEX_SHARD_NAME) if number and not dry_run else ():
            with closing(sqlite3.connect(storage.path_for_shard(shard))) as file:
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return number


def blank_logs(
    instance: dg.DagsterInstance, mentions: Callable[[str], bool], instead: str, dry_run: bool
) -> Iterator[tuple[Path, int]]:
    """Write `instead` over those lines of what runs printed of which `mentions` is true; gives the files with such
    lines, and how many.

    A line keeps its length, and its file its place: a run that goes on may be writing to it.
    """
    manager = instance.compute_log_manager
    if not isinstance(manager, LocalComputeLogManager):
        return
    for path in sorted(one for kind in ("out", "err") for one in Path(manager._base_dir).rglob(f"*.{kind}")):
        with path.open("r+b") as file:
            told, place = 0, 0
            for line in file:
                if mentions(line.decode(errors="replace")):
                    told += 1
                    length = len(line.rstrip(b"\n"))
                    if not dry_run:
                        os.pwrite(file.fileno(), instead.encode().ljust(length)[:length], place)
                place += len(line)
        if told:
            yield path, told


_TELLING = (
    (SqlEventLogStorageTable, "event"),
    (AssetKeyTable, "last_materialization"),
    (AssetCheckExecutionsTable, "evaluation_event"),
)


def _rewritten(
    connection: Connection, table: Table, column: str, texts: Sequence[str], changed: Callable[[Told], str | None],
    dry_run: bool,
) -> int:  # fmt: skip
    told = table.c[column]
    partition = table.c.partition if "partition" in table.c else literal("")
    has_one = or_(*(told.contains(text, autoescape=True) for text in texts))
    rows = connection.execute(select(table.c.id, told, table.c.asset_key, partition).where(has_one))
    after = {id: event for id, *one in rows if (event := changed(Told(*(value or "" for value in one)))) is not None}
    if not after or dry_run:
        return len(after)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    for id, event in after.items():
        connection.execute(table.update().where(table.c.id == id).values({column: event}))
    return len(after)


def delete_ticks(instance: dg.DagsterInstance, skipped_before: datetime, before: datetime) -> int:
    """Delete ticks that found nothing to do and began before the one moment, and all before the other."""
    skipped = (JobTickTable.c.status == TickStatus.SKIPPED.value) & (JobTickTable.c.timestamp < _utc(skipped_before))
    return _deleted(instance, JobTickTable.delete().where(skipped | (JobTickTable.c.timestamp < _utc(before))))


def delete_evaluations(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete what automation thought of assets before a moment; Dagster's own daemon overlooks sensors of ours."""
    table = AssetDaemonAssetEvaluationsTable
    return _deleted(instance, table.delete().where(table.c.create_timestamp < _utc(before)))


def _deleted(instance: dg.DagsterInstance, statement: Delete) -> int:
    storage = instance.schedule_storage
    if not isinstance(storage, SqlScheduleStorage):
        return 0
    with storage.connect() as connection:
        return int(connection.execute(statement).rowcount)


def needs_migration(instance: dg.DagsterInstance) -> bool:
    """Whether the tables of runs, events or ticks are of an older version than this Dagster's."""
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        version = storage.alembic_version() if storage is not None else None
        if version is not None and version[0] is not None and version[0] not in (version[1] or ()):
            return True
    return False


def stopped_by_a_person(instance: dg.DagsterInstance) -> list[str]:
    """The sensors and schedules that a person stopped, by kind and name."""
    stopped = instance.all_instigator_state(instigator_statuses={InstigatorStatus.STOPPED})
    return sorted(f"{state.instigator_type.value.lower()} {state.instigator_name}" for state in stopped)


def run_daemon(arguments: list[str]) -> None:
    """Do in this process what `dagster-daemon run` does with such arguments, until it is interrupted."""
    from dagster._daemon.cli import run_command  # nobody else needs it, and it takes long to import

    run_command.main(args=arguments, prog_name="dagster-daemon run", standalone_mode=False)


def _utc(moment: datetime) -> datetime:
    """As Dagster keeps moments: in UTC, without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None)
