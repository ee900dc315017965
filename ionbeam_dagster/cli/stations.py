"""`ionbeam stations`: what is known of stations, and what a person says of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_dagster.cli.terminal import SOURCES, console, dagster_instance, fail, frame_table, load_config, number

if TYPE_CHECKING:
    import polars as pl

    from ionbeam_dagster.pipeline.forgetting import Who
    from ionbeam_dagster.pipeline.platform import Platform
    from ionbeam_dagster.pipeline.stations import SourceStations

app = typer.Typer(
    help="Stations: what is known of each, and what you say of it. What arrived since is looked at first.",
    no_args_is_help=True,
)

SOURCE = typer.Argument(help="The source that the station belongs to.")
STATION_ID = typer.Argument(metavar="STATION", help="The station, as its source calls it.")


@app.command("list")
def stations_list(
    sources: Annotated[list[str] | None, SOURCES] = None,
    most: Annotated[int, typer.Option(min=1, help="Stations of a source that are shown.")] = 50,
) -> None:
    """List stations, and what a person should look at: shared ids, two places in turns, who is denied.

    Example: `ionbeam stations list garden`
    """
    platform = _platform()
    for source, found in _up_to_date(platform, sources or []).items():
        table = found.registry.table
        console.print(_summary(source, found, table), highlight=False)
        if table.height:
            console.print(_listed(table.head(most)))
        if table.height > most:
            console.print(f"  ... and {table.height - most} more (--most, or `ionbeam stations export`)", style="dim")
    _tell_faults(platform)


@app.command("show")
def stations_show(source: Annotated[str, SOURCE], station: Annotated[str, STATION_ID]) -> None:
    """Show all that is known of a station: what its source says, what you say, what it measures, where it was.

    Example: `ionbeam stations show garden roof`
    """
    platform = _platform()
    known = _up_to_date(platform, [source])[source].registry.one(station)
    if known is None:
        fail(f"{source} has no station {station!r}; `ionbeam stations list {source}` shows which it has")
    table = Table("", "", show_header=False, title=escape(f"{source} {station}"))
    for name, value in known.facts.items():
        if value is not None and name not in ("source", "station", "variables"):
            table.add_row(name.replace("_", " "), escape(_shown(value)))
    for name, said in known.told.items():
        table.add_row(f"{escape(name)} (its source)", escape(said))
    table.add_row("measures", escape("\n".join(known.measures) or "nothing"))
    console.print(table)
    for title, frame in (("places", known.places), ("moves", known.moves)):
        if frame.height:
            console.print(f"[bold]{title}[/bold]")
            console.print(frame_table(frame))


@app.command("export")
def stations_export(
    file: Annotated[Path, typer.Argument(help="The CSV file that is written.")],
    sources: Annotated[list[str] | None, SOURCES] = None,
) -> None:
    """Write a CSV file with a row a station: what you say of it, and in columns heard_... what its source does.

    Fill in the columns that are not called heard_..., and give it to `ionbeam stations import`.
    """
    import polars as pl

    from ionbeam_dagster.domain.stations import exported
    from ionbeam_dagster.stores.publish import published

    platform = _platform()
    found = _up_to_date(platform, sources or [])
    table = pl.concat([exported(one.registry) for one in found.values()])
    with published(file) as draft:
        table.write_csv(draft)
    console.print(f"{file}: {table.height} stations of {', '.join(found)}", highlight=False)


@app.command("import")
def stations_import(
    file: Annotated[Path, typer.Argument(help="A CSV file with the columns source, station, and any of the others.")],
) -> None:
    """Take over what a CSV file says of stations; what it does not name stays as it is.

    Columns: source, station, wigos_id, name, latitude, longitude, altitude, mobile, siting, parent, admit (allow,
    deny), why. Those that begin with heard_ are left out. Where anything in it is wrong, nothing of it is taken.
    """
    from ionbeam_dagster.pipeline.stations import change_entries
    from ionbeam_dagster.stores.stations import entries_of_csv

    platform = _platform()
    try:
        entries, faults = entries_of_csv(file.read_bytes())
    except OSError as error:
        fail(f"{file}: cannot be read ({error})")
    if faults:
        fail("\n".join(f"{file}: {fault}" for fault in [*faults, "nothing of it was taken"]))
    change_entries(platform, lambda told: told.with_(entries))
    console.print(f"{platform.stations.place}: {number(entries.height)} entries were taken over", highlight=False)
    _tell_faults(platform)


@app.command("deny")
def stations_deny(
    source: Annotated[str, SOURCE],
    station: Annotated[str, STATION_ID],
    why: Annotated[str, typer.Option(help="Why, for people.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Let it come in again.")] = False,
) -> None:
    """Let rows of a station come no further than the quarantine, from now on.

    Example: `ionbeam stations deny garden cellar --why "stands indoors"`
    """
    from ionbeam_dagster.pipeline.stations import change_entries

    platform = _platform()
    platform.source(source)
    change_entries(platform, lambda told: told.let_in(source, station) if lift else told.denied(source, station, why))
    done = "come in again" if lift else "go to the quarantine"
    dataset = platform.source(source).dataset
    console.print(
        f"rows of {source} {station} {done} from now on; so do those that came before, after "
        f"`ionbeam reingest {source} --from ... --to ...`, and their windows are made again by "
        f"`ionbeam rebuild {dataset} --force --from ... --to ...`",
        highlight=False,
        soft_wrap=True,
    )


@app.command("forget")
def stations_forget(
    source: Annotated[str, SOURCE],
    station: Annotated[str, STATION_ID],
    dry_run: Annotated[bool, typer.Option(help="Tell what would go; remove nothing.")] = False,
) -> None:
    """Remove a station from all that the platform keeps, for ever, as its owner may ask: it does not come back.

    Its rows go from raw partitions, observations, quarantine and doors; dataset windows get a next revision without
    it, which clients are told of, and exports are made again; the registry and Dagster's pages lose it. What was begun
    and killed is ended by the same command again. At the end it says what the platform cannot remove.

    Example: `ionbeam stations forget garden cellar --dry-run`
    """
    from ionbeam_dagster.doors.forgetting import bus, parked
    from ionbeam_dagster.orchestration.forgetting import pages
    from ionbeam_dagster.orchestration.heartbeats import beating
    from ionbeam_dagster.orchestration.holders import OtherRuns
    from ionbeam_dagster.pipeline.forgetting import forget, who_is

    platform = _platform()
    who = who_is(platform, source, station)
    holder = f"forgetting {uuid4()}"
    with dagster_instance(platform.config) as instance, beating(platform, holder, "a station is forgotten"):
        also = parked, bus, partial(pages, instance)
        found = forget(platform, who, dry_run, also, OtherRuns(platform, who.works, holder))
    table = Table("kind", "number", "rows", title="would go" if dry_run else "removed", title_justify="left")
    kinds = list(dict.fromkeys(one.kind for one in found.removed))
    for kind in kinds:
        of_kind = [one for one in found.removed if one.kind == kind]
        table.add_row(kind, number(len(of_kind)), number(sum(one.rows for one in of_kind)) if of_kind[0].rows else "")
    if kinds:
        console.print(table)
    else:
        console.print("The platform has nothing of it.")
    left = [*found.left, *_of_others(platform, who)]
    console.print("What the platform cannot remove:" if left else "Nothing else is known to have it.")
    for line in left:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _of_others(platform: Platform, who: Who) -> Iterator[str]:
    """Who has copies: those who confirmed windows, and whoever else was sent or downloaded them."""
    from ionbeam_dagster.edr.clients import clients
    from ionbeam_dagster.edr.served import served

    if who.dataset.name in served(platform.config):
        for one in clients(platform.config):
            if one.dataset == who.dataset.name:
                at = f"{one.at:%Y-%m-%d %H:%M}"
                yield f"client {one.name} confirmed {one.has:,} windows, the last at {at}; it is told of the new ones"
    if platform.config.sections.broker is not None:
        yield "messages that wait in queues of the broker, and what clients took from them"
    yield "copies that others made of exports, backups, and what processes wrote to their logs elsewhere"


def _platform() -> Platform:
    from ionbeam_dagster.pipeline.recovery import open_platform

    return open_platform(load_config())


def _up_to_date(platform: Platform, sources: list[str]) -> dict[str, SourceStations]:
    from ionbeam_dagster.pipeline.stations import up_to_date

    for source in sources:
        platform.source(source)
    return up_to_date(platform, sources or list(platform.config.sources))


def _summary(source: str, found: SourceStations, table: pl.DataFrame) -> str:
    told = [f"{table.height:,} stations"]
    denied = int((table["status"] == "denied").sum())
    told += [f"{denied:,} denied"] if denied else []
    told += [f"{found.new:,} new"] if found.new else []
    gone = found.missed - found.away
    told += [f"{gone:,} raw files were gone before they were looked at"] if gone else []
    told += [f"{found.away:,} raw files cannot be read now, and are looked at again"] if found.away else []
    return f"[bold]{source}[/bold]: {', '.join(told)}"


def _listed(table: pl.DataFrame) -> Table:
    listed = Table("station", "name", "WIGOS id", "place", "height", "", "last heard", "measures", "remarks")
    for row in table.iter_rows(named=True):
        place = "" if row["lat"] is None else f"{row['lat']:.4f} {row['lon']:.4f}"
        height = "" if row["altitude"] is None else f"{row['altitude']:g} m"
        heard = "" if row["last_heard"] is None else f"{row['last_heard']:%Y-%m-%d %H:%M}"
        moved = "" if row["moved"] is None else f"moved {row['moved']:%Y-%m-%d}"
        remarks = "; ".join(part for part in (row["status"], moved, row["why"]) if part)
        cells = row["station"], row["name"] or "", row["wigos_id"] or "", place, height
        told = "mobile" if row["mobile"] else "", heard, str(row["variables"]), remarks
        listed.add_row(*map(escape, (*cells, *told)))
    return listed


def _tell_faults(platform: Platform) -> None:
    from ionbeam_dagster.pipeline.stations import faults

    for fault in faults(platform):
        console.print(f"  {fault}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _shown(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if hasattr(value, "strftime") else str(value)
