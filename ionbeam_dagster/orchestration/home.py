"""Dagster's own folder: where it keeps its settings, and by default its runs and events.

Belongs here: how the folder and its databases are made, and opened. Does not belong here: the platform's state, which
is the ledger's and the stores'.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.stores.locks import folder_locked
from ionbeam_dagster.stores.publish import published

if TYPE_CHECKING:
    from dagster import DagsterInstance

SETTINGS = "dagster.yaml"
_STORES_ARE_MADE = "ionbeam-stores"
_MAKE_STORES = "import dagster; dagster.DagsterInstance.get().dispose()"
_DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
"""Dagster's own, unless its settings name a server."""
LOG = "ionbeam-dev.log"
"""Into which the processes of `ionbeam dev` log."""


def home_of(config: IonbeamConfig) -> Path:
    """Where it is: in DAGSTER_HOME, else below the platform's state."""
    return Path(os.environ.get("DAGSTER_HOME") or config.sections.state_path / "dagster").absolute()


def ensure_home(path: Path) -> Path:
    """Make `path` fit to be DAGSTER_HOME, and return it as an absolute path. Settings that are there are left alone."""
    home = path.absolute()
    if not (home / SETTINGS).exists():
        with published(home / SETTINGS) as draft:
            draft.write_bytes(files(__package__).joinpath(SETTINGS).read_bytes())
    return home


@contextmanager
def dagster_at(home: Path) -> Iterator[DagsterInstance]:
    """Dagster, as it is kept there. One process at a time opens it: two that make a database at once spoil it.

    Raises StoreError where nobody can open it any longer.
    """
    from ionbeam_dagster.orchestration.kept_storage import instance_of  # it takes long to import, for `ionbeam dev`

    with folder_locked(home):
        check_databases(home)
        instance = instance_of(str(home))
    with instance:
        yield instance


def check_databases(home: Path) -> None:
    """Raises StoreError, with what to do, where nobody can open one of Dagster's databases in files any longer."""
    for name in _DATABASES:
        if fault := _fault(home / name):
            raise StoreError(
                f"{home / name} of Dagster cannot be opened: {fault}; stop all processes of the platform, remove "
                f"{home / Path(name).parts[0]}, start them again, then `ionbeam history rebuild`"
            )


def _fault(database: Path) -> str:
    if not database.exists():
        return ""
    try:
        with closing(sqlite3.connect(database)) as db:
            [versions] = db.execute("SELECT count(*) FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:  # else it is new, or locked, or its disk is away: Dagster says so itself
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return str(error) if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else ""
    return "several processes made it at once, when it was gone" if versions > 1 else ""


def ensure_stores(home: Path, log: Path) -> None:
    """Have one process make Dagster's stores before several open them, also where they were removed since; what it
    says is written after what is in `log`.

    Two that make a SQLite store at once both write down its version, and from then on nobody can open it. Where this
    fails, as with a server that is away, it is tried again the next time, and whoever opens the stores says why.
    """
    note = home / _STORES_ARE_MADE
    with folder_locked(home), log.open("ab") as said:
        made = note.read_text().split() if note.exists() else []
        if made and all((home / name).exists() for name in made):
            return
        command = [sys.executable, "-c", _MAKE_STORES]
        opened = subprocess.run(command, env=os.environ | {"DAGSTER_HOME": str(home)}, stdout=said, stderr=said)
        if opened.returncode == 0:
            note.write_text("\n".join(name for name in (SETTINGS, *_DATABASES) if (home / name).exists()))
