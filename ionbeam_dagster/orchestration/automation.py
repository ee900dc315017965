"""When the platform works by itself: one named condition a stage, and the sensor that evaluates them.

Belongs here: how the agenda's answers (due.py) are combined with what Dagster knows of runs, and which assets one
sensor has. Does not belong here: what is due (pipeline/agenda).

All conditions are levels rather than edges: true as long as there is work, so that nothing depends on having been
evaluated at the right moment. Runs in progress hold them back, and the agenda says when what failed is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from ionbeam_dagster.config import Automation, SourceSettings
from ionbeam_dagster.orchestration.due import Due
from ionbeam_dagster.orchestration.internals import BackfillGoesOn
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform

AC = dg.AutomationCondition
Condition = dg.AutomationCondition[dg.AssetKey]
Ionbeam = PlatformResource | WatchedPlatform


def collects(ionbeam: Ionbeam, source: SourceSettings) -> Condition:
    """A pull source's raw partitions: those that the clock, or what changed at the source, makes due.

    After down-time all the windows that were missed, back to `lookback`, come in one range run. Where the trigger is
    finer than the window, the open window is collected at every trigger, and once more when it has ended.
    """
    late = f", {source.window_lag} late" if source.window_lag else ""
    why = f"Triggered (every {source.trigger_interval}{late}), changed or lost since it was last collected"
    return (~in_progress() & Due(ionbeam, "collect", source.name, why)).with_label("collect")


def ingests(ionbeam: Ionbeam, source: SourceSettings) -> Condition:
    """Observations follow raw partitions, in the same run where both are due."""
    behind = Due(ionbeam, "ingest", source.name, "The raw partition has not been ingested as it is now")
    following = behind if source.sent else _along() | behind
    return (~in_progress() & following).with_label("ingest")


def builds(ionbeam: Ionbeam, dataset: str) -> Condition:
    """Dataset windows that can, and should, be built now, wherever they lie in time.

    A window is left alone while observations of it are being collected, so that a re-ingest of many raw windows makes
    one revision rather than many.
    """
    quiet = ~in_progress() & ~AC.any_deps_match(in_progress())
    ready = Due(ionbeam, "build", dataset, "What arrived for the window can, and should, be built now")
    return (quiet & ready).with_label("build")


def exports(ionbeam: Ionbeam, dataset: str, format: str) -> Condition:
    """Exports follow the dataset, in the same run where both are due, where its blocking checks end what is not sound;
    else where the latest revision is sound, whatever became of its checks."""
    why = f"The latest revision has not been exported as {format}, or its file is lost"
    behind = Due(ionbeam, "export", f"{dataset}/{format}", why)
    return (~in_progress() & (_along() | behind)).with_label("export")


def cycles(ionbeam: Ionbeam, dataset: str, format: str) -> Condition:
    """The files of analysis cycles, once their windows are built or their cut-off has passed.

    A cycle is left alone while windows of it are being built.
    """
    quiet = ~in_progress() & ~AC.any_deps_match(in_progress())
    why = "The windows of the cycle, or those that were built until its cut-off, are not in its file as they are now"
    return (quiet & Due(ionbeam, "export_cycle", f"{dataset}/{format}", why)).with_label("export_cycle")


def configures() -> dg.AutomationCondition[dg.AssetOrCheckKey]:
    """The service's configuration follows every export, once; one that failed waits for the next, or a person."""
    updated = AC.any_deps_match(AC.newly_updated()).with_label("any_deps_newly_updated")
    due = (AC.newly_missing() | updated).since(AC.newly_requested())
    return (~AC.in_progress() & due).with_label("configure")


def automation_sensor(
    settings: Automation, name: str, assets: Sequence[dg.AssetKey], what: str, tags: Mapping[str, str] | None = None
) -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of `assets` in the code server, where the agenda can be asked.

    Each source and each dataset has its own: Dagster puts assets that are due with equal partitions into one run, in
    which one source that hangs would hold up the others; an error ends a sensor's whole tick; and one sensor cannot
    have more than 500 assets. Its runs have `tags`, by which Dagster limits how many of them there are at once.
    """
    return dg.AutomationConditionSensorDefinition(
        name,
        target=dg.AssetSelection.assets(*assets),
        description=what,
        default_status=dg.DefaultSensorStatus.RUNNING if settings.enabled else dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=settings.interval,
        run_tags=tags,
        use_user_code_server=True,
    )


def in_progress() -> Condition:
    """True for the windows that a run or a backfill works on, or is about to."""
    return (AC.run_in_progress() | BackfillGoesOn()).with_label("in_progress")


def _along() -> dg.AutomationCondition[dg.AssetOrCheckKey]:
    """True along with what the asset depends on, in the same run."""
    return AC.any_deps_match(AC.will_be_requested()).with_label("any_deps_will_be_requested")
