"""What removes what is old: an asset without partitions has a job, and a schedule that runs where automation does.

Belongs here: what the assets of retention and of history have alike. Does not belong here: what goes, which each says.
"""

from datetime import timedelta

import dagster as dg

from ionbeam_dagster.config import Automation
from ionbeam_dagster.orchestration.partitions import cron_of


def housekeeping(
    asset: dg.AssetsDefinition, job: str, every: timedelta, automation: Automation, description: str
) -> dg.Definitions:
    """`asset`, the job of that name that materialises it, and its schedule."""
    made = dg.define_asset_job(job, selection=dg.AssetSelection.assets(asset), description=description)
    schedule = dg.ScheduleDefinition(
        name=asset.key.to_python_identifier(),
        job=made,
        cron_schedule=cron_of(every),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if automation.enabled else dg.DefaultScheduleStatus.STOPPED,
        description=description,
    )
    return dg.Definitions(assets=[asset], jobs=[made], schedules=[schedule])
