"""What only Dagster can tell of the platform's health, and all checks of `ionbeam doctor` put together.

Belongs here: daemons, runs of dead processes, sensors that are off, and who does the work. Does not belong here: checks
that need no Dagster (health).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ionbeam_client.text import visible
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import FOREVER, Window
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.health import clocks, configuration, disks, files, quality, queues, stores, versions, wis2, work
from ionbeam_dagster.health.examination import Check
from ionbeam_dagster.health.findings import Finding, of_error
from ionbeam_dagster.health.metrics import gauge, given
from ionbeam_dagster.health.stores import can_ask_ledger
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.holders import WORKER, is_of_another_configuration
from ionbeam_dagster.orchestration.home import SETTINGS, check_databases, dagster_at, home_of
from ionbeam_dagster.orchestration.internals import needs_migration, stopped_by_a_person
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.leases import is_held
from ionbeam_dagster.stores.ledger.workers import Worker

SUBJECT, LOCATION = "dagster", "code location"
_LOOKED_FOR = 6.0
"""Seconds in which whoever is alive gives a sign of it: runs and workers do every five."""
_YOUNG = timedelta(minutes=2)
"""A run that began since may not have given a sign of life yet."""
_QUEUED = 50
_RUNS = 500
_LONGEST = 1_000  # characters of what is said
_ANEW = "start the platform again, which makes it anew, then `ionbeam history rebuild`"


def checks_of_doctor(platform: Platform) -> dict[str, Check]:
    """All that can be looked at but the contents of files, by subject."""
    return {
        configuration.SUBJECT: lambda: configuration.configuration(platform),
        configuration.STATIONS: lambda: configuration.stations(platform),
        stores.LEDGER: lambda: stores.ledger(platform),
        stores.FILES: lambda: stores.files(platform),
        stores.OBSERVATIONS: lambda: stores.observations(platform),
        disks.SUBJECT: lambda: disks.fullness(platform),
        clocks.SUBJECT: lambda: clocks.clocks(platform),
        versions.VERSIONS: lambda: versions.versions(platform),
        versions.PERMISSIONS: lambda: versions.permissions(platform),
        quality.SUBJECT: lambda: quality.quality(platform),
        "failures": lambda: work.failing(platform),
        queues.BUS: lambda: queues.bus(platform),
        queues.DOOR: lambda: queues.door(platform),
        queues.MQTT: lambda: queues.mqtt(platform),
        wis2.SUBJECT: lambda: wis2.wis2(platform),
        SUBJECT: lambda: dagster(platform),
        LOCATION: lambda: location(platform),
    }


def checks_of_files(platform: Platform) -> dict[str, Check]:
    """The contents of every file; takes as long as it takes to read them."""
    return {files.SUBJECT: lambda: files.all_files(platform)}


def dagster(platform: Platform) -> Iterator[Finding]:
    """What there is to be said of Dagster, and whether anybody does what is due."""
    home = home_of(platform.config)
    if not home.exists() or not ((home / SETTINGS).exists() or os.environ.get("DAGSTER_HOME")):
        if _has_collected(platform):
            words = f"there is no {home}, though windows were collected"
            remedy = f"set DAGSTER_HOME as the platform's processes have it; where it is lost, {_ANEW}"
            yield Finding(SUBJECT, "warning", words, remedy)
            return
        yield Finding(SUBJECT, "note", f"there is no {home} yet: nothing was run", "begin with `ionbeam run SOURCE`")
        return
    with dagster_at(home) as instance:
        if needs_migration(instance):
            yield Finding(SUBJECT, "error", f"{home} was made by an older Dagster", "`dagster instance migrate`")
        yield from _who_works(platform, instance)
        for name in stopped_by_a_person(instance):
            remedy = "start it in the UI (Automation), if it is to work again"
            yield Finding(SUBJECT, "warning", f"the {name} was stopped by a person", remedy)
    yield Finding(SUBJECT, "well", f"{home} can be read")


def _has_collected(platform: Platform) -> bool:
    known = can_ask_ledger(platform)
    return known and any(platform.ledger.raws(name, FOREVER) for name in platform.config.sources)


def history(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Whether Dagster's runs and events can be asked for: without them nobody can do any work."""
    try:
        check_databases(Path(instance.root_directory))
        instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        instance.get_latest_materialization_events([dg.AssetKey(SUBJECT)])
    except StoreError as error:
        yield of_error(SUBJECT, error)
        return
    except Exception as error:  # whatever the library of its database raises
        told = str(error).partition("\n")[0]
        words = visible(f"Dagster's database cannot be used, so that no work is done: {told}", _LONGEST)
        remedy = f"start its server, or bring back {instance.root_directory}; where it is lost, {_ANEW}"
        yield Finding(SUBJECT, "error", words, remedy)
        return
    yield Finding(SUBJECT, "well", "its database can be used")


def location(platform: Platform) -> Iterator[Finding]:
    """Whether Dagster can load what it is to know of the platform."""
    try:
        made = build_definitions(PlatformResource(config_path=str(platform.config.path)))
        dg.Definitions.validate_loadable(made)
    except Exception as error:  # whatever a plug-in, or Dagster, raises
        words = visible(f"the code location does not load: {type(error).__name__}: {error}", _LONGEST)
        remedy = "change the name, or mend the plug-in, that it names; until then nothing is done by itself"
        yield Finding(LOCATION, "error", words, remedy)
        return
    yield Finding(LOCATION, "well", "it loads")


def _who_works(platform: Platform, instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Whether a worker or the daemon is alive, what of the daemon is not, and runs of processes that are gone."""
    waited = _waiting(platform)
    silent = _silent(platform)
    alive = [one for one, is_silent in silent.values() if not is_silent]
    daemons = instance.get_daemon_statuses()
    heard = {name: one for name, one in daemons.items() if one.last_heartbeat is not None}
    dead = sorted(name for name, one in heard.items() if one.required and not one.healthy)
    works = any(one.holder.startswith(WORKER) for one in alive)
    is_automatic = platform.config.automation.enabled
    if is_automatic and not works and (not heard or len(dead) == len(heard)):
        due = agenda.due(platform, platform.now()) if can_ask_ledger(platform) else []
        hang = [one for one, is_silent in silent.values() if is_silent and one.holder.startswith(WORKER)]
        who = "".join(f"; process {one.process} on {one.host.split()[0]} gives no sign of life" for one in hang)
        words = f"neither a worker nor Dagster's daemon is alive; {len(due):,} windows are due{who}"
        yield Finding(work.SUBJECT, "error" if due else "warning", words, work.START)
    elif dead:
        remedy = "start `dagster-daemon run` again (`ionbeam dev` does so by itself), and look into its log"
        yield Finding(
            SUBJECT, "warning", f"of Dagster's daemon, {', '.join(dead).lower()} gives no sign of life", remedy
        )
    if works:
        yield Finding(work.SUBJECT, "well", f"{len(alive)} workers and runs are alive")
        yield from _of_workers(platform, alive, waited)
    if not is_automatic:
        words = "automation is off (automation.enabled): nothing is done by itself"
        yield Finding(work.SUBJECT, "note", words, "`ionbeam run` does what is due; or switch it on")
    yield from _dead_runs(instance, silent)


def _waiting(platform: Platform) -> set[tuple[str, str, Window]]:
    """What is due, and nobody has begun."""
    if not can_ask_ledger(platform):
        return set()
    held = platform.ledger.leases.held()
    due = agenda.due(platform, platform.now())
    return {(one.stage, one.of, one.window) for one in due if not is_held(held, one.stage, one.of, one.window)}


def _of_workers(platform: Platform, alive: list[Worker], waited: set[tuple[str, str, Window]]) -> Iterator[Finding]:
    """Whether those who are alive do what is due, and as this configuration says."""
    for one in alive:
        if is_of_another_configuration(one, platform.config):
            who = f"{one.doing.rpartition(' ')[0]} (process {one.process})"
            words = f"{who} shares this state, and its YAML says something else"
            remedy = "start it again, if its YAML was changed; give two platforms a state_path, or a Redis, each"
            yield Finding(work.SUBJECT, "error", words, remedy)
    if waited and waited <= _waiting(platform) and not platform.ledger.leases.held():
        words = f"{len(waited):,} windows are due, and within {_LOOKED_FOR:.0f} s no worker that is alive began one"
        yield Finding(work.SUBJECT, "warning", words, work.START)


def _silent(platform: Platform) -> dict[str, tuple[Worker, bool]]:
    """Who is at work, as the ledger knows, each with whether his heart has not beaten while it was looked at."""
    if not can_ask_ledger(platform):
        return {}
    before = {one.holder: one.beats for one in platform.ledger.workers.present()}
    if before:
        time.sleep(_LOOKED_FOR)
    present = platform.ledger.workers.present()
    return {one.holder: (one, one.beats == before.get(one.holder, -1)) for one in present}


def _dead_runs(instance: dg.DagsterInstance, silent: dict[str, tuple[Worker, bool]]) -> Iterator[Finding]:
    going_on = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    before = datetime.now(UTC) - _YOUNG
    records = instance.get_run_records(dg.RunsFilter(statuses=going_on, updated_before=before), limit=_RUNS)
    dead = [one for one in records if silent.get(one.dagster_run.run_id, (None, True))[1]]
    if dead:
        oldest = min(dead, key=lambda one: one.update_timestamp)
        since = in_short(datetime.now(UTC) - oldest.update_timestamp.astimezone(UTC))
        words = f"{len(dead)} runs give no sign of life, the oldest is {oldest.dagster_run.run_id} (since {since})"
        remedy = "start `ionbeam worker` or Dagster's daemon, which end them within a minute, or end them in the UI"
        yield Finding(SUBJECT, "error", words, remedy)
    queued = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    if queued > _QUEUED:
        yield Finding(
            SUBJECT, "warning", f"{queued:,} runs are queued", "see in the UI what holds up the first of them"
        )


class Runs(Collector):
    """Dagster's runs in figures."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def describe(self) -> list[Metric]:
        """Nothing: a registry would otherwise ask for all figures when it is made."""
        return []

    def collect(self) -> list[Metric]:
        return given(self._figures)

    def _figures(self) -> Iterator[Metric]:
        going_on = gauge("runs", "Runs that are queued or go on", ("status",))
        for status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
            going_on.add_metric([status.value.lower()], self._instance.get_runs_count(dg.RunsFilter(statuses=[status])))
        failed = gauge("runs_failed", "Runs that failed within the last 24 h")
        since = datetime.now(UTC) - timedelta(days=1)
        of_a_day = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
        failed.add_metric([], self._instance.get_runs_count(of_a_day))
        yield from (going_on, failed)
