"""What all commands share: the configuration, options of time, and how things look in a terminal.

Belongs here: what a second command needs too. Does not belong here: any command.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from ionbeam_client.text import visible
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.times import parse_moment

if TYPE_CHECKING:
    import polars as pl
    from dagster import DagsterInstance


class _Terminal(Console):
    """Whatever is printed, in sentences and in tables, can come from outside: it is text, and commands the terminal
    nothing."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(visible, segment.text.split("\n"))), segment.style)


console = _Terminal(width=None if sys.stdout.isatty() else 120)

SOURCES = typer.Argument(help="Sources, by their names in the configuration; all of them when none is named.")
DATASETS = typer.Argument(help="Datasets, by their names; all of them when none is named.")
FROM = typer.Option("--from", help="Start of the range, ISO 8601, UTC unless it says otherwise: 2026-06-21T06:00Z")
TO = typer.Option("--to", help="End of the range (not included).")


PORTS = {"min": 1, "max": 65535}
_OF_THE_DISK = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within your quota",
    errno.EROFS: "the file system is mounted read-only: name another place",
    errno.EACCES: "give this user permission",
}
_FULL_OR_SHUT = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def load_config() -> IonbeamConfig:
    return IonbeamConfig.load()


def dagster_home(config: IonbeamConfig) -> Path:
    from ionbeam_dagster.orchestration.home import ensure_home, home_of

    return ensure_home(home_of(config))


@contextmanager
def dagster_instance(config: IonbeamConfig) -> Iterator[DagsterInstance]:
    from ionbeam_dagster.orchestration.home import dagster_at

    home = dagster_home(config)
    os.environ["DAGSTER_HOME"] = str(home)
    with dagster_at(home) as instance:
        yield instance


def print_errors(message: str) -> None:
    for line in message.splitlines():
        print(f"ionbeam: {visible(line)}", file=sys.stderr)


def fail(message: str) -> NoReturn:
    print_errors(message)
    raise typer.Exit(1)


def of_the_disk(error: BaseException) -> str | None:
    """What to say of an error that is the disk's, or the permission to write there; None of any other.

    Dagster's storage hides the reason in an error of its own.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _OF_THE_DISK:
            return f"{found.filename or 'a file'}: {found.strerror}; {_OF_THE_DISK[found.errno]}, and try again"
        if isinstance(found, sqlite3.Error) and getattr(found, "sqlite_errorcode", 0) & 0xFF in _FULL_OR_SHUT:
            home = os.environ.get("DAGSTER_HOME", "DAGSTER_HOME")
            remedy = "make room on its disk, or give this user permission to write there, and try again"
            return f"Dagster's history ({home}) cannot be written: {found}; {remedy}"
        found = found.__cause__ or found.__context__
    return None


def moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError as error:
        fail(f"{option} {error}")


def asked_range(start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    """What --from and --to say; refused where the end is not later than the start."""
    first, last = moment(start, "--from"), moment(end, "--to")
    if first is not None and last is not None:
        in_order(first, last)
    return first, last


def in_order(first: datetime, last: datetime) -> None:
    if last <= first:
        fail(f"--to {last:%Y-%m-%dT%H:%MZ} must be later than --from {first:%Y-%m-%dT%H:%MZ}")


def size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def frame_table(frame: pl.DataFrame) -> Table:
    table = Table(*map(escape, frame.columns))
    for row in frame.iter_rows():
        table.add_row(*["" if value is None else escape(str(value)) for value in row])
    return table
