"""What is done by the clock: assets without partitions, the job that materialises them, and its schedule, which runs
where automation does.

Belongs here: what the assets of retention, of history, of stations, of what was heard and of the report have alike.
Does not belong here: what they do, which each says.
"""

from collections.abc import Sequence

import dagster as dg

from ionbeam_dagster.config import Automation


def housekeeping(
    assets: Sequence[dg.AssetsDefinition], job: str, schedule: str, cron: str, automation: Automation, description: str
) -> dg.Definitions:
    """`assets`, the job of that name that materialises them, and its schedule, by when `cron` says (UTC); without an
    asset nothing."""
    if not assets:
        return dg.Definitions()
    made = dg.define_asset_job(job, selection=dg.AssetSelection.assets(*assets), description=description)
    running = dg.DefaultScheduleStatus.RUNNING if automation.enabled else dg.DefaultScheduleStatus.STOPPED
    by_the_clock = dg.ScheduleDefinition(
        name=schedule, job=made, cron_schedule=cron, execution_timezone="UTC", default_status=running,
        description=description,
    )  # fmt: skip
    return dg.Definitions(assets=assets, jobs=[made], schedules=[by_the_clock])
