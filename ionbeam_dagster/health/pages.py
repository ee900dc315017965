"""The pages ``/health``, ``/heard`` and ``/metrics``, and a small server for processes that have none.

Belongs here: what the pages answer, and serving them. Does not belong here: the checks (watch.py), the figures
(metrics.py), or what was heard (heard_page.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.health.heard_page import HeardPage
from ionbeam_dagster.health.metrics import Figures, process_figures
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.pipeline.platform import Platform

Page = Callable[[], tuple[int, str, bytes]]
"""Gives status, type and body."""


def pages(
    platform: Platform, watch: Watch, in_full: bool, *further: Collector, fatal: Set[str] | None = None
) -> dict[str, Page]:
    """The pages of a process by their paths; ``/health`` says all that is known only `in_full`, and fails for errors of
    the subjects `fatal`, without them for all."""
    registry = CollectorRegistry()
    for collector in (Figures(platform, watch), *further):
        registry.register(collector)
    process_figures(registry)

    def health() -> tuple[int, str, bytes]:
        status, body = watch.answer(in_full, fatal)
        return status, "application/json", body

    return {
        "/health": health,
        "/heard": HeardPage(platform),
        "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
    }


@contextmanager
def served(pages: Mapping[str, Page], host: str, port: int) -> Iterator[int]:
    """Serve pages while the block lasts; gives the port. Raises PipelineError where it cannot be listened at."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        page = pages.get(environ["PATH_INFO"])
        if page is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [f"there is {' and '.join(pages)}\n".encode()]
        status, type, body = page()
        start_response(f"{status} {'OK' if status == 200 else 'Service Unavailable'}", [("Content-Type", type)])
        return [body]

    try:
        server = make_server(host, port, answer, _Threaded, _Quiet)
    except OSError as error:
        raise PipelineError(f"{host}:{port} cannot be listened at ({error.strerror}); choose another --port") from error
    Thread(target=server.serve_forever, name="pages", daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape is no event."""
