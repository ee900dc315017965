"""Where what is given away lies: files, each with its message beside it.

    <output_path>/<dataset>/<format>/<day>/<dataset>_<window>_r<revision>_<hash>.<extension>
    <output_path>/<dataset>/record/<dataset>_r<revision>_<hash>.json

Belongs here: names and addresses. Does not belong here: what is written there. No two revisions share a name, so that
caches on the way never give an older file for a newer one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from ionbeam_dagster.config.wis2 import Wis2Settings
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.files import folder_of, name_of, within

MESSAGE = ".wnm.json"
"""What the name of a message has beyond that of its file."""
RECORD = "record"
_REVISION = re.compile(r"^(.+)_r(\d+)_([0-9a-f]{8}|withdrawn)\.(.+)$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of one window in one format lie, or the records of a dataset."""

    folder: str
    stem: str
    extension: str

    def file(self, number: int, hash: str) -> str:
        """The location of a revision's file; `hash` is the SHA-256 of its content, "" of a window that is withdrawn."""
        return within(self.folder, f"{self.stem}_r{number}_{hash[:8] or 'withdrawn'}.{self.extension}")

    def is_ours(self, location: str) -> bool:
        """Whether a file of the folder is one of these, or a message on one."""
        name = name_of(location)
        return name.startswith(f"{self.stem}_r") and name.removesuffix(MESSAGE).endswith(f".{self.extension}")


def place_of_window(wis2: Wis2Settings, dataset: str, format: str, window: Window, extension: str) -> Place:
    folder = within(wis2.output_path, dataset, format, f"{window.start:%Y%m%d}")
    return Place(folder, f"{dataset}_{window.label}", extension)


def place_of_record(wis2: Wis2Settings, dataset: str) -> Place:
    return Place(within(wis2.output_path, dataset, RECORD), dataset, "json")


def place_of_message(location: str) -> Place:
    """Where the file of a message lies, and all others of its window."""
    found = _REVISION.match(name_of(location))
    assert found is not None, location
    return Place(folder_of(location), found[1], found[4].removesuffix(MESSAGE))


def data_id(wis2: Wis2Settings, dataset: str, format: str, window: Window) -> str:
    """What names a window in a format, whatever its revision."""
    return f"{wis2.centre_id}/{dataset}/{format}/{window.label}"


def record_id(wis2: Wis2Settings, dataset: str) -> str:
    return f"{wis2.centre_id}/{dataset}/{RECORD}"


def revision_in(location: str) -> tuple[int, str]:
    """The revision and the first of its hash, or "withdrawn", in a name; (0, "") where it has none."""
    found = _REVISION.match(name_of(location))
    return (int(found[2]), found[3]) if found else (0, "")


def address_of(wis2: Wis2Settings, location: str) -> str:
    """Where others read a file that lies below `output_path`."""
    below = location.removeprefix(within(wis2.output_path)).lstrip("/")
    return f"{wis2.url.rstrip('/')}/{quote(below)}"
