"""Which files of windows and of analysis cycles are to be exported.

Belongs here: whether an export is there, whole, and of the latest revision. Does not belong here: any format
(exporters), or the exporting (pipeline/export.py, pipeline/cycles.py).
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from ionbeam_dagster.domain.decisions import Sealed
from ionbeam_dagster.domain.records import BuiltRevision
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.agenda.building import assess
from ionbeam_dagster.pipeline.agenda.work import Work
from ionbeam_dagster.pipeline.build import as_found, is_whole
from ionbeam_dagster.pipeline.cycles import holds_what_is_there, outlook_of
from ionbeam_dagster.pipeline.export import is_of_another_exporter, made_by, shows_otherwise
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.shown import from_when
from ionbeam_dagster.pipeline.soundness import is_sound


def export_is_current(platform: Platform, dataset: str, format: str, window: Window) -> bool:
    """Whether the window's export was made from its latest revision and is still there, whole."""
    latest = platform.ledger.latest_revision(dataset, window)
    made = platform.ledger.export(dataset, window, format)
    if latest is None or made is None or made.number != latest.revision.number:
        return False
    if shows_otherwise(platform, made):
        return False
    if made.path is None:
        return True
    found = platform.files.found(made.path)
    return found is not None and found.size == (made.facts.bytes or found.size)


def to_export(
    platform: Platform, of: str, window: Window, renew: bool = False, is_damaged: bool = False
) -> Work | None:
    """The export of a window's latest revision, if it is not there as it should be; with `renew`, or is outdated.

    `is_damaged` says that its content is no longer what was written, which its size does not tell.
    Of a revision that is lost, or may not be exported, there is none: another one is to be built first.
    """
    dataset, _, format = of.partition("/")
    latest = platform.ledger.latest_revision(dataset, window)
    current = not is_damaged and export_is_current(platform, dataset, format, window)
    if latest is None or (current and not (renew and is_of_another_exporter(platform, dataset, format, window))):
        return None
    begins = from_when(platform.dataset(dataset), format, window)
    if begins is not None and platform.now() < begins:
        return None
    found = as_found(platform, latest)
    if found is None or not _may_be_exported(platform, latest.path):
        return None
    if not found.intact and not stays(platform, latest):
        return None
    made = platform.ledger.export(dataset, window, format)
    if current:
        reason = "an older exporter made it"
    elif made is not None and shows_otherwise(platform, made):
        reason = "others are to see more of it, or less (privacy)"
    elif made is not None and made.number == latest.revision.number:
        reason = "its file is lost or damaged"
    else:
        reason = f"revision {latest.revision.number} is not exported"
    token = f"r{latest.revision.number} {made_by(platform, platform.dataset(dataset), format)}"
    return Work("export", of, window, token, reason)


def stays(platform: Platform, latest: BuiltRevision) -> bool:
    """Whether a revision is whole, and the last of its window, although something that it was made of is gone."""
    revision = latest.revision
    decision = assess(platform, platform.dataset(revision.dataset), revision.window, platform.now())
    return isinstance(decision, Sealed) and is_whole(platform, latest)


def is_broken(platform: Platform, dataset: str, window: Window) -> bool:
    """Whether the latest revision of a window is there, and may not be exported."""
    latest = platform.ledger.latest_revision(dataset, window)
    return latest is not None and platform.files.exists(latest.path) and not _may_be_exported(platform, latest.path)


def _may_be_exported(platform: Platform, path: str) -> bool:
    """Whether a dataset file is sound. One that cannot be read is for its export, which sets it aside, so that it is
    built again at once, or says that it may not read it."""
    try:
        with platform.files.parquet(path) as file:
            return is_sound(file)
    except (pa.ArrowInvalid, PermissionError):
        return True
    except FileNotFoundError:
        return False


def to_export_cycle(
    platform: Platform, of: str, cycle: Window, now: datetime, renew: bool = False, is_damaged: bool = False
) -> Work | None:
    """The file of an analysis cycle, if it is to be made, or made again; not of a window that is not sound.

    `is_damaged` says that its content is no longer what was written, which its size does not tell.
    """
    dataset, _, format = of.partition("/")
    exporter = platform.config.cycle_exporters[format]
    settings = platform.dataset(dataset)
    outlook = outlook_of(platform, settings, exporter, cycle, now, is_damaged)
    begins = from_when(settings, format, cycle)
    if begins is not None and now < begins:
        return None
    made = platform.ledger.export(dataset, cycle, format)
    outdated = (made is not None and shows_otherwise(platform, made)) or (
        renew and is_of_another_exporter(platform, dataset, format, cycle)
    )
    outdated = outdated and holds_what_is_there(platform, dataset, outlook)
    if not (outlook.due or outdated) or any(is_broken(platform, dataset, window) for window in outlook.holds):
        return None
    token = " ".join(f"{held.key}r{number}" for held, number in sorted(outlook.holds.items()))
    return Work("export_cycle", of, cycle, token, outlook.reason)
