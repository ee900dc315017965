"""Dagster's own folder: where it keeps its settings, and by default its runs and events.

Belongs here: the folder's making. Does not belong here: the platform's state, which is the ledger's and the stores'.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.stores.locks import folder_locked
from ionbeam_dagster.stores.publish import published

SETTINGS = "dagster.yaml"
_STORES_ARE_MADE = "ionbeam-stores"
_MAKE_STORES = "import dagster; dagster.DagsterInstance.get().dispose()"
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


def ensure_stores(home: Path, log: Path) -> None:
    """Have one process make Dagster's stores before several open them; what it says is written after what is in `log`.

    Two that make a SQLite store at once both write down its version, and from then on nobody can open it. Where this
    fails, as with a server that is away, it is tried again the next time, and whoever opens the stores says why.
    """
    made = home / _STORES_ARE_MADE
    with folder_locked(home), log.open("ab") as said:
        if made.exists():
            return
        command = [sys.executable, "-c", _MAKE_STORES]
        opened = subprocess.run(command, env=os.environ | {"DAGSTER_HOME": str(home)}, stdout=said, stderr=said)
        if opened.returncode == 0:
            made.touch()
