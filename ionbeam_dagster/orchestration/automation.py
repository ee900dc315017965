"""When the platform works by itself: one named condition a stage, and the sensor that evaluates them.

Belongs here: how the ledger's answers (due.py) are combined with what Dagster knows of runs, failures and checks. Does
not belong here: whether a window is ready (domain/decisions.py).

All conditions are levels rather than edges: true as long as there is work, so that nothing depends on having been
evaluated at the right moment. Runs in progress hold them back; `Due` bounds how often the same work is asked for.
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from ionbeam_dagster.config import Automation, SourceSettings
from ionbeam_dagster.orchestration.due import Due, ToBuild, ToCollect, ToExport, ToExportCycle, ToIngest
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform

AC = dg.AutomationCondition
Condition = dg.AutomationCondition[dg.AssetKey]
Ionbeam = PlatformResource | WatchedPlatform


def collects(ionbeam: Ionbeam, source: SourceSettings, lookback: timedelta) -> Condition:
    """A pull source's raw partitions: each window once it ended (and its lag passed), back to `lookback`.

    After down-time all the windows that were missed come in one range run. Where the trigger is finer than the window,
    the open window is collected at every trigger, and once more when it has ended.
    """
    return (~AC.in_progress() & ToCollect(ionbeam, source, lookback)).with_label("collect")


def ingests(ionbeam: Ionbeam, source: SourceSettings) -> Condition:
    """Observations follow raw partitions, in the same run where both are due.

    Candidates are windows that Dagster calls missing or failed, or whose raw partition was updated since they were last
    requested; the ledger says which of them really were not ingested. (A range run in which one raw window failed skips
    the observations of the others: these are failed to Dagster, and to the ledger not ingested.) What clients send,
    the ledger lists.
    """
    if source.kind == "external":
        return (~AC.in_progress() & ToIngest(ionbeam, source)).with_label("ingest")
    missing = AC.missing() & ~AC.any_deps_missing()
    following = _along_or_after(missing | _failed_or_updated(), ToIngest(ionbeam, source))
    return (~AC.in_progress() & following).with_label("ingest")


def builds(ionbeam: Ionbeam, dataset: str, span: timedelta) -> Condition:
    """Dataset windows that the ledger calls due and `decide` wants built, wherever they lie in time.

    A window is left alone while observations of it are being collected, so that a re-ingest of many raw windows makes
    one revision rather than many.
    """
    quiet = ~AC.in_progress() & ~AC.any_deps_in_progress()
    return (quiet & ToBuild(ionbeam, dataset, span)).with_label("build")


def exports(ionbeam: Ionbeam, dataset: str, format: str, span: timedelta) -> Condition:
    """Exports follow the dataset, in the same run where both are due, unless a blocking check failed."""
    missing = AC.missing() & ~AC.any_deps_missing()
    sound = AC.all_deps_blocking_checks_passed()
    following = _along_or_after(missing | _failed_or_updated(), ToExport(ionbeam, dataset, format, span))
    return (sound & ~AC.in_progress() & following).with_label("export")


def cycles(ionbeam: Ionbeam, dataset: str, format: str) -> Condition:
    """The files of analysis cycles, once their windows are built or their cut-off has passed.

    A cycle is left alone while windows of it are being built, and as long as one of them fails a blocking check.
    """
    begun = AC.missing() & AC.any_deps_match(~AC.missing()).with_label("any_deps_not_missing")
    quiet = ~AC.in_progress() & ~AC.any_deps_in_progress()
    sound = AC.all_deps_blocking_checks_passed()
    return (quiet & sound & (begun | _failed_or_updated()) & ToExportCycle(ionbeam, dataset, format)).with_label(
        "export_cycle"
    )


def configures() -> dg.AutomationCondition[dg.AssetOrCheckKey]:
    """The service's configuration follows every export, once; one that failed waits for the next, or a person."""
    updated = AC.any_deps_match(AC.newly_updated()).with_label("any_deps_newly_updated")
    due = (AC.newly_missing() | updated).since(AC.newly_requested())
    return (~AC.in_progress() & due).with_label("configure")


def automation_sensor(settings: Automation) -> dg.AutomationConditionSensorDefinition:
    """Evaluates every condition in the code server, where the ledger can be asked."""
    return dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        description="Collects, builds and exports by itself what is due.",
        default_status=dg.DefaultSensorStatus.RUNNING if settings.enabled else dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=settings.interval,
        use_user_code_server=True,
    )


def _failed_or_updated() -> dg.AutomationCondition[dg.AssetOrCheckKey]:
    updated = AC.any_deps_match(AC.newly_updated()).with_label("any_deps_newly_updated")
    return AC.execution_failed() | updated.since(AC.newly_requested())


def _along_or_after(behind: dg.AutomationCondition[dg.AssetOrCheckKey], due: Due) -> Condition:
    """True along with what the asset depends on, in the same run, or afterwards where it was left `behind`."""
    along = AC.any_deps_match(AC.will_be_requested()).with_label("any_deps_will_be_requested")
    return along | (behind & due)
