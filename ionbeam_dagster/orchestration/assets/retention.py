"""The purge in Dagster: an asset without partitions, with a schedule of its own.

Belongs here: `retention_definitions`. Does not belong here: what may go (ionbeam_dagster.pipeline.retention).
"""

from typing import Any

import dagster as dg
from pydantic import Field

from ionbeam_dagster.config import Automation, Retention
from ionbeam_dagster.orchestration import metadata
from ionbeam_dagster.orchestration.assets.housekeeping import housekeeping
from ionbeam_dagster.orchestration.partitions import cron_of
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline import retention

RETENTION = dg.AssetKey("retention")
PURGE_JOB = "purge"
_SHOWN = 50


class PurgeConfig(dg.Config):
    """How to purge."""

    dry_run: bool = Field(default=False, description="tell what would go, and remove nothing")


@dg.asset(
    key=RETENTION,
    group_name="platform",
    owners=metadata.OWNERS,
    kinds={"python"},
    tags={"ionbeam/stage": "retention"},
    description=(
        "Removes what `retention:` and `dataset_aggregator.delete_after_export` allow to go: raw partitions, "
        "superseded revisions, observations, quarantine. Makes the many small segments of an hour one file, once its "
        "windows are built.\n\nMaterialise it with the run config `dry_run: true` to see "
        "what would go, and how many bytes. What a rebuild of an open window needs is never taken."
    ),
)
def retention_asset(
    context: dg.AssetExecutionContext, config: PurgeConfig, ionbeam: PlatformResource
) -> dg.MaterializeResult[Any]:
    from ionbeam_dagster.doors.amqp.leftovers import bus_leftovers
    from ionbeam_dagster.doors.http.leftovers import door_leftovers

    platform = ionbeam.platform
    purged = retention.purge(platform, platform.now(), config.dry_run, [bus_leftovers, door_leftovers])
    for failure in purged.failed:
        context.log.error(failure)
    context.add_output_metadata(of_purge(purged, config.dry_run))
    if purged.failed:
        shown = "\n".join(purged.failed[:_SHOWN])
        raise dg.Failure(f"{len(purged.failed)} things could not be removed; the others are gone\n{shown}")
    return dg.MaterializeResult()


def of_purge(purged: retention.Purged, dry_run: bool) -> metadata.Metadata:
    """How much of each kind went, or would go, and the first of it by name."""
    counts = [
        (kind, len(found), sum(one.bytes for one in found))
        for kind in retention.KINDS
        if (found := purged.of_kind(kind))
    ]
    told: dict[str, Any] = {
        "dry run": dry_run,
        "files": len(purged.gone),
        "bytes": purged.bytes,
        "by kind": dg.MetadataValue.md(metadata.table(["kind", "number", "bytes"], counts) if counts else "nothing"),
    }
    if purged.gone:
        listed = [(one.kind, one.of, one.what, one.bytes, one.why) for one in purged.gone[:_SHOWN]]
        told["the first of them"] = dg.MetadataValue.md(metadata.table(["kind", "of", "what", "bytes", "why"], listed))
    return told


def retention_definitions(settings: Retention, automation: Automation) -> dg.Definitions:
    """``retention``, the job that materialises it, and its schedule, which runs only where something may be purged."""
    what = "Purges what the configuration allows to go."
    return housekeeping([retention_asset], PURGE_JOB, "retention", cron_of(settings.every), automation, what)
