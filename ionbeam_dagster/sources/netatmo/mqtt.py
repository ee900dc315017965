"""The source `netatmo_mqtt`: Netatmo's observations as they are published, by way of the journal of `ionbeam mqtt`.

Belongs here: how the journal becomes windows, and the process that fills it. Does not belong here: the connection
(subscriber.py) and the files (journal.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self

import polars as pl
import pyarrow as pa
from pydantic import Field, SecretStr, model_validator

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import IonbeamError, SourceError
from ionbeam_dagster.sources import Source
from ionbeam_dagster.sources.netatmo.features import batches_of, wide
from ionbeam_dagster.sources.netatmo.journal import Journal, Writer, stretches
from ionbeam_dagster.sources.netatmo.parameters import EsohConfig, metadata
from ionbeam_dagster.sources.netatmo.subscriber import Broker, Subscriber
from ionbeam_dagster.tls import TlsSettings

READ_AT_ONCE = timedelta(minutes=10)
OVERLAP = 600 * 10**9  # nanoseconds for which files are known by name: no rename takes so long
_LOG = logging.getLogger(__name__)
_SORTED_LATE = timedelta(minutes=10)  # how old what waits to be sorted may be
NOTED_LATE = timedelta(minutes=1)  # how old the last note may be that the process listens


class NetatmoMqttConfig(EsohConfig, TlsSettings):
    """Netatmo's observations as they are published over MQTT, by the journal of `ionbeam mqtt`."""

    host: str = Field(default="observations.meteogate.eu", description="Name of the broker.")
    port: int = Field(default=8883, gt=0, lt=65536, description="Port of the broker.")
    tls: bool = Field(default=True, description="Whether the connection is encrypted.")
    username: str = Field(default="", description="Name of the account.", examples=["somebody"])
    password: SecretStr = Field(default=SecretStr(""), description="The account's password.", examples=["${PASSWORD}"])
    client_id: str = Field(
        default="ionbeam",
        min_length=1,
        description="Name of the session that the broker keeps for us: two processes must not share one, and a new one "
        "begins without what was published before.",
    )
    topics: tuple[str, ...] = Field(
        default=("raw-obs/+/netatmo/#", "qc-obs/+/netatmo/#"), description="Topics that are subscribed to."
    )
    retention: timedelta = Field(
        default=timedelta(days=7), gt=timedelta(hours=1), description="How long the journal keeps messages."
    )

    @model_validator(mode="after")
    def _password_is_not_sent_in_the_clear(self) -> Self:
        if self.username and not self.tls and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("tls is off, so the password would be sent in the clear; set `tls: true`, port 8883")
        return self


@dataclass(frozen=True, slots=True)
class _Cursor:
    """What `changes` has told: all files written before `written` (less OVERLAP) and those of `names`, and until when
    we listened."""

    written: int = 0
    names: Sequence[str] = ()
    until: str | None = None


class NetatmoMqtt(Source):
    """What `ionbeam mqtt` has journaled. A message that comes late makes the window of its observation due again."""

    Config = NetatmoMqttConfig
    network = "netatmo"
    default_window = timedelta(minutes=10)
    default_span = timedelta(hours=1)
    tells_changes = True
    subscribes = True

    def __init__(self, name: str, config: NetatmoMqttConfig) -> None:
        super().__init__(name, config)
        self._config = config

    @cached_property
    def journal(self) -> Journal:
        return Journal(self._config.cache_path / f"{self.name}.journal", self.forgotten)

    @property
    def metadata(self) -> IngestionMetadata:
        return metadata(self, self._config, flagged=True)

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """Wide rows of the messages on `window`, by station and time within ten minutes each.

        Raises SourceError for a window whose messages the journal no longer keeps, and for one of which it has nothing
        although it may have missed something: a window is empty only when we listened all the time.
        """
        if window.end <= datetime.now(UTC) - self._config.retention:
            raise SourceError(
                f"{self.name} {window}: the journal keeps messages for {self._config.retention} only; take older "
                "observations from the archive (netatmo_archive), or raise `retention` before they are forgotten"
            )
        self._sorted()
        if not self.journal.hour_files(window):
            self._require_listening(window)
        start = window.start
        while start < window.end:
            part = Window(start, min(start + READ_AT_ONCE, window.end))
            try:
                rows = self.journal.rows(part)
            except pl.exceptions.PolarsError as error:
                raise SourceError(f"{self.journal.root}: the journal of {part} is damaged ({error})") from error
            yield from batches_of(wide(rows, self._config))
            start = part.end

    def signature(self, window: Window) -> str:
        """A hash of the names of the files that hold rows of `window`: they are named by what is in them."""
        self._sorted()
        names = [file.path.name for file in self.journal.hour_files(window)]
        return hashlib.sha256("\n".join([*self._config.parameters, *names]).encode()).hexdigest()

    def changes(self, cursor: str | None) -> tuple[list[Window], str]:
        """The ranges of what was journaled since `cursor` was given out, and in which we listened; and a new cursor.

        So every window is asked for once when it has ended, even one without a message.
        """
        self._sorted()
        before = _Cursor(**json.loads(cursor)) if cursor else _Cursor()
        files = self.journal.published_since(before.written - OVERLAP)
        changed = stretches(file for file in files if file.path.name not in before.names)
        written = max([before.written, *files.values()])
        names = sorted(file.path.name for file, moment in files.items() if moment >= written - OVERLAP)
        until, heard = before.until, self.journal.listened()
        if heard is not None:
            since = max(heard.start, datetime.fromisoformat(until)) if until else heard.start
            changed += [Window(since, heard.end)] if since < heard.end else []
            until = heard.end.isoformat()
        return changed, json.dumps(asdict(_Cursor(written, names, until)))

    def problems(self) -> list[str]:
        """How many messages could not be read, and why."""
        paths = self.journal.refused()
        if not paths:
            return []
        counted = pl.scan_parquet(paths, glob=False).group_by("reason").len().sort("reason").collect()
        return [f"{paths[0].parent}: {number} messages: {reason}" for reason, number in counted.iter_rows()]

    def standstill(self, now: datetime) -> list[tuple[str, str]]:
        """Whether `ionbeam mqtt` listens to the broker, and whether what it journaled is sorted."""
        found = []
        heard, patience = self.journal.listened(), 2 * NOTED_LATE
        if heard is None or heard.end < now - patience:
            since = f"since {heard.end:%Y-%m-%d %H:%M}" if heard else "never"
            remedy = f"start `ionbeam mqtt {self.name}`, or see in its log why the broker does not let it in"
            found.append((f"nobody listens to the broker {self._config.host}:{self._config.port} ({since})", remedy))
        if (oldest := self.journal.oldest_arrival()) is not None and oldest < now - _SORTED_LATE:
            words = f"what was journaled at {oldest:%Y-%m-%d %H:%M} is not sorted into its windows yet"
            found.append(
                (words, f"see in the log of `ionbeam mqtt` why; {self.journal.root} needs room and permission")
            )
        return found

    def _require_listening(self, window: Window) -> None:
        heard = self.journal.listened()
        if heard is None or heard.start > window.start or heard.end < min(window.end, datetime.now(UTC) - NOTED_LATE):
            when = f"only from {heard.start:%Y-%m-%dT%H:%MZ} to {heard.end:%Y-%m-%dT%H:%MZ}" if heard else "never yet"
            raise SourceError(
                f"{self.name} {window}: nothing was journaled, but `ionbeam mqtt` listened {when}; let it run. "
                "Take what was published before from the service (netatmo) or the archive (netatmo_archive)"
            )

    def subscriber(self) -> Subscriber:
        """What fills the journal: its `run` never ends. Raises SourceError when another process does it already."""
        config = self._config
        broker = Broker(
            config.host, config.port, config.client_id, config.topics, config.username, config.password,
            config if config.tls else None,
        )  # fmt: skip
        try:
            writer = Writer(self.journal)
        except BlockingIOError as error:
            raise SourceError(f"{self.journal.root}: another process fills this journal; stop it first") from error
        return Subscriber(broker, writer, self._tidied)

    def _tidied(self) -> None:
        threading.Thread(target=self._sort_and_forget, daemon=True).start()

    def _sort_and_forget(self) -> None:
        try:
            self.journal.sort()
            self.journal.forget(datetime.now(UTC) - self._config.retention)
        except (OSError, IonbeamError) as error:  # whoever reads a window sorts, too
            _LOG.warning("%s: cannot be sorted now: %s", self.journal.root, error)

    def _sorted(self) -> None:
        try:
            self.journal.sort()
        except OSError as error:
            raise SourceError(f"{self.journal.root}: the journal cannot be sorted ({error}); make room") from error
