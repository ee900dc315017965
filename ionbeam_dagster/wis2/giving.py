"""What is to be given away, and its files: each lies in its place, with its message beside it, before it is told.

Belongs here: which exports others were not told of, and the notices on them. Does not belong here: telling
(telling.py), records of datasets (describing.py), or the contents of messages (notification.py).

A notice follows from files: one that was made is found again, also after its process was killed and where the ledger
was lost, and has the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shutil import copyfile

import orjson
import polars as pl

from ionbeam_dagster.config.wis2 import Wis2Settings
from ionbeam_dagster.domain.records import ExportRecord, Json
from ionbeam_dagster.domain.windows import FOREVER, Window
from ionbeam_dagster.errors import ExportError, PipelineError
from ionbeam_dagster.pipeline.agenda import export_is_current
from ionbeam_dagster.pipeline.export import checked
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.shown import shown
from ionbeam_dagster.stores.files import Files
from ionbeam_dagster.stores.ledger.notices import Notice
from ionbeam_dagster.stores.publish import file_hash
from ionbeam_dagster.wis2.notification import (
    MOST_INLINE,
    Geometry,
    GivenFile,
    Relation,
    around,
    message_id,
    notification,
)
from ionbeam_dagster.wis2.places import MESSAGE, Place, address_of, data_id, place_of_window, revision_in
from ionbeam_dagster.wis2.record import metadata_id

AT_ONCE = 100
"""Windows that are looked at, and told of, together."""
_DIGITS = 5  # of degrees: a metre


@dataclass(frozen=True, slots=True)
class Due:
    """An export that others were not told of, and the notice on what they were told before, if there is one."""

    made: ExportRecord
    before: Notice | None


def settings_of(platform: Platform) -> Wis2Settings:
    """Raises PipelineError where the configuration gives nothing away."""
    if platform.config.sections.wis2 is None:
        raise PipelineError(f"{platform.config.path} has no section wis2; docs/wis2.md shows one")
    return platform.config.sections.wis2


def windows_given(platform: Platform, wis2: Wis2Settings, dataset: str, since: datetime) -> list[Window]:
    """The windows of a dataset that are given away and begin at `since` or later, in order."""
    start = max(wis2.datasets[dataset].start, since)
    built = platform.ledger.revisions(dataset, start, FOREVER)
    return [one.revision.window for one in built if one.revision.window.start >= start]


def due(platform: Platform, wis2: Wis2Settings, dataset: str, since: datetime) -> Iterator[list[Due]]:
    """The exports of windows that begin at `since` or later, and that others were not told of, some at a time."""
    formats = wis2.datasets[dataset].formats
    every = windows_given(platform, wis2, dataset, since)
    for first in range(0, len(every), AT_ONCE):
        windows = every[first : first + AT_ONCE]
        exports = {
            data_id(wis2, dataset, one.format, one.window): one
            for one in platform.ledger.exports(dataset, windows, formats)
        }
        notices = platform.ledger.notices.on(list(exports))
        found = [Due(made, notices.get(id)) for id, made in exports.items()]
        yield [one for one in found if not _is_told(one)]


def _is_told(one: Due) -> bool:
    """Whether others know of an export, or will by a notice that is open: each is told before the next is made."""
    made, before = one.made, one.before
    if before is not None and before.told is None:
        return True
    if made.path is None:
        return before is None or before.relation == "deletion"
    if before is None or before.relation == "deletion":
        return False
    return before.number == made.number and made.facts.hash in ("", before.hash)


class Giver:
    """Puts files where others read them, and makes the notices on them."""

    def __init__(self, platform: Platform, wis2: Wis2Settings) -> None:
        self._platform = platform
        self._wis2 = wis2

    def give(self, one: Due) -> Notice | None:
        """Make the notice on an export; None where there is nothing to tell of it yet.

        Raises IonbeamError or OSError; then nothing is told, and it is due as before.
        """
        made = one.made
        place = place_of_window(self._wis2, made.dataset, made.format, made.window, self._extension(made))
        before = one.before
        if before is None and (left := self._left_behind(made, place)) is not None:
            return left
        if made.path is None:
            return self._withdrawn(made, place, before)
        if not export_is_current(self._platform, made.dataset, made.format, made.window):
            return None
        return self._given(made, place, "canonical" if before is None or before.relation == "deletion" else "update")

    def _extension(self, made: ExportRecord) -> str:
        return self._platform.config.exporters[made.format].extension

    def _left_behind(self, made: ExportRecord, place: Place) -> Notice | None:
        """The notice on the newest message that is there, and of which the ledger does not know: its process was
        killed, or the ledger lost."""
        found = self._platform.files.under(place.folder)
        messages = [one for one in found if place.is_ours(one) and one.endswith(MESSAGE)]
        if not messages:
            return None
        return self._noted(made, max(messages, key=revision_in))

    def _noted(self, made: ExportRecord, message: str) -> Notice:
        told = read_json(self._platform.files, message)
        number, hash = revision_in(message)
        whole = made.facts.hash if made.number == number and made.facts.hash.startswith(hash) else hash
        notice = Notice(
            data_id(self._wis2, made.dataset, made.format, made.window), f"{made.dataset}/{made.format}", told["id"],
            number, whole, told["links"][0]["rel"], message, self._platform.now(),
        )  # fmt: skip
        self._platform.ledger.notices.keep(notice)
        return notice

    def _given(self, made: ExportRecord, place: Place, relation: Relation) -> Notice:
        files = self._platform.files
        geometry = self._geometry(made)
        assert made.path is not None
        with files.fetched(made.path) as export:
            hash = made.facts.hash or file_hash(export)
            target = place.file(made.number, hash)
            with files.published(target) as draft:
                copyfile(export, draft)
                if file_hash(draft) != hash:
                    raise ExportError(
                        f"{made.path}: is not what was exported; it was exported again meanwhile, or is damaged: "
                        f"`ionbeam rebuild {made.dataset} --force {made.window.as_options}` makes it again"
                    )
                content = Content.of(draft)
        file = GivenFile(
            data_id(self._wis2, made.dataset, made.format, made.window), address_of(self._wis2, target),
            self._platform.config.exporters[made.format].media_type, content.size, content.sha512,
            metadata_id(self._wis2.centre_id, made.dataset), (made.window.start, made.window.end), geometry,
        )  # fmt: skip
        message = notification(
            file, message_id(file.data_id, made.number, hash), relation, self._platform.now(), content.small
        )
        put(files, target + MESSAGE, message)
        return self._noted(made, target + MESSAGE)

    def _withdrawn(self, made: ExportRecord, place: Place, before: Notice | None) -> Notice | None:
        """The notice that a window has no row any longer; its files go first."""
        if before is None:
            return None
        files = self._platform.files
        remove_others(files, place)
        target = place.file(made.number, "")
        file = GivenFile(
            before.data_id, address_of(self._wis2, before.place.removesuffix(MESSAGE)),
            self._platform.config.exporters[made.format].media_type, 0, b"",
            metadata_id(self._wis2.centre_id, made.dataset), (made.window.start, made.window.end),
        )  # fmt: skip
        id = message_id(before.data_id, made.number, "withdrawn")
        put(files, target + MESSAGE, notification(file, id, "deletion", self._platform.now()))
        return self._noted(made, target + MESSAGE)

    def _geometry(self, made: ExportRecord) -> Geometry | None:
        """Where the rows of a window are, as others may see them."""
        platform = self._platform
        dataset = platform.dataset(made.dataset)
        latest = platform.ledger.latest_revision(made.dataset, made.window)
        if latest is None or latest.revision.number != made.number:
            raise PipelineError(f"{made.dataset} {made.window}: was built again meanwhile; its next export is told")
        with checked(platform, latest) as whole, shown(platform, dataset, made.format, whole) as view:
            lat, lon = pl.col("lat"), pl.col("lon")
            box = pl.scan_parquet(view.path, glob=False).select(
                west=lon.min(), south=lat.min(), east=lon.max(), north=lat.max()
            )
            ends = box.collect(engine="streaming").row(0)
        return None if None in ends else around(*(round(float(one), _DIGITS) for one in ends))


@dataclass(frozen=True, slots=True)
class Content:
    """Of a file its size in bytes, its hash, and all of it, where it may travel in a message."""

    size: int
    sha512: bytes
    small: bytes | None

    @classmethod
    def of(cls, path: Path) -> Content:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha512").digest()
        return cls(size, digest, path.read_bytes() if size <= MOST_INLINE else None)


def put(files: Files, location: str, content: bytes) -> None:
    """Write a small file, durably, or not at all."""
    with files.published(location) as draft:
        draft.write_bytes(content)


def read_bytes(files: Files, location: str) -> bytes:
    """A small file; raises FileNotFoundError."""
    with files.opened(location) as file:
        return bytes(file.read())


def read_json(files: Files, location: str) -> Json:
    """A message, or record, that was written; raises FileNotFoundError."""
    return dict(orjson.loads(read_bytes(files, location)))


def remove_others(files: Files, place: Place, but: str = "") -> None:
    """Remove the files of a window, and their messages, but for those of the file at `but`."""
    kept = {but, but + MESSAGE} if but else set()
    for location in files.under(place.folder):
        if place.is_ours(location) and location not in kept:
            files.delete(location)
