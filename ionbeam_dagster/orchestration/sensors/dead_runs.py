"""The sensor that ends runs of dead processes, and keeps the limits of pools.

Belongs here: when it looks, and what it says. Does not belong here: which run is dead (orchestration/dead_runs.py).
"""

from __future__ import annotations

import dagster as dg

from ionbeam_dagster.orchestration.dead_runs import Watch, set_pools
from ionbeam_dagster.orchestration.resources import PlatformResource, WatchedPlatform

LOOKED_EVERY = 10


def dead_runs_sensor(ionbeam: PlatformResource | WatchedPlatform) -> dg.SensorDefinition:
    """``dead_runs``, one for the whole platform; it looks also where automation is off."""
    watch = Watch()

    @dg.sensor(
        name="dead_runs",
        minimum_interval_seconds=LOOKED_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process is gone, so that they hold no window, no place and no pool any longer.",
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        set_pools(ionbeam.platform, context.instance)
        jobs = context.repository_def.job_names if context.repository_def else ()
        told = watch.look(ionbeam.platform, context.instance, jobs)
        for line in told:
            context.log.warning(line)
        return dg.SkipReason("; ".join(told[:5]) or "every run that goes on gives signs of life")

    return dead_runs
