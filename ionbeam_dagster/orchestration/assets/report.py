"""The daily report in Dagster: an asset that sends it by the ways of `alerts:`, each morning.

Belongs here: `report_definitions`. Does not belong here: what it says (health/report.py).
"""

from typing import Any

import dagster as dg

from ionbeam_dagster.config import Automation
from ionbeam_dagster.health.messages import Message, NotSent, ways
from ionbeam_dagster.health.report import day_of, report
from ionbeam_dagster.orchestration import metadata
from ionbeam_dagster.orchestration.assets.housekeeping import housekeeping
from ionbeam_dagster.orchestration.resources import PlatformResource

REPORT_JOB = "daily_report"  # an asset and a job of one name cannot stand in one repository


@dg.asset(
    key=dg.AssetKey("report"),
    group_name="platform",
    owners=metadata.OWNERS,
    kinds={"markdown"},
    tags={"ionbeam/stage": "report"},
    retry_policy=dg.RetryPolicy(max_retries=4, delay=60, backoff=dg.Backoff.EXPONENTIAL),
    description=(
        "What came in the day that ended last, what is late, silent, doubted or set aside, what fails, and how full "
        "the disks are; sent by the webhook and mail of `alerts:`. `ionbeam report` shows it."
    ),
)
def report_asset(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> dg.MaterializeResult[Any]:
    platform = ionbeam.platform
    now = platform.now()
    made = report(platform, day_of(now), now)
    alerts = platform.config.sections.alerts
    told = [*ways(alerts)] if alerts is not None else []
    message = Message("report", made.title, made.text, made.day.start, now, made.html)
    failed = []
    for way in told:
        try:
            way(message)
        except NotSent as error:
            context.log.error(str(error))
            failed.append(str(error))
    if failed and len(failed) == len(told):
        raise dg.Failure(f"the report could not be sent: {'; '.join(failed)}")
    return dg.MaterializeResult(
        metadata={
            "day": f"{made.day.start:%Y-%m-%d}",
            "verdict": made.verdict,
            "sent by": len(told) - len(failed),
            "report": dg.MetadataValue.md(made.markdown),
        }
    )


def report_definitions(automation: Automation) -> dg.Definitions:
    """``report``, the job that materialises it, and its schedule: after the last windows of a day came."""
    what = "Tells what came in a day, and what is to be looked at."
    return housekeeping([report_asset], REPORT_JOB, REPORT_JOB, "30 5 * * *", automation, what)
