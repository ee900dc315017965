"""`ionbeam odb`: which station an ODB file means, and what an assimilation made of what it was given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_dagster.cli.terminal import console, counted, fail, load_config

if TYPE_CHECKING:
    import polars as pl

    from ionbeam_dagster.config import DatasetSettings
    from ionbeam_dagster.exporters.odb.feedback import Feedback
    from ionbeam_dagster.pipeline.platform import Platform

app = typer.Typer(help="ODB: who stands behind a statid, and what an assimilation says of us.", no_args_is_help=True)

DATASET = typer.Option(help="The dataset, where there are several.")


@app.command("stations")
def odb_stations(
    file: Annotated[Path, typer.Argument(help="The CSV file that is written.")],
    dataset: Annotated[str | None, DATASET] = None,
) -> None:
    """Write which station stands behind each `statid` of a dataset's ODB files: statid, station_id, wigos_id, source,
    name, lat, lon, altitude.

    Example: `ionbeam odb stations statids.csv --dataset knmi`
    """
    from ionbeam_dagster.stores.publish import published

    platform, settings = _asked(dataset)
    table = _stations(platform, settings)
    with published(file) as draft:
        table.write_csv(draft)
    console.print(f"{file}: {counted(table.height, 'station')} of {settings.name}", highlight=False)


@app.command("feedback")
def odb_feedback(
    file: Annotated[Path, typer.Argument(help="A feedback file of an assimilation, ODB-2 (MARS type OFB).")],
    dataset: Annotated[str | None, DATASET] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all stations to this CSV file, too.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Stations of a varno that are shown.")] = 10,
) -> None:
    """Show what an assimilation made of a dataset's stations, beside what our quality control made of them.

    O-B is the observation less the model's first guess, O-A less the analysis, in the unit of the varno. Of each varno
    the stations are shown that are furthest from the model on average.

    Example: `ionbeam odb feedback ofb.odb --dataset netatmo --csv feedback.csv`
    """
    from ionbeam_dagster.exporters.odb.feedback import read_feedback
    from ionbeam_dagster.stores.publish import published

    platform, settings = _asked(dataset)
    found = read_feedback(file)
    table = _beside_flags(platform, settings, found)
    if csv is not None:
        with published(csv) as draft:
            table.write_csv(draft)
    console.print(f"{file}: {found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M} UTC", highlight=False)
    _tell_strangers(table, settings)
    for (varno,), of_varno in table.partition_by("varno", as_dict=True, maintain_order=True).items():
        console.print(_shown(int(varno), of_varno, most))
    if csv is not None:
        console.print(f"{csv}: {counted(table.height, 'row')}, one a station and varno", highlight=False)


def _asked(dataset: str | None) -> tuple[Platform, DatasetSettings]:
    from ionbeam_dagster.exporters.odb import OdbBase
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    forms = {form for form, exporter in platform.config.exporters.items() if isinstance(exporter, OdbBase)}
    written = [name for name, one in platform.config.datasets.items() if forms & {*one.formats}]
    names = [dataset] if dataset else written
    if len(names) != 1:
        told = f"which: {', '.join(names)}" if names else "which; none is exported as odb"
        fail(f"say with --dataset {told}")
    return platform, platform.dataset(names[0])


def _stations(platform: Platform, settings: DatasetSettings) -> pl.DataFrame:
    """statid, station_id, wigos_id, source, name, lat, lon (degrees) and altitude (m) of each station of a dataset."""
    import polars as pl

    from ionbeam_dagster.exporters.odb.station_ids import statids
    from ionbeam_dagster.pipeline.stations import up_to_date

    parts = []
    for name, found in up_to_date(platform, settings.sources).items():
        prefix = pl.lit(platform.source(name).station_prefix)
        station_id = pl.concat_str(prefix, "station").alias("station_id")
        parts.append(found.registry.table.select(station_id, "wigos_id", "source", "name", "lat", "lon", "altitude"))
    known = pl.concat(parts, how="vertical_relaxed")
    called = statids(dict(known.select("station_id", "wigos_id").iter_rows()))
    statid = known["station_id"].replace_strict(called, return_dtype=pl.String).alias("statid")
    return known.select(statid, pl.all()).sort("statid")


def _beside_flags(platform: Platform, settings: DatasetSettings, found: Feedback) -> pl.DataFrame:
    """What was `found`, with `station_id` (null where the dataset has no such station, several where they share a
    statid) and, of one station, the share `flagged_here`."""
    import polars as pl

    from ionbeam_dagster.exporters.odb import OdbBase
    from ionbeam_dagster.pipeline.flagged import flagged

    named = pl.col("station_id").unique().sort().str.join(", ")
    stations = _stations(platform, settings).group_by("statid").agg(named)
    flags = flagged(platform, settings, found.first, found.last)
    exporters = (one for one in platform.config.exporters.values() if isinstance(one, OdbBase))
    pairs = {pair for exporter in exporters for pair in exporter.varnos(flags.schema)}
    varnos = pl.DataFrame(sorted(pairs), schema={"variable": pl.String, "varno": pl.Int64}, orient="row")
    ours = (
        flags.counts.join(varnos, on="variable")
        .group_by("station_id", "varno")
        .agg((pl.col("flagged").sum() / pl.col("values").sum()).alias("flagged_here"))
    )
    return found.table.join(stations, on="statid", how="left").join(ours, on=["station_id", "varno"], how="left")


def _tell_strangers(table: pl.DataFrame, settings: DatasetSettings) -> None:
    strangers = table.filter(table["station_id"].is_null())["statid"].unique().sort()
    if len(strangers):
        named = ", ".join(map(escape, strangers.head(5))) + (", ..." if len(strangers) > 5 else "")
        console.print(
            f"  {counted(len(strangers), 'statid')} of no station of {settings.name}: {named}", style="yellow"
        )


def _shown(varno: int, table: pl.DataFrame, most: int) -> Table:
    import polars as pl

    from ionbeam_dagster.exporters.odb.tables import label_of

    shown = Table("statid", "station", "values", "active", "rejected", "blacklisted", "O-B", "sd", "O-A",
                  "flagged here", title=f"varno {label_of(varno)}", title_justify="left")  # fmt: skip
    furthest = table.sort(pl.col("fg_bias").abs(), descending=True, nulls_last=True)
    for row in furthest.head(most).iter_rows(named=True):
        shares = (f"{row[name]:.0%}" for name in ("active", "rejected", "blacklisted"))
        means = ("" if row[name] is None else f"{row[name]:.4g}" for name in ("fg_bias", "fg_sd", "an_bias"))
        here = "" if row["flagged_here"] is None else f"{row['flagged_here']:.0%}"
        names = escape(row["statid"]), escape(row["station_id"] or "?")
        shown.add_row(*names, f"{row['values']:,}", *shares, *means, here)
    if table.height > most:
        shown.caption = f"and {table.height - most:,} more (--most, --csv)"
    return shown
