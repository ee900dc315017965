"""Taking commands in: validate, make durable, remember; only then may the message be acknowledged.

Belongs here: what happens to the bodies of messages, in this order: raw files, then the ledger. A crash between the two
is put right when the message is delivered again. Does not belong here: the broker (bridge.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial

import pyarrow as pa

from ionbeam_client import arrow, cf, wire
from ionbeam_client.errors import DataError, MessageError, PayloadError
from ionbeam_client.models import (
    IngestDataCommand,
    IngestionMetadata,
    ReplayDatasetsCommand,
    StartSourceCommand,
    format_duration,
)
from ionbeam_client.payloads import PayloadStore
from ionbeam_dagster.domain.canonical import schema_refusal
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.settings import BusSettings
from ionbeam_dagster.doors.intake import Feed, OutOfRange
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.stores.ledger import Ledger
from ionbeam_dagster.stores.ledger.commands import Taken
from ionbeam_dagster.stores.ledger.parts import Part
from ionbeam_dagster.stores.parts import PartStore

log = logging.getLogger(__name__)

PAYLOAD_ROWS = 100_000_000
PAYLOAD_BYTES = 20_000_000_000
"""Bounds of a payload, which is read in batches and never whole."""

_WRITERS = 8  # threads that wait for the disk at the same time
_THEIRS = (MessageError, PayloadError, DataError, OutOfRange)
_OURS = (OSError, StoreError)

_COMMON = {"metadata", "source_name", "replaces", "start_time", "end_time", "parts"}

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A command that was found good, as far as can be told without reading its rows."""

    command: IngestDataCommand
    feed: Feed
    sender: str
    rows: bytes | None
    windows: list[Window]

    @property
    def id(self) -> str:
        return str(self.command.id)

    @property
    def key(self) -> Key:
        return self.id, self.command.part

    @property
    def collected(self) -> Window:
        return Window(self.command.start_time, self.command.end_time)

    @property
    def payload(self) -> str | None:
        location = self.command.payload_location
        return None if self.rows is not None or location is None else str(location)

    @property
    def part(self) -> Part:
        """Which part it is, before it has a file; `common` stands for what all parts of one command must say alike."""
        common = hashlib.sha256(self.command.model_dump_json(include=_COMMON).encode()).hexdigest()
        return Part(self.id, self.command.part, self.command.parts, common, self.feed.source, "")


@dataclass(frozen=True, slots=True)
class _Written:
    """A message whose rows are durable: as a raw partition, or as a part that waits for others."""

    accepted: _Accepted
    file: RawPartition | Part


class Intake:
    """Takes the bodies of messages in. What it says of each is None (taken) or why it belongs into the dead queue.

    Methods raise OSError or StoreError when this machine could not do its part: nothing is known of the messages then,
    and they have to be delivered again.
    """

    def __init__(self, settings: BusSettings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self.payloads = PayloadStore(settings.payloads, settings.files.object_store(str(settings.payloads)))
        self.parts = PartStore(settings.files, settings.state)
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="ionbeam-intake")
        self.payloads.mark()

    def ingestions(self, bodies: Sequence[bytes], senders: Sequence[str] = ()) -> list[str | None]:
        """Take IngestDataCommands in, in the order in which they arrived; says of each what became of it.

        `senders` are the users of the broker who sent them, where that is known.
        """
        self._ledger.recovered()  # a ledger that is new looks for raw files before ours are among them
        now, first_of = datetime.now(UTC), cache(self._ledger.metadata_of_version)
        reasons: dict[int, str] = {}
        accepted: dict[Key, _Accepted] = {}
        keys: dict[int, Key] = {}
        for place, body in enumerate(bodies):
            try:
                found = self._accept(body, senders[place] if senders else "", now, first_of)
            except _OURS:
                raise
            except Exception as error:
                reasons[place] = _reason(error)
                continue
            keys[place] = found.key
            if self._ledger.commands.knows(*found.key):
                self._ledger.commands.note_again(found.id, now)
            else:
                accepted.setdefault(found.key, found)
        outcomes = dict(zip(accepted, self._writers.map(self._write, accepted.values()), strict=True))
        written = [one for one in outcomes.values() if isinstance(one, _Written)]
        failed = {key: one for key, one in outcomes.items() if isinstance(one, str)}
        failed |= self._keep(written)
        return [reasons.get(place) or failed.get(keys[place]) for place in range(len(bodies))]

    def start_commands(self, source: str, bodies: Iterable[bytes]) -> list[str | None]:
        """Take in StartSourceCommands that came on the queue of `source`, one of the platform's own."""
        return [self._judged(partial(self._take_start, source, body)) for body in bodies]

    def replays(self, bodies: Iterable[bytes]) -> list[str | None]:
        """Take in ReplayDatasetsCommands."""
        return [self._judged(partial(self._take_replay, body)) for body in bodies]

    # -- ingestions ----------------------------------------------------------------------------------------------

    def _accept(
        self, body: bytes, sender: str, now: datetime, first_of: Callable[[str, int], IngestionMetadata | None]
    ) -> _Accepted:
        decoded = wire.decode(IngestDataCommand, body)
        command = decoded.message
        feed = self._feed_of(command)
        if feed.senders is not None and sender not in feed.senders:
            self._ledger.refusals.note_stranger(feed.source, sender, now)
            raise MessageError(
                f"user {sender!r} may not send {feed.source} (sources.{feed.source}.senders in {self._settings.config})"
                if sender
                else f"it does not say who sent it, which {feed.source} asks for; a newer ionbeam-client does"
            )
        if faults := cf.faults(command.metadata.model_dump_json()):
            raise MessageError(faults)
        first = first_of(feed.source, command.metadata.version)
        if refusal := first and schema_refusal(first, command.metadata):
            raise MessageError(f"{feed.source}: {refusal}")
        windows = feed.range.windows(command.start_time, command.end_time, now)
        if decoded.rows is not None:
            wire.check_columns(wire.schema_of(decoded.rows), command.metadata)
        elif command.payload_location is None:
            raise MessageError(
                "it has neither rows nor a payload_location; what was empty is told by a stream without batches"
            )
        else:
            self.payloads.path_of(command.payload_location)
        return _Accepted(command, feed, sender, decoded.rows, windows)

    def _feed_of(self, command: IngestDataCommand) -> Feed:
        """The source that sent a command: the only one of its dataset, else the one that it names, else the one that
        has the dataset's name."""
        metadata, config = command.metadata, self._settings.config
        name = metadata.dataset.name
        feeds = {feed.source: feed for feed in self._settings.feeds.values() if feed.dataset.name == name}
        feed = next(iter(feeds.values())) if len(feeds) == 1 else feeds.get(command.source_name or name)
        if feeds and feed is None:
            said = f"source_name {command.source_name!r}" if command.source_name else "no source_name"
            raise MessageError(
                f"dataset {name!r} is fed by {', '.join(sorted(feeds))}, and the message says {said}; give ingest() "
                "the source_name of one of them"
            )
        span = format_duration(metadata.dataset.aggregation_span)
        if feed is None and name in self._settings.datasets:
            raise MessageError(
                f"dataset {name!r} is collected by the platform itself; to send to it, add a source with "
                f"'kind: external' and 'dataset: {name}' to {config}, or give the message another dataset"
            )
        if feed is None:
            raise MessageError(
                f"no source of {config} feeds dataset {name!r}; `ionbeam source accept {name}` adds "
                f"'sources: {{{name}: {{kind: external, aggregation_span: {span}}}}}' to it"
            )
        configured = feed.dataset.aggregation_span
        if metadata.dataset.aggregation_span != configured:
            raise MessageError(
                f"dataset {name!r}: the message says aggregation_span {span}, but sources.{feed.source}."
                f"aggregation_span in {config} is {format_duration(configured)}; let both say the same, then requeue"
            )
        return feed

    def _write(self, accepted: _Accepted) -> _Written | str:
        """Make a message's rows durable; says what is wrong with them if that cannot be done because of them."""
        command, raws = accepted.command, accepted.feed.raws
        rows = accepted.feed.left(self._batches(accepted))
        given = accepted.collected, command.metadata, rows, command.replaces, accepted.sender
        try:
            if command.parts > 1:
                return _Written(accepted, self.parts.write(accepted.part, *given))
            return _Written(accepted, raws.write_sent(accepted.feed.source, accepted.id, *given))
        except _OURS:
            raise
        except Exception as error:
            return _reason(error)

    def _batches(self, accepted: _Accepted) -> Iterator[pa.RecordBatch]:
        if accepted.rows is not None:
            return wire.batches(accepted.rows)
        return self._payload_batches(accepted.command)

    def _payload_batches(self, command: IngestDataCommand) -> Iterator[pa.RecordBatch]:
        """The rows of a Parquet payload in the declared columns and types, which older clients leave to us."""
        assert command.payload_location is not None
        declared = wire.declared_schema(command.metadata)
        found = self.payloads.schema(command.payload_location)
        yield arrow.coerce(pa.RecordBatch.from_pylist([], schema=found), declared)
        for batch in self.payloads.batches(command.payload_location, max_rows=PAYLOAD_ROWS, max_bytes=PAYLOAD_BYTES):
            yield arrow.coerce(batch, declared)

    def _keep(self, written: Sequence[_Written]) -> dict[Key, str]:
        """Remember what is durable, in order; returns the parts that do not fit to the others of their command, or
        found one of these lost."""
        failed: dict[Key, str] = {}
        self._ledger.parts.add([one.file for one in written if isinstance(one.file, Part)])
        whole: dict[str, tuple[_Accepted, RawPartition]] = {}
        finished: list[Part] = []
        for one in written:
            if isinstance(one.file, RawPartition):
                whole[one.accepted.id] = one.accepted, one.file
                continue
            parts = self._ledger.parts.of(one.accepted.id)
            if len({part.common for part in parts}) > 1:
                self._ledger.parts.forget(one.accepted.id, one.accepted.command.part)
                failed[one.accepted.key] = "it says other things (metadata, range or number of parts) than other parts"
            elif len(parts) == one.accepted.command.parts and one.accepted.id not in whole:
                try:
                    whole[one.accepted.id] = one.accepted, self._join(one.accepted, parts)
                except (OSError, pa.ArrowException):
                    if not (lost := self._lost(parts)):
                        raise
                    failed[one.accepted.key] = self._without(one.accepted, lost)
                else:
                    finished += parts
        durable = [Taken(raw, accepted.windows, accepted.payload) for accepted, raw in whole.values()]
        self._ledger.commands.take(durable, datetime.now(UTC))
        for accepted, _ in whole.values():
            self._tell_of_what_is_too_early(accepted)
        for part in finished:
            self._settings.files.delete(part.path)
        return failed

    def _tell_of_what_is_too_early(self, accepted: _Accepted) -> None:
        feed, start = accepted.feed.range, accepted.command.start_time
        if start < feed.start:
            log.warning(
                "%s: ingestion %s says a range from %s on; what is before the source's start (%s) does not count",
                feed.source, accepted.id, f"{start:%Y-%m-%dT%H:%MZ}", f"{feed.start:%Y-%m-%dT%H:%MZ}",
            )  # fmt: skip
            self._ledger.refusals.note_too_early(feed.source, start, datetime.now(UTC))

    def _join(self, accepted: _Accepted, parts: Sequence[Part]) -> RawPartition:
        """One raw file of all parts, in their order; only together do they collect the range."""
        batches = (batch for part in parts for batch in self.parts.open(part.path).batches())
        return accepted.feed.raws.write_sent(
            accepted.feed.source, accepted.id, accepted.collected, accepted.command.metadata, batches,
            accepted.command.replaces, accepted.sender,
        )  # fmt: skip

    def _lost(self, parts: Sequence[Part]) -> dict[int, Exception]:
        """The parts whose files are gone or damaged, with what is wrong with each."""
        lost: dict[int, Exception] = {}
        for part in parts:
            try:
                for _ in self.parts.open(part.path).batches():
                    pass
            except (FileNotFoundError, pa.ArrowException) as error:
                lost[part.part] = error
            except OSError as error:
                if error.errno is not None:  # the disk's; of a damaged page Arrow raises one without
                    raise
                lost[part.part] = error
        return lost

    def _without(self, accepted: _Accepted, lost: Mapping[int, Exception]) -> str:
        """Forget lost parts, and the one that came, so that they are taken when sent again; says which are lost."""
        for part in (accepted.command.part, *lost):
            self._ledger.parts.forget(accepted.id, part)
        told = ", ".join(f"part {part} of it is lost ({error})" for part, error in lost.items())
        return f"{told}; send the command again"

    # -- the other commands --------------------------------------------------------------------------------------

    def _judged(self, take: Callable[[], None]) -> str | None:
        try:
            take()
        except _OURS:
            raise
        except Exception as error:
            return _reason(error)
        return None

    def _take_start(self, source: str, body: bytes) -> None:
        command = wire.decode(StartSourceCommand, body).message
        if command.source_name != source:
            raise MessageError(
                f"it asks for source {command.source_name!r} on the queue of {source!r}; send it to "
                f"{wire.source_queue(command.source_name).name}"
            )
        self._settings.pulled[source].windows(command.start_time, command.end_time, datetime.now(UTC))
        range = Window(command.start_time, command.end_time)
        self._ledger.requests.add(str(command.id), source, range, command.use_cache, datetime.now(UTC))

    def _take_replay(self, body: bytes) -> None:
        command = wire.decode(ReplayDatasetsCommand, body).message
        if not command.exporter_name.isprintable() or not 0 < len(command.exporter_name) <= 100:
            raise MessageError("exporter_name must have 1 to 100 printable characters")
        self._ledger.announcements.add_replay(str(command.id), command.model_dump_json(), datetime.now(UTC))


def _reason(error: Exception) -> str:
    if isinstance(error, _THEIRS):
        return str(error)
    log.error("a message could not be taken in, for no reason that is known", exc_info=error)
    return f"{type(error).__name__}: {error}"
