"""Assets, made from the configuration: what a source and a dataset become in Dagster.

Belongs here: `window_by_window`, the body that most of them share, and one module each for sources, datasets, exports,
analysis cycles, requests to clients, the web service's configuration, and what is done by the clock (housekeeping:
stations, heard, the report, retention, history). Does not belong here: what is done with a window (pipeline) and what
is told about it (metadata.py).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from time import sleep
from typing import Any

import dagster as dg
import polars as pl

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import DeadlineExceeded, ExportError, PipelineError, SourceError, StoreError
from ionbeam_dagster.orchestration.dead_runs import end_run
from ionbeam_dagster.orchestration.deadlines import deadline_of, ended_in_time
from ionbeam_dagster.orchestration.holders import working_on
from ionbeam_dagster.orchestration.internals import (
    evaluation_of_partition,
    latest_materialisations,
    recorded_before,
)
from ionbeam_dagster.orchestration.partitions import windows_a_run, windows_of
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.agenda import InHand, Stage
from ionbeam_dagster.stores.ledger.attempts import Failure

TRIES = 3
RETRY_DELAY = 3.0
"""Seconds before what failed is tried again; doubled each time."""

GIVEN_UP_AFTER = 2
"""Windows in a row that took longer than they may: whoever is asked does not answer at all."""

FORCE_TAG = "ionbeam/force"
"""On a run, with the value ``true``: windows that are sealed or unchanged get a new revision all the same."""
OUTDATED_TAG = "ionbeam/outdated"
"""On a run, with the value ``true``: windows that another quality plan or mapping made get a new revision."""
REPLACE_TAG = "ionbeam/replace"
"""On a run, with the value ``true``: what a source gives takes the place of what it gave before, also where it lacks
something of that."""
USE_CACHE_TAG = "ionbeam/use_cache"
"""On a run, with the value ``true``: the source may use what it downloaded before."""

_EXPLAINED = (SourceError, PipelineError, ExportError, StoreError, OSError)
_MAY_PASS = (SourceError, StoreError, OSError)

Events = Iterator[dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetCheckResult]


@dataclass(frozen=True, slots=True)
class Done:
    """What a window's step has to tell: metadata of its partition, and the results of its checks."""

    metadata: Mapping[str, Any]
    checks: Sequence[dg.AssetCheckResult] = field(default=())


def range_runs(span: timedelta) -> dg.BackfillPolicy:
    return dg.BackfillPolicy.multi_run(windows_a_run(span))


def window_by_window(
    context: dg.AssetExecutionContext,
    ionbeam: PlatformResource,
    span: timedelta,
    work: Callable[[Window], Done],
    tries: int = 1,
) -> Events:
    """Do `work` for each window of the run, and record each for itself.

    A window that fails takes no other with it: the others are done and recorded as materialised, then the step fails
    and names those that failed. What a run did before it is re-executed from its failure is not done again, unless it
    has checks: those must stand for the run that Dagster shows.

    With `tries`, windows that failed for a reason that may pass are tried again after the others. (Not by Dagster's
    retry policy, which also tries again when a person stops the run.)

    A window that takes longer than it may fails. After GIVEN_UP_AFTER of them in a row the run is given up: what it did
    not come to is tried first the next time, so that windows that always hang hold up no other.
    """
    before = {} if context.assets_def.check_specs else recorded_before(context)
    windows = [window for window in windows_of(context.partition_keys, span) if window.key not in before]
    stage, of = stage_of(ionbeam.platform.config, context.asset_key)
    in_hand = agenda.in_hand(ionbeam.platform, stage, of)
    windows.sort(key=in_hand.failed_before.__contains__)
    outcome = _work_through(context, ionbeam, in_hand, windows, work, tries)
    done_now = [window for window in windows if window.key in outcome.done]
    in_hand.settle(done_now, outcome.failed, ionbeam.platform.now())
    done = {key: Done(metadata) for key, metadata in before.items()} | outcome.done
    if outcome.failed or outcome.stopped:
        for key, told in outcome.done.items():
            yield dg.AssetMaterialization(context.asset_key, partition=key, metadata=told.metadata)
        _record_checks(context, done)
        silent = stage == "collect" and of in agenda.silent(ionbeam.platform)
        raise outcome.stopped or _failure(context.asset_key.to_user_string(), outcome.failed, len(done), silent)
    for key, told in done.items():
        context.add_asset_metadata(told.metadata, partition_key=key)
    yield dg.MaterializeResult()
    if not context.has_partition_key:
        _record_checks(context, done)
    yield from _overall(context, done)


def stage_of(config: IonbeamConfig, asset: dg.AssetKey) -> tuple[Stage, str]:
    """The stage whose work an asset's materialisation is, and of what, as the agenda calls them."""
    name, last = asset.path
    stages: dict[str, Stage] = {"request": "collect", "raw": "collect", "observations": "ingest", "dataset": "build"}
    if last in stages:
        return stages[last], name
    return ("export_cycle" if last in config.datasets[name].cycle_exports else "export"), f"{name}/{last}"


@dataclass(slots=True)
class _Outcome:
    """What was done, by partition key; why what failed did; and what stopped the work before its end, if it was."""

    done: dict[str, Done] = field(default_factory=dict)
    failed: dict[Window, Failure] = field(default_factory=dict)
    stopped: BaseException | None = None
    spoke: bool = False
    """Whether a window was done, so that whoever was asked answers."""


def _work_through(
    context: dg.AssetExecutionContext,
    ionbeam: PlatformResource,
    in_hand: InHand,
    windows: Sequence[Window],
    work: Callable[[Window], Done],
    tries: int,
) -> _Outcome:
    outcome = _Outcome()
    asset = context.asset_key.to_user_string()
    limit = deadline_of(ionbeam.platform, in_hand.stage, in_hand.of)
    errors: dict[Window, BaseException] = {}
    current: Window | None = None
    hung = 0

    def end_with(reason: str) -> None:
        """The process is about to be ended, with all that this run did not come to."""
        undone = [window for window in windows if window.key not in outcome.done]
        failed = {window: Failure(reason) if window == current else _not_tried(current) for window in undone}
        now = ionbeam.platform.now()
        agenda.note_silence(ionbeam.platform, in_hand.stage, in_hand.of, now)
        in_hand.settle([w for w in windows if w.key in outcome.done], failed, now)
        end_run(context.instance, context.run, f"{asset} {current}: {reason}", again=False)  # the agenda does

    try:
        for attempt in range(tries):
            if attempt:
                context.log.warning(f"{len(windows)} windows are tried again; the first: {errors[windows[0]]}")
                sleep(RETRY_DELAY * 2 ** (attempt - 1))
            for current in windows:
                try:
                    with (
                        working_on(ionbeam.platform, in_hand.stage, in_hand.of, current, context.run.run_id),
                        ended_in_time(limit, end_with if ionbeam.may_end_process else None),
                    ):
                        outcome.done[current.key] = work(current)
                        in_hand.settle_replaced(current, ionbeam.platform.now())
                except (Exception, pl.exceptions.PanicException) as error:  # polars panics at bytes that it cannot read
                    errors[current] = error
                    hung = hung + 1 if isinstance(error, DeadlineExceeded) else 0
                    if hung:
                        agenda.note_silence(ionbeam.platform, in_hand.stage, in_hand.of, ionbeam.platform.now())
                    if hung == GIVEN_UP_AFTER:
                        break
                else:
                    if in_hand.stage == "collect" and (hung or not outcome.spoke):
                        agenda.end_silence(ionbeam.platform, in_hand.of)
                    hung, outcome.spoke = 0, True
                    errors.pop(current, None)
                    ionbeam.on_window(asset, current, None)
            if hung == GIVEN_UP_AFTER:
                not_tried = [w for w in windows if w.key not in outcome.done and w not in errors]
                outcome.failed |= dict.fromkeys(not_tried, _not_tried(current))
                break
            windows = [window for window, failure in errors.items() if _may_pass(failure)]
            if not windows:
                break
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as stop:
        outcome.stopped = stop
    outcome.failed |= {window: Failure(_reason(context, window, failure)) for window, failure in errors.items()}
    for window, failed in outcome.failed.items():
        ionbeam.on_window(asset, window, failed.error)
    return outcome


def _may_pass(failure: BaseException) -> bool:
    """Whether it is worth another try within the run."""
    return isinstance(failure, _MAY_PASS) and not isinstance(failure, DeadlineExceeded)


def _not_tried(hung: Window | None) -> Failure:
    return Failure(f"not tried: {hung}, before it in its run, took longer than it may", was_tried=False)


def _reason(context: dg.AssetExecutionContext, window: Window, error: BaseException) -> str:
    if isinstance(error, _EXPLAINED):
        context.log.error(f"{window.key}: {error}")
        return str(error)
    context.log.error(f"{window.key}: {''.join(traceback.format_exception(error))}")
    return f"{type(error).__name__}: {error}"


def _failure(asset: str, failed: Mapping[Window, Failure], done: int, silent: bool) -> dg.Failure:
    shown = [f"{window.key}: {failure.error}" for window, failure in list(failed.items())[:20]]
    if len(failed) > len(shown):
        shown.append(f"... and {len(failed) - len(shown)} more, in the log")
    title = f"{asset}: {len(failed)} of {len(failed) + done} windows failed"
    others = "; the others are done and recorded" if done else ""
    others += "; it does not answer, and is asked for one window at a time until it does" if silent else ""
    return dg.Failure(
        description="\n".join([f"{title}{others}", *shown]),
        metadata={"windows failed": len(failed), "windows done": done},
    )


def _record_checks(context: dg.AssetExecutionContext, done: Mapping[str, Done]) -> None:
    """Record the checks of each partition of a range run for itself; Dagster would record them for none."""
    partitioned = {spec.name: spec for spec in context.assets_def.check_specs if spec.partitions_def is not None}
    checked = {key: told for key, told in done.items() if any(r.check_name in partitioned for r in told.checks)}
    if not checked:
        return
    recorded = latest_materialisations(context, checked)
    for key, told in checked.items():
        for result in told.checks:
            if (spec := partitioned.get(str(result.check_name))) is not None:
                context.log_event(evaluation_of_partition(context, result, spec.blocking, key, recorded[key]))


def _overall(context: dg.AssetExecutionContext, done: Mapping[str, Done]) -> Iterator[dg.AssetCheckResult]:
    """One result a check for the whole run: the worst of its windows'."""
    for spec in context.assets_def.check_specs:
        results = {key: r for key, told in done.items() for r in told.checks if r.check_name == spec.name}
        against = {key: result for key, result in results.items() if not result.passed}
        if context.has_partition_key:
            yield from results.values()
            continue
        worst = next(iter(against.values()), None)
        yield dg.AssetCheckResult(
            check_name=spec.name,
            passed=not against,
            severity=worst.severity if worst else dg.AssetCheckSeverity.WARN,
            description=f"{len(against)} of {len(results)} windows do not pass" if against else None,
            metadata={key: result.description or "" for key, result in list(against.items())[:20]},
        )
