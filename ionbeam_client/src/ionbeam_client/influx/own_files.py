"""Which files a station's program writes by itself, so that no command writes over them.

Belongs here: their names. Does not belong here: whether the keys of the INI file agree with each other (config.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ionbeam_client.influx.config import Config
from ionbeam_client.influx.errors import InfluxError

_BESIDE = re.compile(r"|\.\d+(\.\w+)?|\.aside\.\d+|\.schema\.json(\.new)?|\.state", re.ASCII)
"""What may follow upon a file's name: a rotated part, packed perhaps, what was put aside, the schema, the folder."""


def refuse_own_files(
    config: Config, config_file: str, files: Iterable[Path], remedy: str, but: Path | None = None
) -> None:
    """Raise InfluxError where one of `files` that a command would write is the station's own; `but` may be it."""
    config_place = Path(os.path.expandvars(config_file)).expanduser().resolve()
    for file in files:
        place = file.resolve()
        key = "the configuration" if place == config_place else _owner(config, place)
        if key is not None and place != but:
            raise InfluxError(f"{file}: this is {key} of the station, or a part of it; {remedy}")


def _owner(config: Config, place: Path) -> str | None:
    """The key of the INI file under which a file is written, its rotated parts and what lies beside it among them."""
    named = {
        "refusedlogfile": config.refused_path, "jsonlogfile": config.jsonlogfile, "csvlogfile": config.csvlogfile,
        "errorlogfile": config.errorlogfile,
    }  # fmt: skip
    for key, own in named.items():
        if own is not None and any(_is_of(own, one) for one in (place, *place.parents)):
            return key
    return None


def _is_of(own: Path, place: Path) -> bool:
    if place.parent != own.parent or not place.name.startswith(own.name):
        return False
    return _BESIDE.fullmatch(place.name.removeprefix(own.name)) is not None
