"""Dagster's own folder: where it keeps its settings, and by default its runs and events.

Belongs here: the folder's making. Does not belong here: the platform's state, which is the ledger's and the stores'.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.stores.publish import published

SETTINGS = "dagster.yaml"


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
