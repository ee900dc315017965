"""What the platform tells: which ingestions are stored, which revisions are ready, and again on request.

Belongs here: the events that follow from the ledger, with their rows as messages. An event has the same id however
often and for whomever it is made. Does not belong here: the broker (bridge.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from uuid import UUID, uuid5

import pyarrow.parquet as pq

from ionbeam_client import wire
from ionbeam_client.models import DataAvailableEvent, DataSetAvailableEvent, DatasetMetadata, ReplayDatasetsCommand
from ionbeam_client.transport import Outgoing
from ionbeam_dagster.domain.records import BuiltRevision, Claim
from ionbeam_dagster.doors.amqp.settings import BusSettings
from ionbeam_dagster.stores.files import name_of
from ionbeam_dagster.stores.ledger import Change, Ledger

log = logging.getLogger(__name__)

PART_LIMIT = 1_000_000
"""Compressed bytes of one message. Rows always travel in messages: not every client shares a folder with us."""

_EVENTS = UUID("0d0f6f0e-5a53-4a3f-9a0d-0c7f3f0f6b58")
_BATCH = 65_536
_FAR = datetime(9000, 1, 1, tzinfo=UTC)


class Outbox:
    """Makes messages of the ledger's records."""

    def __init__(self, settings: BusSettings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger

    def changes(self, after: int, limit: int) -> list[Change]:
        """What the ledger's feed has after number `after`."""
        return self._ledger.changes(after, limit)

    def announcements(self, change: Change) -> Iterator[tuple[str, Outgoing]]:
        """The messages of one change, each with the exchange that it goes to."""
        if change.claim is not None:
            yield wire.DATA_EXCHANGE, self._stored(change.claim)
        elif change.built is not None:
            for message in self.revision(change.built):
                yield wire.DATASET_EXCHANGE, message

    def revision(self, built: BuiltRevision) -> Iterator[Outgoing]:
        """The messages of one dataset revision: its rows in as many parts as they need."""
        revision = built.revision
        if revision.dataset not in self._settings.datasets:
            log.warning(
                "%s %s is not announced: it is no longer in the configuration", revision.dataset, revision.window
            )
            return
        if not self._settings.files.exists(built.path):
            log.warning("%s r%d is not announced: %s is gone", revision.dataset, revision.number, built.path)
            return
        event = DataSetAvailableEvent(
            id=uuid5(_EVENTS, f"{revision.dataset} {revision.window.label} r{revision.number} {revision.inputs}"),
            metadata=self._described(built),
            dataset_location=Path(name_of(built.path)),
            start_time=revision.window.start,
            end_time=revision.window.end,
            revision=revision.number,
            previous_revision=revision.number - 1 or None,
        )
        with (
            self._settings.files.fetched(built.path) as local,
            self._settings.shown(revision.dataset, local) as view,
            pq.ParquetFile(view.path, pre_buffer=False) as file,
        ):
            yield from _with_rows(event, file)

    def replayed(self, command: ReplayDatasetsCommand) -> list[BuiltRevision]:
        """The latest revision of every window that `command` asks for, in a lasting order."""
        wanted = command.datasets if command.datasets is not None else sorted(self._settings.datasets)
        return [
            built
            for dataset in wanted
            if dataset in self._settings.datasets
            for built in self._ledger.revisions(dataset, self._settings.first_start(dataset, command.start_time), _FAR)
        ]

    def _stored(self, claim: Claim) -> Outgoing:
        event = DataAvailableEvent(
            id=UUID(claim.id),
            metadata=self._ledger.metadata_of([claim])[0],
            start_time=claim.collected.start,
            end_time=claim.collected.end,
        )
        return Outgoing(str(event.id), event.model_dump_json().encode())

    def _described(self, built: BuiltRevision) -> DatasetMetadata:
        """What the configuration says of a dataset, and in what those who sent it last described it."""
        configured = self._settings.datasets[built.revision.dataset]
        claims = self._ledger.claims(built.revision.dataset, built.revision.window)
        if not claims:
            return configured
        said = self._ledger.metadata_of(claims)[-1].dataset
        return said.model_copy(update=configured.model_dump(include={*configured.model_fields_set}))


def _with_rows(event: DataSetAvailableEvent, file: pq.ParquetFile) -> Iterator[Outgoing]:
    """A message for each part; how many there will be is known only once all are cut, so that they wait on disk."""
    with TemporaryFile() as spool:
        schema = file.schema_arrow.remove_metadata()
        batches = (batch.replace_schema_metadata(None) for batch in file.iter_batches(batch_size=_BATCH))
        sizes = [spool.write(part) for part, _ in wire.part_bodies(schema, batches, PART_LIMIT)]
        spool.seek(0)
        for part, size in enumerate(sizes, 1):
            said = event.model_copy(update={"part": part, "parts": len(sizes)})
            body = wire.sealed(wire.head(said, schema), spool.read(size))
            yield Outgoing(wire.message_id(said), body, wire.ARROW)
