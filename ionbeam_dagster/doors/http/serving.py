"""`ionbeam receive`: the HTTP door open, its journal taken in as it fills.

Belongs here: the server and the two threads beside it, and how they end. Does not belong here: requests (app.py), or
what is done once something is taken in (orchestration/arrivals.py, given here as `work`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from polars.exceptions import PanicException

from ionbeam_dagster.doors.http.app import Application
from ionbeam_dagster.doors.http.flush import Flush, door_sources, strict_mappings
from ionbeam_dagster.doors.http.journal import Journal
from ionbeam_dagster.doors.http.memory import Memory, door_folder, put_damaged_aside
from ionbeam_dagster.doors.http.reports import Once
from ionbeam_dagster.doors.http.tokens import Tokens
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.http_server import HttpServer
from ionbeam_dagster.matters import Matter
from ionbeam_dagster.pipeline.platform import Platform

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds after which what came becomes an ingestion, ..."""
LINES = 50_000
"""... and the lines after which it does so at once."""

_THREADS = 16
_LOOK = 0.5


class OpenDoor:
    """The HTTP door of a platform, listening as soon as it is made. Raises PipelineError when it cannot open.

    `pages` are further ones by their paths, each giving status, type and body.
    """

    def __init__(
        self,
        platform: Platform,
        host: str,
        port: int,
        every: float = EVERY,
        pages: Mapping[str, Callable[[], tuple[int, str, bytes]]] = MappingProxyType({}),
    ) -> None:
        sources, folder = door_sources(platform), door_folder(platform)
        if not sources:
            raise PipelineError(
                f"{platform.config.path} has no source of kind door; add one: "
                "'garden: {kind: door, token: \"${GARDEN_TOKEN}\"}' below sources"
            )
        try:
            self.journal = Journal(folder / "journal")
        except BlockingIOError as error:
            raise PipelineError(f"another `ionbeam receive` has this platform's journal: {error}") from error
        put_damaged_aside(folder)
        self.memory = Memory(folder)
        self.flush = Flush(platform, self.journal, self.memory)
        settings = platform.config.sections.receive
        self.application = Application(
            settings, Tokens(sources), self.journal, Once(self.journal, self.memory), strict_mappings(platform), pages
        )
        self._every = every
        self._stop = threading.Event()
        logging.getLogger("waitress").setLevel(logging.WARNING)  # a line for each client that goes before its answer
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line for each request that waits its turn
        try:
            self._server = HttpServer(self.application, host, port, _THREADS, self.application.largest_body)
        except OSError as error:
            self.journal.close()
            raise PipelineError(
                f"{host}:{port} cannot be listened at ({error.strerror}); choose another --port"
            ) from error
        self.port = self._server.port

    def run(self, work: Callable[[], object] = lambda: None) -> None:
        """Serve until `stop`. `work` is done in a thread of its own, once a second."""
        taking_in = threading.Thread(target=self._flush, daemon=True)
        working = threading.Thread(target=self._work, args=(work,), daemon=True)
        taking_in.start()
        working.start()
        try:
            while not self._stop.is_set():
                self._server.turn(_LOOK)
        finally:
            self._stop.set()
            self._server.close(10)
            working.join(60)
            taking_in.join()
            self.journal.finish()
            self._guarded(self.flush.catch_up, Matter(log))
            self._guarded(self._keep_refusals, Matter(log))
            self.journal.close()  # last: from now on another door may write, and what it writes is not ours to take in

    def stop(self) -> None:
        """End `run` in good order, within a second, from another thread or a signal."""
        self._stop.set()

    def _flush(self) -> None:
        taking_in, looking, counting = Matter(log), Matter(log), Matter(log)
        self._guarded(self.flush.look_again, looking)
        self._guarded(self.flush.catch_up, taking_in)
        waited = 0.0
        while not self._stop.wait(_LOOK):
            waited += _LOOK
            if waited >= self._every or self.journal.lines >= LINES:
                waited = 0.0
                self._guarded(self.flush.look_again, looking)
                self._guarded(self.flush.run, taking_in)
                self._guarded(self._keep_refusals, counting)

    def _keep_refusals(self) -> None:
        self.application.refusals.keep(self.memory.refuse)

    def _work(self, work: Callable[[], object]) -> None:
        working = Matter(log)
        while not self._stop.wait(1):
            self._guarded(work, working)

    def _guarded(self, do: Callable[[], object], matter: Matter) -> None:
        try:
            do()
        except (Exception, PanicException) as error:
            kind = type(error).__name__, str(error)
            matter.goes_wrong(kind, "what was taken in could not be worked on; again in a moment", error)
        else:
            matter.goes_well("what was taken in can be worked on again")
