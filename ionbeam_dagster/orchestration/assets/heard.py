"""What was heard of stations in Dagster: an asset a source, brought up to date once an hour, and when asked.

Belongs here: `heard_definitions`. Does not belong here: which stations are silent (domain/silence.py).
"""

from typing import Any

import dagster as dg

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.orchestration import metadata
from ionbeam_dagster.orchestration.assets.housekeeping import housekeeping
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline.heard import up_to_date
from ionbeam_dagster.pipeline.lately import lately

HEARD_JOB = "heard"
_SHOWN = 50


def heard_definitions(config: IonbeamConfig) -> dg.Definitions:
    """``<source>/heard`` for each source, the job that brings all of them up to date, and its schedule."""
    assets = [_heard(source) for source in config.sources]
    what = "Brings up to date which stations fell silent, how much of each came, and how late."
    return housekeeping(assets, HEARD_JOB, HEARD_JOB, "11 * * * *", config.automation, what)


def _heard(source: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([source, "heard"]),
        deps=[dg.AssetKey([source, "observations"])],
        group_name=source,
        owners=metadata.OWNERS,
        kinds={"python", "parquet"},
        tags={"ionbeam/source": source, "ionbeam/stage": "heard"},
        description=(
            f"Which stations of {source} fell silent, how much of what was expected of each came, how late, and how "
            "much of it quality control doubts.\n\nMaterialising it looks at what was taken in since the last time; "
            "`ionbeam heard` does the same."
        ),
    )
    def heard(context: dg.AssetExecutionContext, ionbeam: PlatformResource) -> dg.MaterializeResult[Any]:
        platform = ionbeam.platform
        found = up_to_date(platform, source)
        if found is None:
            return dg.MaterializeResult(metadata={"stations": 0})
        of_it = lately(platform, platform.source(source), platform.now())
        told: dict[str, Any] = {
            "stations": found.heard,
            "silent stations": found.silent.height,
            "until": dg.MetadataValue.timestamp(found.until),
            "rows of a day": of_it.rows,
            "rows set aside": of_it.set_aside,
            "picture": metadata.heard_picture(source, found),
        }
        if of_it.completeness is not None:
            told["share of a day that was collected"] = round(of_it.completeness, 4)
        if of_it.late is not None and of_it.latest is not None:
            told["half of it comes late"] = in_short(of_it.late)
            told["95 % of it comes late"] = in_short(of_it.latest)
        if found.judged:
            told["share of values that are doubted"] = round(found.doubted / found.judged, 4)
        for name, counted in (("failed tests", found.tests), ("why rows were set aside", found.aside)):
            if counted.height:
                told[name] = dg.MetadataValue.md(metadata.table(["what", "rows"], counted.head(_SHOWN).rows()))
        if found.silent.height:
            rows = [
                (name, f"{last:%Y-%m-%d %H:%M}", in_short(interval), f"{share:.0%}")
                for name, last, interval, share in found.silent.head(_SHOWN)
                .select("station", "last", "interval", "completeness")
                .iter_rows()
            ]
            headings = ["station", "last heard", "usually every", "of a day"]
            told["fell silent"] = dg.MetadataValue.md(metadata.table(headings, rows))
            context.log.warning(f"{found.silent.height:,} of {found.heard:,} stations fell silent")
        return dg.MaterializeResult(metadata=told)

    return heard
