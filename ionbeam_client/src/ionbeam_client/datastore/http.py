"""Requests over HTTP, and the two drivers that run a call: one that blocks, one that awaits.

Belongs here: all that differs between the two, and what both do with a status. Does not belong here: what is asked, or
what an answer means.

A call is a generator. It yields a `Request` and gets the JSON of the answer; what it returns is the call's result. A
stream is one, too: it yields `Open`, then `READ` for bytes (none at the end), `Pause`, and the lists of items that it
has read. A connection that breaks is thrown into it as `BrokenStreamError`.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
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
import tenacity

from ionbeam_client.datastore import constants, tokens
from ionbeam_client.datastore.errors import (
    APICompatibilityError,
    APIConcurrencyLimitError,
    AuthError,
    DatastoreError,
    ServiceError,
)
from ionbeam_client.datastore.places import places_of
from ionbeam_client.datastore.stream import Item

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What to ask. `endpoint` is a path below the API with ``{id}`` for the one that is meant."""

    endpoint: str
    id: int | str | None = None
    token: str | None = field(default=None, repr=False)
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
        for attempt in tenacity.Retrying(**_attempts()):
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
        async for attempt in tenacity.AsyncRetrying(**_attempts()):
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
                        for attempt in tenacity.Retrying(**_attempts()):
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
                        async for attempt in tenacity.AsyncRetrying(**_attempts()):
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
    host = _host()
    if (token := tokens.known(host, request.token)) is None:
        asked = client.build_request("POST", host + constants.TOKEN_PATH, data=tokens.form())
        with _told_as_service_error(asked):
            token = _granted(host, client.send(asked))
    prepared = _prepared(client, request, host, token)
    with places_of(host, request.endpoint).taken(), _told_as_service_error(prepared):
        response = client.send(prepared, stream=True, follow_redirects=prepared.method == "GET")
        try:
            if response.is_error or response.is_redirect:
                response.read()
            _check(response, token)
            yield response
        finally:
            response.close()


@asynccontextmanager
async def _aopened(client: httpx.AsyncClient, request: Request) -> AsyncIterator[httpx.Response]:
    host = _host()
    if (token := tokens.known(host, request.token)) is None:
        asked = client.build_request("POST", host + constants.TOKEN_PATH, data=tokens.form())
        with _told_as_service_error(asked):
            token = _granted(host, await client.send(asked))
    prepared = _prepared(client, request, host, token)
    async with places_of(host, request.endpoint).ataken():
        with _told_as_service_error(prepared):
            response = await client.send(prepared, stream=True, follow_redirects=prepared.method == "GET")
            try:
                if response.is_error or response.is_redirect:
                    await response.aread()
                _check(response, token)
                yield response
            finally:
                await response.aclose()


@contextmanager
def _told_as_service_error(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise ServiceError(f"{request.method} {request.url}: {_said(error)}", may_pass=True) from error


def _prepared(client: httpx.Client | httpx.AsyncClient, request: Request, host: str, token: str) -> httpx.Request:
    headers = {"Authorization": f"Bearer {token}"}
    if request.is_streamed:
        headers["Prefer"] = "streaming"
    method = "GET" if request.json is None else "POST"
    return client.build_request(method, host + request.path, params=request.query, json=request.json, headers=headers)


def _granted(host: str, response: httpx.Response) -> str:
    """The token that was asked for."""
    if response.status_code in (400, 401, 403):
        raise AuthError(
            f"{response.request.url}: {response.status_code}. The service grants no token for "
            f"{' and '.join(constants.CLIENT_VARIABLES)}: are they right?", status=response.status_code,
        )  # fmt: skip
    _check(response, "")
    return tokens.take(host, _json(response))


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


def _check(response: httpx.Response, token: str) -> None:
    """Raise what the status means."""
    status = response.status_code
    if status < 300:
        return
    said = f"{response.request.method} {response.url}: {status} {response.reason_phrase}{_shown(response)}"
    if status == 401:
        tokens.forget(token)
        raise AuthError(f"{said}. The service does not know the token, or no longer", status=status)
    if status == 403:
        raise AuthError(f"{said}. The token is not allowed to do this", status=status)
    if status == 404:
        raise APICompatibilityError(
            f"{said}. There is no such resource: is the id right, and is it yours to see?", status=status
        )
    kind = APIConcurrencyLimitError if status == 429 else ServiceError
    may_pass = status >= 500 or status in (408, 429)
    raise kind(said, status=status, may_pass=may_pass, retry_after=_retry_after(response))


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


def _attempts() -> dict[str, Any]:
    """How a request is tried, for both drivers. Nobody is told of what fails but by the error of the last try."""
    return {
        "retry": tenacity.retry_if_exception(_worth_a_retry),
        "stop": tenacity.stop_after_attempt(constants.ATTEMPTS),
        "wait": _pause,
        "reraise": True,
    }


def _worth_a_retry(error: BaseException) -> bool:
    if not isinstance(error, DatastoreError) or not error.may_pass:
        return False
    return error.retry_after is None or error.retry_after <= constants.LONGEST_RETRY_AFTER


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next try: those that the service asks for, else a doubling, jittered time."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, DatastoreError) and error.retry_after is not None:
        return error.retry_after
    doubled = constants.FIRST_PAUSE * 2.0 ** (state.attempt_number - 1)
    return min(doubled * random.uniform(0.5, 1.5), constants.LONGEST_PAUSE)
