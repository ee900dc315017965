"""The source `netatmo_mqtt`: Netatmo's observations as they are published, by way of the journal of `ionbeam mqtt`.

Belongs here: how the journal becomes windows, and the process that fills it. Does not belong here: the connection
(subscriber.py) and the files (journal.py).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Self

import polars as pl
import pyarrow as pa
from pydantic import Field, SecretStr, model_validator

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources import Source, SourceError
from ionbeam_dagster.sources.netatmo.features import batches_of, wide
from ionbeam_dagster.sources.netatmo.journal import Journal, Writer, stretches
from ionbeam_dagster.sources.netatmo.parameters import EsohConfig
from ionbeam_dagster.sources.netatmo.subscriber import Broker, Subscriber

READ_AT_ONCE = timedelta(minutes=10)
NOTED_LATE = timedelta(minutes=1)  # how old the last note may be that the process listens


class NetatmoMqttConfig(EsohConfig):
    """Where the broker is, and how long the journal is kept. `client_id` names the session that the broker keeps for
    us: two processes must not share one, and a new one begins without what was published before."""

    host: str = "observations.meteogate.eu"
    port: int = Field(default=8883, gt=0, lt=65536)
    tls: bool = True
    ca_file: Path | None = None
    username: str = ""
    password: SecretStr = SecretStr("")
    client_id: str = Field(default="ionbeam", min_length=1)
    topics: tuple[str, ...] = ("raw-obs/+/netatmo/#", "qc-obs/+/netatmo/#")
    retention: timedelta = Field(default=timedelta(days=7), gt=timedelta(hours=1))

    @model_validator(mode="after")
    def _password_is_not_sent_in_the_clear(self) -> Self:
        if self.username and not self.tls and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("tls is off, so the password would be sent in the clear; set `tls: true`, port 8883")
        return self


class NetatmoMqtt(Source):
    """What `ionbeam mqtt` has journaled. A message that comes late makes the window of its observation due again."""

    Config = NetatmoMqttConfig
    default_window = timedelta(minutes=10)
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: NetatmoMqttConfig) -> None:
        super().__init__(name, config)
        self._config = config

    @cached_property
    def journal(self) -> Journal:
        return Journal(self._config.data_path / f"{self.name}.journal")

    @property
    def metadata(self) -> IngestionMetadata:
        return self._config.metadata(self.name, self.default_span, flagged=True)

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
            yield from batches_of(wide(self.journal.rows(part), self._config))
            start = part.end

    def signature(self, window: Window) -> str:
        """A hash of the names of the files that hold rows of `window`: they are named by what is in them."""
        self._sorted()
        names = [file.path.name for file in self.journal.hour_files(window)]
        return hashlib.sha256("\n".join([*self._config.parameters, *names]).encode()).hexdigest()

    def changes(self, cursor: str | None) -> tuple[list[Window], str]:
        """The ranges of what was journaled since `cursor` was given out, and a new cursor."""
        self._sorted()
        files = {f"{file.path.parent.name}/{file.path.name}": file for file in self.journal.all_hour_files()}
        known = set(json.loads(cursor)) if cursor else set()
        return stretches(file for name, file in files.items() if name not in known), json.dumps(sorted(files))

    def problems(self) -> list[str]:
        """A line for each file of messages that could not be read."""
        return [f"{path}: {_reasons(path)}" for path in self.journal.refused()]

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
            config.host, config.port, config.client_id, config.topics, config.username, config.password, config.tls,
            str(config.ca_file) if config.ca_file else None,
        )  # fmt: skip
        try:
            writer = Writer(self.journal)
        except BlockingIOError as error:
            raise SourceError(f"{self.journal.root}: another process fills this journal; stop it first") from error
        return Subscriber(broker, writer, self._tidied)

    def _tidied(self) -> None:
        threading.Thread(target=self._sort_and_forget, daemon=True).start()

    def _sort_and_forget(self) -> None:
        self.journal.sort()
        self.journal.forget(datetime.now(UTC) - self._config.retention)

    def _sorted(self) -> None:
        try:
            self.journal.sort()
        except OSError as error:
            raise SourceError(f"{self.journal.root}: the journal cannot be sorted ({error}); make room") from error


def _reasons(path: Path) -> str:
    counted = pl.read_parquet(path, columns=["reason"]).group_by("reason").len().sort("reason")
    return "; ".join(f"{number} messages: {reason}" for reason, number in counted.iter_rows())
