"""The registry of stations in Dagster: an asset a source, brought up to date once an hour, and when asked.

Belongs here: `stations_definitions`. Does not belong here: what is known of stations (domain/stations.py).
"""

from typing import Any

import dagster as dg

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.orchestration import metadata
from ionbeam_dagster.orchestration.assets.housekeeping import housekeeping
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline.stations import faults, up_to_date

STATIONS_JOB = "stations"
_SHOWN = 50


def stations_definitions(config: IonbeamConfig) -> dg.Definitions:
    """``<source>/stations`` for each source, the job that brings all of them up to date, and its schedule."""
    assets = [_stations(source) for source in config.sources]
    what = "Brings what is known of stations up to date."
    return housekeeping(assets, STATIONS_JOB, STATIONS_JOB, "23 * * * *", config.automation, what)


def _stations(source: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([source, "stations"]),
        deps=[dg.AssetKey([source, "observations"])],
        group_name=source,
        owners=metadata.OWNERS,
        kinds={"python", "parquet"},
        tags={"ionbeam/source": source, "ionbeam/stage": "stations"},
        description=(
            f"What is known of the stations of {source}: when and where they were heard, what they measure, what the "
            "source and `stations:` say of them.\n\nMaterialising it looks at what was taken in since the last time; "
            "`ionbeam stations` does the same."
        ),
    )
    def stations(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> dg.MaterializeResult[Any]:
        platform = ionbeam.platform
        found = up_to_date(platform, [source])[source]
        table = found.registry.table
        told: dict[str, Any] = {
            "stations": table.height,
            "new": found.new,
            "denied": int((table["status"] == "denied").sum()),
            "raw partitions looked at": found.looked_at,
            "raw partitions gone before": found.missed - found.away,
            "raw partitions that cannot be read now": found.away,
        }
        for fault in faults(platform):
            context.log.warning(fault)
        odd = table.filter(table["status"].is_not_null() | table["moved"].is_not_null()).head(_SHOWN)
        if odd.height:
            shown = odd.select("station", "name", "status", "moved", "why")
            rows = [tuple("" if cell is None else str(cell) for cell in row) for row in shown.iter_rows()]
            told["to look at"] = dg.MetadataValue.md(metadata.table(shown.columns, rows))
        return dg.MaterializeResult(metadata=told)

    return stations
