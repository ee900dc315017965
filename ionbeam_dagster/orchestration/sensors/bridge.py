"""The sensors of the message bus: they take in what clients send, and announce what was built.

Belongs here: thin fronts of the bus's turns, each bounded well below the minute that Dagster gives a tick. Where
`ionbeam bridge` runs, it does the work and the ticks find none. Does not belong here: what a turn does (doors/amqp).
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from ionbeam_dagster.domain.windows import windows_between
from ionbeam_dagster.orchestration.assets import USE_CACHE_TAG
from ionbeam_dagster.orchestration.assets.source import collect_job
from ionbeam_dagster.orchestration.internals import UnresolvedAssetJobDefinition
from ionbeam_dagster.orchestration.partitions import contiguous_runs, source_partitions, tags_of_run
from ionbeam_dagster.orchestration.reports import report_arrivals
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.requests import SourceRequest

SECONDS = 15.0
"""How long one turn may go on; connecting may take ten more."""

_REQUESTS_A_TICK = 5
_SHOWN = 5


def bus_sensors(
    ionbeam: PlatformResource | WatchedPlatform, jobs: Iterable[dg.JobDefinition | UnresolvedAssetJobDefinition]
) -> list[dg.SensorDefinition]:
    """``bridge`` and ``outbox``, if the configuration has a broker. `jobs` are those that collect the sources."""
    if ionbeam.platform.config.sections.broker is None:
        return []
    return [_bridge(ionbeam, jobs), _outbox(ionbeam)]


def _bridge(
    ionbeam: PlatformResource | WatchedPlatform, jobs: Iterable[dg.JobDefinition | UnresolvedAssetJobDefinition]
) -> dg.SensorDefinition:
    settings = ionbeam.platform.config.automation
    pulled = {collect_job(source.name) for source in ionbeam.platform.config.sources.values() if source.kind == "pull"}

    @dg.sensor(
        name="bridge",
        jobs=[job for job in jobs if job.name in pulled] or None,  # one each: their partitions are not the same
        minimum_interval_seconds=min(5, settings.interval),
        default_status=_status(settings.enabled),
        description=(
            "Takes in what clients send, reports it as raw partitions, and collects the ranges of built-in sources "
            "that are asked for over the bus. Messages that cannot be taken in are parked, with their reasons in the "
            "tick's log."
        ),
    )
    def bridge(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from ionbeam_dagster.doors.amqp.bridge import BrokerAway, JobTaken, bridge_of

        platform = ionbeam.platform
        bus, told = bridge_of(platform), []
        try:
            turn = bus.take_in(SECONDS)
        except JobTaken:
            told.append("messages are taken in by another process (ionbeam bridge)")
        except BrokerAway as error:
            told.append(str(error))
        else:
            told += [f"{count} from {queue}" for queue, count in sorted(turn.taken.items())]
            if turn.refused:
                told.append(f"{len(turn.refused)} parked: {'; '.join(turn.refused[:_SHOWN])}")
            for reason in turn.refused:
                context.log.error(reason)
        if reported := report_arrivals(platform.ledger, context.instance, SECONDS):
            told.append(f"{reported} raw partitions reported")
        cursor = int(context.cursor or 0)
        requests = platform.ledger.requests.after(cursor, _REQUESTS_A_TICK)
        return dg.SensorResult(
            run_requests=[request for one in requests for request in _runs(platform, one)],
            skip_reason=None if requests else dg.SkipReason("; ".join(told) or "nothing arrived"),
            cursor=str(requests[-1].number if requests else cursor),
        )

    return bridge


def _outbox(ionbeam: PlatformResource | WatchedPlatform) -> dg.SensorDefinition:
    settings = ionbeam.platform.config.automation

    @dg.sensor(
        name="outbox",
        minimum_interval_seconds=min(5, settings.interval),
        default_status=_status(settings.enabled),
        description="Announces every ingestion and dataset revision to clients, in order, and replays on request.",
    )
    def outbox(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from ionbeam_dagster.doors.amqp.bridge import BrokerAway, JobTaken, bridge_of

        try:
            turn = bridge_of(ionbeam.platform).announce(SECONDS)
        except JobTaken:
            return dg.SkipReason("events are published by another process (ionbeam bridge)")
        except BrokerAway as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason(f"{turn.announced} changes announced, {turn.replayed} revisions replayed")

    return outbox


def _runs(platform: Platform, asked: SourceRequest) -> list[dg.RunRequest]:
    """The runs that collect a range, as far as its windows are partitions; the run keys make them happen once."""
    source = platform.config.sources.get(asked.source)
    if source is None:
        return []
    partitions = source_partitions(source, platform.dataset(source.dataset))
    reach = platform.reach(source, asked.range)
    windows = windows_between(reach.start, reach.end, source.window_size) if reach else ()
    known = [window for window in windows if partitions.has_partition_key(window.key)]
    return [
        dg.RunRequest(
            run_key=f"{asked.id} {run.key}",
            job_name=collect_job(source.name),
            tags=tags_of_run(run, source.window_size) | ({USE_CACHE_TAG: "true"} if asked.use_cache else {}),
        )
        for run in contiguous_runs(known, source.window_size)
    ]


def _status(enabled: bool) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if enabled else dg.DefaultSensorStatus.STOPPED
