"""`ionbeam wis2`: what is given away by WIS2."""

from __future__ import annotations

import signal
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from ionbeam_dagster.cli.terminal import FROM, TO, asked_range, console, fail, load_config

if TYPE_CHECKING:
    from ionbeam_dagster.domain.windows import Window
    from ionbeam_dagster.pipeline.platform import Platform
    from ionbeam_dagster.wis2.telling import Turn

app = typer.Typer(help="What is given away by WIS2 (docs/wis2.md).", no_args_is_help=True)
DATASET = typer.Argument(help="A dataset that is given away, by its name.")


@app.command()
def show(
    dataset: Annotated[str | None, DATASET] = None,
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
) -> None:
    """Show what was told, and what is still to be told; of a dataset its record and messages, a line of JSON each.

    With a range, the messages on windows that begin in it.
    """
    platform = _platform()
    if dataset is None:
        _table(platform)
        return
    from ionbeam_dagster.wis2.giving import read_bytes, settings_of
    from ionbeam_dagster.wis2.telling import notices_on

    for notice in notices_on(platform, settings_of(platform), dataset, _range(start, end)):
        try:
            print(read_bytes(platform.files, notice.place).decode())
        except FileNotFoundError:
            typer.echo(f"{notice.data_id}: {notice.place} is gone (wis2.keep_for)", err=True)


@app.command()
def publish(
    follow: Annotated[bool, typer.Option("--follow", help="Go on, and tell each export within seconds.")] = False,
) -> None:
    """Tell others of all exports that they were not told of, and end; with --follow, until Ctrl-C.

    Any number of processes may follow, on any host that shares the stores: one of them tells, the others stand by.
    """
    from ionbeam_dagster.wis2.telling import publish as publish_all
    from ionbeam_dagster.wis2.telling import publish_forever

    platform = _platform()
    if not follow:
        _tell(publish_all(platform))
        return
    from ionbeam_dagster.health.logs import log_to_stderr

    log_to_stderr(platform.config)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    publish_forever(platform, stop)


@app.command()
def republish(
    dataset: Annotated[str, DATASET],
    start: Annotated[str | None, FROM] = None,
    end: Annotated[str | None, TO] = None,
) -> None:
    """Tell others again of the windows that begin in a range, and of the record of their dataset.

    The messages are those that were sent, with the same ids: who has one already knows it.
    """
    from ionbeam_dagster.wis2.telling import ToldElsewhere, tell_again
    from ionbeam_dagster.wis2.telling import publish as publish_all

    platform = _platform()
    again = tell_again(platform, dataset, _range(start, end))
    try:
        _tell(publish_all(platform))
    except ToldElsewhere:
        console.print(f"{again:,} notifications are told again by the process that follows.")


def _range(start: str | None, end: str | None) -> Window:
    from ionbeam_dagster.domain.windows import EPOCH, FOREVER, Window

    first, last = asked_range(start, end)
    return Window(first or EPOCH, last or FOREVER)


def _platform() -> Platform:
    from ionbeam_dagster.pipeline.recovery import open_platform
    from ionbeam_dagster.wis2.giving import settings_of

    platform = open_platform(load_config())
    settings_of(platform)
    return platform


def _tell(turn: Turn) -> None:
    console.print(f"{turn.told:,} notifications told.")
    if turn.left:
        console.print(f"{turn.left:,} are not told: their datasets are no longer among wis2.datasets.")
    if turn.failed:
        fail("\n".join(f"{what} is not told: {why}" for what, why in turn.failed.items()))


def _table(platform: Platform) -> None:
    from rich.table import Table

    from ionbeam_dagster.domain.windows import EPOCH
    from ionbeam_dagster.wis2.giving import due, settings_of
    from ionbeam_dagster.wis2.places import RECORD

    wis2 = settings_of(platform)
    table = Table()
    for column in ("dataset", "what", "told", "to be told", "told last (UTC)", "topic"):
        table.add_column(column, justify="right" if column in ("told", "to be told") else "left")
    for name, given in wis2.datasets.items():
        waiting = [one.made.format for some in due(platform, wis2, name, EPOCH) for one in some]
        for what in (RECORD, *given.formats):
            tally = platform.ledger.notices.tally(f"{name}/{what}")
            last = f"{tally.last:%Y-%m-%d %H:%M:%S}" if tally.last else ""
            topic = wis2.metadata_channel if what == RECORD else wis2.channel(name)
            table.add_row(name, what, f"{tally.told:,}", f"{tally.open + waiting.count(what):,}", last, topic)
    console.print(table)
