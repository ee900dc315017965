"""The pruning of Dagster's history, as an asset without partitions with a schedule of its own.

Belongs here: `history_definitions`. Does not belong here: what goes (orchestration/history.py).
"""

from typing import Any

import dagster as dg

from ionbeam_dagster.config import Automation
from ionbeam_dagster.config.sections import History
from ionbeam_dagster.orchestration import metadata
from ionbeam_dagster.orchestration.assets.housekeeping import housekeeping
from ionbeam_dagster.orchestration.history import prune
from ionbeam_dagster.orchestration.partitions import cron_of
from ionbeam_dagster.orchestration.resources import PlatformResource

HISTORY = dg.AssetKey("history")
PRUNE_JOB = "prune"


@dg.asset(
    key=HISTORY,
    group_name="platform",
    owners=metadata.OWNERS,
    kinds={"python"},
    tags={"ionbeam/stage": "retention"},
    description=(
        "Removes old runs with their logs, ticks, and evaluations of automation from Dagster's history, as `history:` "
        "in the YAML says. What pages of assets show of their partitions stays."
    ),
)
def history_asset(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> dg.MaterializeResult[Any]:
    platform = ionbeam.platform
    pruned = prune(context.instance, platform.config.sections.history, platform.now())
    context.log.info(f"{pruned} were removed")
    return dg.MaterializeResult(
        metadata={"runs": pruned.runs, "ticks": pruned.ticks, "evaluations": pruned.evaluations}
    )


def history_definitions(settings: History, automation: Automation) -> dg.Definitions:
    """``history``, the job that materialises it, and its schedule."""
    what = "Removes what is old of Dagster's history."
    return housekeeping([history_asset], PRUNE_JOB, "history", cron_of(settings.every), automation, what)
