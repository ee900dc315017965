"""Requests over HTTP, and the two drivers that run a call: one that blocks, one that awaits.

Belongs here: all that differs between the two, and what both do with a status, a token and a place among the requests
at once. Does not belong here: what is asked, or what an answer means.

A call is a generator. It yields a `Request` and gets the JSON of the answer; what it returns is the call's result. A
stream is one, too: it yields `Open`, then `READ` for bytes (none at the end), `Pause`, and the lists of items that it
has read. A connection that breaks is thrown into it as `BrokenStreamError`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import orjson
import stamina

from ionbeam_client.datastore import constants
from ionbeam_client.datastore.errors import (
    APICompatibilityError,
    APIConcurrencyLimitError,
    AuthError,
    ServiceError,
)
from ionbeam_client.datastore.stream import Item

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What to ask. `endpoint` is a path below the API with ``{id}`` for the one that is meant."""

    endpoint: str
    id: int | str | None = None
    token: str | None = None
    query: dict[str, str | list[str]] = field(default_factory=dict)
    json: Any = None
    """The body; a request that has one is a POST."""
    is_streamed: bool = False
    """Ask for an answer that begins before all of it is known."""

    @property
    def path(self) -> str:
        return constants.API + self.endpoint.replace("{id}", quote(str(self.id), safe=""))


@dataclass(frozen=True)
class Open:
    """Open a stream, instead of the one before."""

    request: Request


@dataclass(frozen=True)
class Pause:
    seconds: float


class _Read(Enum):
    READ = "the next bytes"


READ = _Read.READ

Call = Generator[Request, Any, T]
Stream = Generator[Open | Pause | _Read | list[Item], bytes, None]


class BrokenStreamError(Exception):
    """The connection broke before the answer was complete."""


# The two drivers of calls


def run(call: Call[T]) -> T:
    """Run a call to its end."""
    answer = None
    while True:
        try:
            request = call.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        for attempt in _attempts():
            with attempt, _client() as client, _opened(client, request) as response:
                response.read()
                answer = _json(response)


async def arun(call: Call[T]) -> T:
    """`run`, for asyncio."""
    answer = None
    while True:
        try:
            request = call.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        async for attempt in _attempts():
            with attempt:
                async with _async_client() as client, _aopened(client, request) as response:
                    await response.aread()
                    answer = _json(response)


def run_stream(stream: Stream) -> Generator[list[Item], None, None]:
    """The items of a stream, in lists, as they arrive."""
    chunks: Iterator[bytes] = iter(())
    with ExitStack() as held, _client() as client:
        step = next(stream, None)
        while step is not None:
            try:
                answer = b""
                match step:
                    case list():
                        yield step
                    case Open():
                        held.close()
                        for attempt in _attempts():
                            with attempt:
                                chunks = held.enter_context(_opened(client, step.request)).iter_bytes()
                    case Pause():
                        held.close()
                        time.sleep(step.seconds)
                    case _Read.READ:
                        with _told_as_broken():
                            answer = next(chunks, b"")
                step = _send(stream, answer)
            except BrokenStreamError as error:
                step = _throw(stream, error)


async def arun_stream(stream: Stream) -> AsyncGenerator[list[Item], None]:
    """`run_stream`, for asyncio."""
    chunks: AsyncIterator[bytes] | None = None
    async with AsyncExitStack() as held, _async_client() as client:
        step = next(stream, None)
        while step is not None:
            try:
                answer = b""
                match step:
                    case list():
                        yield step
                    case Open():
                        await held.aclose()
                        async for attempt in _attempts():
                            with attempt:
                                response = await held.enter_async_context(_aopened(client, step.request))
                                chunks = response.aiter_bytes()
                    case Pause():
                        await held.aclose()
                        await asyncio.sleep(step.seconds)
                    case _Read.READ:
                        assert chunks is not None
                        with _told_as_broken():
                            answer = await anext(chunks, b"")
                step = _send(stream, answer)
            except BrokenStreamError as error:
                step = _throw(stream, error)


def _send(stream: Stream, answer: bytes) -> Open | Pause | _Read | list[Item] | None:
    try:
        return stream.send(answer)
    except StopIteration:
        return None


def _throw(stream: Stream, error: BrokenStreamError) -> Open | Pause | _Read | list[Item] | None:
    try:
        return stream.throw(error)
    except StopIteration:
        return None


@contextmanager
def _told_as_broken() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise BrokenStreamError(_said(error)) from error


# One request


@contextmanager
def _opened(client: httpx.Client, request: Request) -> Iterator[httpx.Response]:
    """A good response, whose body has not been read; it has its place among the requests at once until it is closed."""
    prepared = _prepared(client, request)
    with _places(request).taken(), _told_as_service_error(prepared):
        response = client.send(prepared, stream=True, follow_redirects=prepared.method == "GET")
        try:
            if response.is_error or response.is_redirect:
                response.read()
            _check(response)
            yield response
        finally:
            response.close()


@asynccontextmanager
async def _aopened(client: httpx.AsyncClient, request: Request) -> AsyncIterator[httpx.Response]:
    prepared = _prepared(client, request)
    async with _places(request).ataken():
        with _told_as_service_error(prepared):
            response = await client.send(prepared, stream=True, follow_redirects=prepared.method == "GET")
            try:
                if response.is_error or response.is_redirect:
                    await response.aread()
                _check(response)
                yield response
            finally:
                await response.aclose()


@contextmanager
def _told_as_service_error(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise ServiceError(f"{request.method} {request.url}: {_said(error)}", may_pass=True) from error


def _prepared(client: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    headers = {"Authorization": f"Bearer {_token(request.token)}"}
    if request.is_streamed:
        headers["Prefer"] = "streaming"
    method = "GET" if request.json is None else "POST"
    url = _host() + request.path
    return client.build_request(method, url, params=request.query, json=request.json, headers=headers)


def _token(given: str | None) -> str:
    token = (given or next(filter(None, map(os.environ.get, constants.TOKEN_VARIABLES)), "")).strip()
    if not token:
        raise AuthError(f"no token: set {' or '.join(constants.TOKEN_VARIABLES)}, or give auth_token=")
    if not (token.isascii() and token.isprintable()):
        raise AuthError("the token has characters that no HTTP header can have: was it copied whole, and nothing else?")
    return token


def _host() -> str:
    host = os.environ.get(constants.HOST_VARIABLE) or constants.DEFAULT_HOST
    try:
        parts = urlsplit(host)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"{constants.HOST_VARIABLE} is {host!r}, and should be like {constants.DEFAULT_HOST}")
    return host.rstrip("/")


@cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _client() -> httpx.Client:
    return httpx.Client(verify=_trusted(), timeout=_timeout())


def _async_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=_trusted(), timeout=_timeout())


def _timeout() -> httpx.Timeout:
    return httpx.Timeout(constants.SILENCE_SECONDS, connect=constants.CONNECT_SECONDS)


# What a response says


def _check(response: httpx.Response) -> None:
    """Raise what the status means."""
    status = response.status_code
    if status < 300:
        return
    said = f"{response.request.method} {response.url}: {status} {response.reason_phrase}{_shown(response)}"
    retry_after = _retry_after(response)
    if status == 401:
        raise AuthError(f"{said}. The service does not know the token")
    if status == 403:
        raise AuthError(f"{said}. The token is not allowed to do this")
    if status == 404:
        raise APICompatibilityError(f"{said}. There is no such resource: is the id right, and is it yours to see?")
    if status == 429:
        raise APIConcurrencyLimitError(f"{said}. Too many requests at once", retry_after)
    raise ServiceError(said, status=status, may_pass=status >= 500 or status == 408, retry_after=retry_after)


def _json(response: httpx.Response) -> Any:
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        kind = response.headers.get("Content-Type", "no type")
        what = f"is no JSON ({kind}){_shown(response)}" if response.content.strip() else "is empty"
        raise APICompatibilityError(f"{response.request.method} {response.url}: the answer {what}") from None


def _shown(response: httpx.Response) -> str:
    text = " ".join(response.text.split())
    return f": {text[:200]}" if text else ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from either form of the header."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    with suppress(ValueError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def _attempts() -> Any:
    return stamina.retry_context(
        on=_worth_a_retry,
        attempts=constants.ATTEMPTS,
        timeout=None,
        wait_initial=constants.FIRST_PAUSE,
        wait_max=constants.LONGEST_PAUSE,
    )


def _worth_a_retry(error: Exception) -> bool | float:
    """Whether, and after how many seconds if the service said so."""
    if not (isinstance(error, APIConcurrencyLimitError) or (isinstance(error, ServiceError) and error.may_pass)):
        return False
    if error.retry_after is None:
        return True
    return error.retry_after if error.retry_after <= constants.LONGEST_RETRY_AFTER else False


# Requests at once


class _Places:
    """So many requests at once, over all threads and tasks."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._takers: list[object] = []
        self._wake: list[Callable[[], None]] = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        taker = threading.current_thread()
        free = threading.Event()
        deadline = time.monotonic() + constants.SECONDS_FOR_A_PLACE
        while not self._take(taker, free.set):
            if not free.wait(deadline - time.monotonic()):
                raise self._full(f"none became free within {constants.SECONDS_FOR_A_PLACE:g} s")
            free.clear()
        try:
            yield
        finally:
            self._give_back(taker)

    @asynccontextmanager
    async def ataken(self) -> AsyncIterator[None]:
        taker = asyncio.current_task()
        loop = asyncio.get_running_loop()
        free = asyncio.Event()
        try:
            async with asyncio.timeout(constants.SECONDS_FOR_A_PLACE):
                while not self._take(taker, lambda: loop.call_soon_threadsafe(free.set)):
                    await free.wait()
                    free.clear()
        except TimeoutError:
            raise self._full(f"none became free within {constants.SECONDS_FOR_A_PLACE:g} s") from None
        try:
            yield
        finally:
            self._give_back(taker)

    def _take(self, taker: object, wake: Callable[[], Any]) -> bool:
        with self._lock:
            if len(self._takers) < constants.REQUESTS_AT_ONCE:
                self._takers.append(taker)
                return True
            if all(other is taker for other in self._takers):
                raise self._full("this thread or task has them all: read one of its streams to the end, or close it")
            self._wake.append(wake)
            return False

    def _give_back(self, taker: object) -> None:
        with self._lock:
            self._takers.remove(taker)
            waiting, self._wake = self._wake, []
        for wake in waiting:
            with suppress(RuntimeError):  # its event loop has been closed meanwhile
                wake()

    def _full(self, why: str) -> APIConcurrencyLimitError:
        return APIConcurrencyLimitError(f"{constants.REQUESTS_AT_ONCE} requests of {self._endpoint} are open; {why}")


_PLACES: dict[tuple[str, str], _Places] = {}
os.register_at_fork(after_in_child=_PLACES.clear)  # the requests that are open are the parent's


def _places(request: Request) -> _Places:
    return _PLACES.setdefault((_host(), request.endpoint), _Places(request.endpoint))
