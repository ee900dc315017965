"""Commands about sources: trying one, and taking a dataset in that the configuration does not know yet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ionbeam_client.models import format_duration
from ionbeam_dagster.cli.terminal import console, fail, load_config, moment
from ionbeam_dagster.config import DatasetSettings, IonbeamConfig, SourceSettings
from ionbeam_dagster.domain.times import in_short

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from ionbeam_client.models import IngestDataCommand
    from ionbeam_dagster.domain.canonical import TimeBounds
    from ionbeam_dagster.domain.windows import Window
    from ionbeam_dagster.pipeline.platform import Platform
    from ionbeam_dagster.sources import Source

_UNKNOWN = 20  # fields that are told of
_SHOWN = 50  # corrections

app = typer.Typer(help="Sources: what is collected, and what clients send.", no_args_is_help=True)


@app.command()
def accept(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="The dataset that the parked messages name; or a source that is written at the door.",
        ),
    ],
) -> None:
    """Add a dataset that a client sends, and the configuration does not know, as an external source to the YAML.

    Its messages were parked, which `ionbeam status` shows. The block is made of what they say; comments and the rest of
    the YAML stay as they are. Once the platform has the new YAML (reload the code location in the UI; start `ionbeam
    bridge` again) it takes in what was parked.

    Of a source of kind door, which the configuration knows, the parked lines are looked at: variables that can be told
    by their names are added to its block, and `ionbeam receive` takes them in when it is started again.
    """
    from ionbeam_dagster.config.editing import add_source
    from ionbeam_dagster.doors.amqp.bridge import bridge_of
    from ionbeam_dagster.pipeline.recovery import open_platform

    config = load_config()
    if name in config.sources and config.sources[name].kind == "door":
        _accept_at_door(config, name)
        return
    if name in config.sources and config.sources[name].kind == "pull":
        kind = config.sources[name].config.type or name
        fail(f"{name} is a source of type {kind}, which the platform asks itself: nothing is sent for it")
    if name in config.datasets:
        fail(f"{config.path} has dataset {name!r} already; what is parked of it is sent back by "
             "`ionbeam-client dead requeue --all --queue ionbeam.ingestion.ingestV1`")  # fmt: skip
    if name in config.sources:
        fail(f"{config.path} has a source {name!r} that feeds dataset {config.sources[name].dataset!r}; rename it, or "
             "add a source with another name and 'dataset: " + name + "' yourself")  # fmt: skip
    if config.sections.broker is None:
        fail(f"{config.path} has no source {name!r}; it has {', '.join(config.sources) or 'none'}")
    platform = open_platform(config)
    parked = bridge_of(platform).parked(name)
    if not parked:
        fail(f"nothing is parked of dataset {name!r}; `ionbeam status` shows what is")
    block = _block(parked)
    add_source(config.path, name, block, comment=" ".join(parked[-1].metadata.dataset.description.split()))
    platform.ledger.refusals.accept(name)
    lines = "".join(f"  {key}: {value}\n" for key, value in block.items())
    console.print(f"{config.path} has a new source:\n\n{name}:\n{lines}", highlight=False, markup=False)
    console.print(
        f"{len(parked)} parked messages are taken in once the platform has read it: reload the code location in the UI "
        "(Deployment), or start `ionbeam dev` or `ionbeam bridge` again.",
        highlight=False,
    )


def _accept_at_door(config: IonbeamConfig, name: str) -> None:
    from ionbeam_dagster.config.editing import add_to_source
    from ionbeam_dagster.doors.http import lacking

    if missing := lacking():
        fail(f"{name} is written at the door, which needs {missing}")
    from ionbeam_dagster.doors.http.lines import shown_text
    from ionbeam_dagster.doors.http.memory import Memory, door_folder
    from ionbeam_dagster.doors.http.proposals import propose
    from ionbeam_dagster.pipeline.recovery import open_platform
    from ionbeam_dagster.sources.door import DoorConfig

    folder, block = door_folder(open_platform(config)), config.sources[name].config
    assert isinstance(block, DoorConfig)
    memory = Memory(folder)
    parked = memory.parked(name)
    if not parked:
        fail(f"nothing is parked of {name}; `ionbeam status` shows what is")
    found = propose(block, folder / "parked" / name)
    keys: dict[str, str | int] = dict(found.keys)
    if found.variables and block.variables:
        keys["version"] = (block.version or 1) + 1
    if keys or found.variables:
        add_to_source(config.path, name, keys, "variables", found.variables)
    memory.accept(name)
    told = [f"  {key}: {value}" for key, value in keys.items()]
    told += [
        f"  {one['measurement']}.{one['field']} is {one['standard_name']} in {one.get('unit', one['cf_unit'])} at "
        f"{one['level']:g} m"
        for one in found.variables
    ]
    if told:
        console.print(f"{config.path}, source {name}: check these guesses, the units above all", *told, sep="\n",
                      highlight=False, markup=False)  # fmt: skip
    if block.latitude is None and not block.stations and "latitude" not in keys:
        console.print(f"  no line says where its station is: add latitude and longitude to sources.{name}, or stations "
                      "with the place of each", highlight=False, markup=False)  # fmt: skip
    for measurement, field in found.unknown[:_UNKNOWN]:
        console.print(f"  {shown_text(measurement)}.{shown_text(field)}: what it is cannot be told by its name; add it "
                      f"to sources.{name}.variables, or to its ignore", highlight=False, markup=False)  # fmt: skip
    console.print(f"{sum(one.lines for one in parked):,} parked lines are looked at again when `ionbeam receive` is "
                  "started again.", highlight=False, markup=False)  # fmt: skip


@app.command()
def guess(
    path: Annotated[
        str, typer.Argument(help="A file, a folder, or a glob in quotes, of files that no source reads yet.")
    ],
) -> None:
    """Look into files, and write a configuration with a source that reads them.

    Each line says how sure it is and why; what no file can tell is asked for (TODO). It needs no configuration and
    stores nothing. Of large files only the beginning and the end are read.

    Example: `ionbeam source guess loggers > loggers.yaml`, then `ionbeam --config loggers.yaml config check`
    """
    from ionbeam_client.text import visible
    from ionbeam_dagster.sources.files.guessing import propose

    proposal = propose(path)
    typer.echo(proposal.text, nl=False)
    for note in proposal.notes:
        typer.echo(visible(note), err=True)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A source, by its name in the configuration.")],
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="A moment of the window to ask for. Default: the latest that is due, "
            "or the last of a source that ends.",
        ),
    ] = None,
) -> None:
    """Ask a source for one small window, and say what came of it: nothing is stored.

    Tells what was found, what would be kept and what not and why, where each variable would go, and how late the data
    are. Ends with an error where the source cannot be asked.

    Example: `ionbeam source check sensor_community --at 2026-06-21`
    """
    from ionbeam_dagster.domain.windows import window_of
    from ionbeam_dagster.pipeline.ingest import time_bounds
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    if name not in platform.config.sources:
        fail(f"{platform.config.path} has no source {name!r}; there are {', '.join(platform.config.sources)}")
    settings = platform.config.sources[name]
    if settings.sent:
        fail(f"{name} is sent by a client, and cannot be asked")
    now = datetime.now(UTC)
    window = window_of(moment(at, "--at") or _latest(platform.sources[name], settings, now), settings.window_size)
    console.print(f"[bold]{name}[/bold] is asked for {window}", highlight=False)
    begun = perf_counter()
    with console.status("waiting for it"):
        found = _trial(platform.sources[name], window, time_bounds(platform, settings, now))
    took = perf_counter() - begun
    part = " of a sample" if found.sampled else ""
    console.print(f"  {found.raw:,} rows{part} in {took:.1f} s: {found.rows.height:,} would be kept", highlight=False)
    for reason, rows in found.rejected.items():
        console.print(f"  {rows:,} would go to the quarantine: {reason}", style="yellow", highlight=False, markup=False)
    for problem in platform.sources[name].problems():
        console.print(f"  {problem}", style="yellow", highlight=False, markup=False)
    if not found.rows.height:
        console.print("  there is nothing to say of variables", highlight=False)
        return
    _show_rows(found, window, now)
    _show_variables(platform, platform.dataset(settings.dataset), found)


@app.command()
def changes(name: Annotated[str, typer.Argument(help="A source, by its name in the configuration.")]) -> None:
    """List what a source corrected of its past, and what is still missing until it is published and confirmed.

    The source itself is not asked: the sensor <source>__confirmations does that.

    Example: `ionbeam source changes restream`
    """
    from ionbeam_dagster.pipeline import corrections

    platform = _correcting(name)
    source, now = platform.source(name), platform.now()
    memory = platform.ledger.corrections
    known, seen = [*memory.open(name), *memory.closed(name)], memory.seen(name)
    asked = f"the source was last asked {in_short(now - seen)} ago" if seen else "the source was never asked"
    found = f"{len(memory.open(name))} open corrections" if known else "no correction is known"
    console.print(f"{name}: {found}; {asked}", style="bold", highlight=False, markup=False, soft_wrap=True)
    if seen is None or now - seen > corrections.ASKED_WITHIN:
        console.print(corrections.WHO_ASKS.format(name), highlight=False, markup=False, soft_wrap=True)
    for one in known[:_SHOWN]:
        lacking = Counter[str]() if one.closed else corrections.standing(platform, source, one, now)
        about = one.correction
        console.print(
            f"{about.id}  {about.what}",
            f"    {corrections.range_of(about.range)}, first seen {one.seen:%Y-%m-%d %H:%M}",
            f"    {corrections.state_of(platform, source, one, lacking)}",
            sep="\n", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if len(known) > _SHOWN:
        console.print(f"{len(known) - _SHOWN} more, which were closed before, are not shown")


@app.command()
def confirm(
    name: Annotated[str, typer.Argument(help="A source, by its name in the configuration.")],
    event: Annotated[str, typer.Argument(help="The event, as `ionbeam source changes` shows it.")],
    by: Annotated[str, typer.Option(help="Who says so.")] = "",
) -> None:
    """Confirm a correction to its source although not all of it is published, such as one that a sealed window holds.

    The source tells of it no longer. What it took back and is not collected yet stays.

    Example: `ionbeam source confirm restream 981/12`
    """
    from getpass import getuser

    from ionbeam_dagster.pipeline import corrections

    platform = _correcting(name)
    source = platform.source(name)
    known = corrections.confirm(platform, source, event, by or getuser(), platform.now())
    state = corrections.state_of(platform, source, known, Counter())
    left = corrections.left_of(platform, source, known)
    rest = f"; {left:,} windows of it are not published" if left else ""
    console.print(f"{event}: {state}{rest}", highlight=False, markup=False, soft_wrap=True)


def _correcting(name: str) -> Platform:
    from ionbeam_dagster.pipeline.recovery import open_platform

    platform = open_platform(load_config())
    if not platform.source(name).corrects:
        some = [one.name for one in platform.config.sources.values() if one.corrects]
        fail(f"{name} tells of no corrections of its past; those that do: {', '.join(some) or 'none'}")
    return platform


def _latest(source: Source, settings: SourceSettings, now: datetime) -> datetime:
    """A moment of the latest window that is due, of a source that ends: of its last one."""
    known = source.extent()
    ends = [now - settings.window_lag, *([settings.end] if settings.end else []), *([known.end] if known else [])]
    return min(ends) - settings.window_size


@dataclass(frozen=True, slots=True)
class _Trial:
    """What a source gave for a trial: the canonical rows, how many raw ones they were, and why some were rejected."""

    schema: pa.Schema
    sampled: bool
    raw: int
    rows: pl.DataFrame
    rejected: dict[str, int]


def _trial(source: Source, window: Window, bounds: TimeBounds) -> _Trial:
    import polars as pl

    from ionbeam_dagster.domain.canonical import canonical_schema, canonicalise

    metadata = source.metadata
    schema = canonical_schema([metadata])
    rows = [pl.DataFrame(pl.from_arrow(schema.empty_table()))]
    rejected: Counter[str] = Counter()
    raw = 0
    sample = source.sample(window)
    for batch in source.fetch(window) if sample is None else sample:
        done = canonicalise(batch, metadata, bounds)
        raw += batch.num_rows
        rows.append(done.rows)
        kind = pl.col("reason").str.replace_all(r": [^;]*", "")
        rejected.update(dict(done.rejected.group_by(kind).len().iter_rows()))
    return _Trial(schema, sample is not None, raw, pl.concat(rows, how="vertical_relaxed"), dict(rejected))


def _show_rows(found: _Trial, window: Window, now: datetime) -> None:
    bounds = found.rows.select("datetime", "lat", "lon")
    (first, south, west), (last, north, east) = bounds.min().row(0), bounds.max().row(0)
    inside = found.rows["datetime"].is_between(window.start, window.end, closed="left")
    outside = found.rows.height - int(inside.sum())
    stations = found.rows["station_id"].n_unique() if "station_id" in found.rows.columns else None
    box = f"latitude {south:.2f} to {north:.2f}, longitude {west:.2f} to {east:.2f}"
    lines = [
        f"  times: {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}; {outside:,} rows belong to other windows",
        f"  the newest is {_age(now - last)} old",
        f"  places: {box}" + (f"; {_stations(stations)}" if stations else ""),
    ]
    console.print("\n".join(lines), highlight=False)


def _show_variables(platform: Platform, dataset: DatasetSettings, found: _Trial) -> None:
    from ionbeam_dagster.domain.canonical import columns_of

    plans = platform.plans(dataset, found.schema)
    table = Table()
    for column in ("canonical variable", "values", "least", "most", *plans):
        table.add_column(column, overflow="fold", no_wrap=column in ("values", "least", "most"))
    without = []
    for name in columns_of(found.schema, "variable"):
        values = found.rows[name].drop_nulls()
        if values.is_empty():
            without.append(name.partition("__")[0])
            continue
        fates = [plan.mapped.get(name) or f"no: {plan.left_out[name]}" for plan in plans.values()]
        edges = (_number(values.min()), _number(values.max()))
        shown = ("as it is" if fate == name else fate for fate in fates)
        table.add_row(*map(escape, (name, f"{len(values):,}", *edges, *shown)))
    console.print(table)
    if without:
        console.print(f"  no values of {', '.join(without)}", highlight=False, markup=False)


def _number(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _stations(number: int) -> str:
    return "1 station" if number == 1 else f"{number:,} stations"


def _age(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else f"{minutes // 1440} days"


def _block(parked: list[IngestDataCommand]) -> dict[str, str | date]:
    """A source for all that is parked: as long as the first of it reaches back, in windows that its dataset has."""
    declared = parked[-1].metadata.dataset
    block: dict[str, str | date] = {
        "kind": "external",
        "start": min(command.start_time for command in parked).date(),
        "aggregation_span": format_duration(declared.aggregation_span),
    }
    if declared.subject_to_change_window > timedelta(0):
        block["subject_to_change_window"] = format_duration(declared.subject_to_change_window)
    return block
