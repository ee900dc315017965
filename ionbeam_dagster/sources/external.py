"""Sources that the platform does not fetch: clients outside send their observations over the broker.

Belongs here: the place of such a source in the configuration (``kind: external``). Does not belong here: how messages
are taken in (doors/amqp). What the columns mean comes with each message.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from ionbeam_client.models import DatasetMetadata, IngestionMetadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig


class ExternalConfig(SourceConfig):
    """The block of an external source: what every source has, and who may send it."""

    kind: Literal["external"] = Field(default="external", description="Clients send it.")
    senders: list[str] | None = Field(
        default=None,
        description="Users of the broker who may send it; without it every user of the broker (docs/security.md).",
        examples=[["oslo_loggers"]],
    )


class External(Source):
    """A source that is sent by a client. Its windows and its dataset's are a day long unless the YAML says otherwise:
    that is what a client's metadata say when they say nothing."""

    Config: ClassVar[type[SourceConfig]] = ExternalConfig
    default_window: ClassVar[timedelta] = timedelta(days=1)
    default_span: ClassVar[timedelta] = DatasetMetadata.model_fields["aggregation_span"].default

    @property
    def metadata(self) -> IngestionMetadata:
        raise SourceError(f"{self.name}: is sent by a client; how to read it comes with each message")

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        raise SourceError(
            f"{self.name} {window}: is sent by a client and cannot be fetched; {self.name}/request asks it"
        )
