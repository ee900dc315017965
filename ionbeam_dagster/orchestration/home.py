"""Dagster's own folder: where it keeps its settings, and by default its runs and events.

Belongs here: the folder's making. Does not belong here: the platform's state, which is the ledger's and the stores'.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ionbeam_dagster.stores.publish import published

SETTINGS = "dagster.yaml"


def ensure_home(path: Path) -> Path:
    """Make `path` fit to be DAGSTER_HOME, and return it as an absolute path. Settings that are there are left alone."""
    home = path.absolute()
    if not (home / SETTINGS).exists():
        with published(home / SETTINGS) as draft:
            draft.write_bytes(files(__package__).joinpath(SETTINGS).read_bytes())
    return home
