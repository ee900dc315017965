"""How long files that were given away are kept: an archive that rolls, of which nobody is told what leaves it.

Belongs here: which files go. Does not belong here: those that another revision replaces (telling.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ionbeam_dagster.config.wis2 import Wis2Settings
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import within
from ionbeam_dagster.wis2.places import MESSAGE, RECORD


def remove_old(platform: Platform, wis2: Wis2Settings, now: datetime) -> int:
    """Remove the files, and their messages, that were given away longer ago than `keep_for`; says how many went.

    Records stay, and so does what is still to be told.
    """
    if wis2.keep_for is None:
        return 0
    untold = {notice.place.removesuffix(MESSAGE) for notice in platform.ledger.notices.open()}
    gone = 0
    for folder in _days_before(platform, wis2, now - wis2.keep_for):
        for location, found in platform.files.listed(folder).items():
            if found.modified <= now - wis2.keep_for and location.removesuffix(MESSAGE) not in untold:
                platform.files.delete(location)
                gone += 1
    return gone


def _days_before(platform: Platform, wis2: Wis2Settings, moment: datetime) -> Iterator[str]:
    """The folders of the days before `moment`: no file in others is older."""
    for dataset in wis2.datasets:
        root = within(wis2.output_path, dataset)
        for format in platform.files.folders(root):
            if format != RECORD:
                days = platform.files.folders(within(root, format))
                yield from (within(root, format, day) for day in days if day < f"{moment:%Y%m%d}")
