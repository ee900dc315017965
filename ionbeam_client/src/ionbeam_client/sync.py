"""The synchronous twin, for scripts and notebooks.

Belongs here: `SyncIonbeamClient` for a plain ``with``, and `ingest` in one call. Does not belong here: anything that
the async client does not do.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Collection, Coroutine
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from ionbeam_client.client import IonbeamClient, Receipt
from ionbeam_client.config import IonbeamClientConfig
from ionbeam_client.errors import IonbeamError
from ionbeam_client.handlers import CALLED_FOR, ExportHandler, TriggerHandler
from ionbeam_client.models import IngestionMetadata
from ionbeam_client.transport import Transport

R = TypeVar("R")


class SyncIonbeamClient:
    """`IonbeamClient` without ``await``; its async client runs in a thread."""

    def __init__(self, config: IonbeamClientConfig | None = None, *, transport: Transport | None = None) -> None:
        self._client = IonbeamClient(config, transport=transport)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ionbeam-client-loop", daemon=True)
        self._thread.start()
        try:
            self._do(self._client.__aenter__())
        except BaseException:
            self._end(self._loop)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        try:
            self._do(self._client.__aexit__(kind, error, trace))
        finally:
            self._end(self._loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()
        self._loop = None

    def ingest(
        self,
        batch_stream: Any,
        metadata: IngestionMetadata,
        start_time: datetime,
        end_time: datetime,
        source_name: str | None = None,
        replaces: bool = False,
    ) -> Receipt:
        """See `ionbeam_client.IonbeamClient.ingest`."""
        source_name = source_name or CALLED_FOR.get()  # of this thread, which is not the client's
        return self._do(self._client.ingest(batch_stream, metadata, start_time, end_time, source_name, replaces))

    def flush(self, timeout: float | None = None) -> bool:
        """See `ionbeam_client.IonbeamClient.flush`."""
        return self._do(self._client.flush(timeout))

    def wait_until_connected(self, timeout: float | None = None) -> bool:
        """See `ionbeam_client.IonbeamClient.wait_until_connected`."""
        return self._do(self._client.wait_until_connected(timeout))

    def register_trigger_handler(self, source_name: str, handler: TriggerHandler | None = None) -> Any:
        """See `ionbeam_client.IonbeamClient.register_trigger_handler`."""
        if handler is None:
            return self._client.register_trigger_handler(source_name)
        return self._client.register_trigger_handler(source_name, handler)

    def register_export_handler(
        self,
        exporter_name: str,
        handler: ExportHandler | None = None,
        dataset_filter: Collection[str] | None = None,
        batch_size: int | None = None,
        replay_from: datetime | None = None,
    ) -> Any:
        """See `ionbeam_client.IonbeamClient.register_export_handler`."""
        register: Callable[..., Any] = self._client.register_export_handler
        return register(exporter_name, handler, dataset_filter, batch_size, replay_from)

    def run_forever(self) -> None:
        """Serve the handlers until SIGTERM or SIGINT, then stop cleanly. Opens the client unless it is open."""
        if self._loop is None:
            with self:
                self.run_forever()
            return
        before = {one: signal.signal(one, lambda *_: self._stop.set()) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._stop.wait(1.0):  # a signal handler runs between two waits
                pass
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _do(self, work: Coroutine[Any, Any, R]) -> R:
        if self._loop is None:
            work.close()
            raise IonbeamError("the client is not open; use it in 'with client:'")
        if not self._thread.is_alive():  # a forked process has the object, and no thread
            work.close()
            raise IonbeamError(
                "this client was opened by another process; a forked process opens one of its own, "
                "with another state_path"
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def ingest(
    batch_stream: Any,
    metadata: IngestionMetadata,
    start_time: datetime,
    end_time: datetime,
    config: IonbeamClientConfig | None = None,
    source_name: str | None = None,
    replaces: bool = False,
) -> Receipt:
    """Open a client, ingest once and close it; see `ionbeam_client.IonbeamClient.ingest`.

    Waits up to `close_timeout` for the broker to confirm; what it did not confirm is sent by the next client.
    """
    with SyncIonbeamClient(config) as client:
        return client.ingest(batch_stream, metadata, start_time, end_time, source_name, replaces)
