"""Files of the parts of commands: each waits for the others of its command.

A file says in its footer which part it is, so that the ledger's record of it can be made again. Belongs here: these
files. Does not belong here: what is known of them (ledger/parts.py), or when they are joined (doors/amqp/intake.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.files import Files
from ionbeam_dagster.stores.ledger.parts import Part
from ionbeam_dagster.stores.raw import RawFile, RawStore


class PartStore:
    """The part files of a platform, under its state folder, which all of its machines share."""

    def __init__(self, files: Files, state: Path) -> None:
        self.folder = state / "bus" / "parts"
        self._raws = RawStore(files, str(self.folder))

    def write(
        self,
        part: Part,
        collected: Window,
        metadata: IngestionMetadata,
        batches: Iterable[pa.RecordBatch],
        replaces: bool,
        sender: str,
    ) -> Part:
        """Write the rows of a part, whose `path` follows from it; returns it with that."""
        written = self._raws.write_sent(
            part.source, f"{part.id}_{part.part}", collected, metadata, batches, replaces, sender,
            id=part.id, part=part.part, parts=part.parts, common=part.common,
        )  # fmt: skip
        return replace(part, path=written.path)

    def open(self, path: str) -> RawFile:
        """The rows of a part, and what was said with them; raises OSError when its file is gone."""
        return self._raws.open(path)

    def files(self, source: str) -> list[str]:
        """Every part file of a source that is there."""
        return self._raws.files(source)

    def part(self, source: str, path: str) -> Part:
        """Which part a file has; raises LookupError when an earlier version wrote it, which did not say so there."""
        notes = self.open(path).notes
        if not notes:
            raise LookupError("an earlier version wrote it, and its record is lost; its client has to send it again")
        return Part(notes["id"], notes["part"], notes["parts"], notes["common"], source, path)

    def adopt(self, part: Part) -> Part:
        """Have a part's file say which part it is; raises OSError when it is gone."""
        file = self.open(part.path)
        if file.notes:
            return part
        batches = list(file.batches())  # the file is written in its own place
        return self.write(part, file.collected, file.metadata, batches, file.replaces, file.sender)
