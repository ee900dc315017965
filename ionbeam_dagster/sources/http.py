"""The HTTP client of all sources that ask a web service.

Belongs here: sending, waiting, trying again, logging in, caching, and telling what went wrong. Does not belong here:
what a service's answers mean (each source).

    client = HttpClient("https://service.example", credentials=Basic("user", "password"), concurrency=4)
    stations = client.get_json("/stations", {"country": "NO"})
    for station, answer in client.side_by_side(stations, lambda one: client.get(f"/data/{one['id']}", allow=(404,))):
        ...

It is synchronous: a source stays a plain iterator, and what can go on at once does so in threads (`side_by_side`).
Making a client opens nothing.
"""

from __future__ import annotations

import gzip
import json
import logging
import random
import re
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
from hishel import CacheOptions, SqliteStorage
from hishel.httpx import CacheTransport

from ionbeam_dagster import __version__
from ionbeam_dagster.domain.times import in_utc
from ionbeam_dagster.errors import SourceError

Item = TypeVar("Item")
Result = TypeVar("Result")
Params = Mapping[str, Any] | Sequence[tuple[str, Any]]

USER_AGENT = f"ionbeam/{__version__}"
LONGEST_WAIT = 300.0  # seconds: a service that asks for more is not waited for
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_SECRET_NAME = re.compile(r"token|key|passw|secret|auth|signature", re.IGNORECASE)
_EXCERPT = 200

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs every address, with its query
_log = logging.getLogger(__name__)


class HttpError(SourceError):
    """A request that failed for good. `status` is the service's last answer, None when there was none; `body` is how
    that answer begins."""

    def __init__(self, message: str, status: int | None = None, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: `url` is without secrets, `headers` are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    def text(self, encoding: str | None = None) -> str:
        """The body as text, in `encoding`, else the declared one, else UTF-8. A gzip file is unpacked.

        Raises HttpError when the body is empty, or is not what it claims to be.
        """
        content = self.unpacked()
        if not content:
            raise self.wrong("is empty")
        declared = re.search(r"charset=\"?([\w.:-]+)", self.headers.get("content-type", ""))
        chosen = encoding or (declared[1] if declared else "utf-8")
        try:
            return content.decode(chosen)
        except (UnicodeDecodeError, LookupError) as error:
            raise self.wrong(f"is not {chosen} text ({error})") from error

    def json(self) -> Any:
        """The body as JSON; raises HttpError, with how the body begins, when it is none."""
        text = self.text("utf-8")
        try:
            return json.loads(text)
        except ValueError as error:
            raise self.wrong(f"is not JSON ({error}), but {_kind(self.headers)}: {_excerpt(text)}") from error

    def unpacked(self) -> bytes:
        """The body, unpacked where the address ends in ``.gz``; raises HttpError when it is then no whole gzip file."""
        if not self.url.partition("?")[0].endswith(".gz"):
            return self.content
        try:
            return gzip.decompress(self.content)
        except (OSError, EOFError, zlib.error) as error:
            raise self.wrong(f"is not a whole gzip file ({error})") from error

    def wrong(self, reason: str) -> HttpError:
        """An error that says `reason` of this answer, for the caller to raise."""
        return HttpError(f"{self.url}: the answer {reason}", self.status)


@dataclass(frozen=True, slots=True)
class Token:
    """What a login gave; `lifetime` in seconds, where the service tells it."""

    access: str
    refresh: str | None = None
    lifetime: float | None = None

    def __repr__(self) -> str:
        return "Token(...)"


class Credentials(Protocol):
    """What goes into the ``Authorization`` header, and how it is renewed when the service refuses it."""

    def header(self, client: HttpClient) -> str:
        """The header's value; may log in."""

    def renew(self, client: HttpClient, refused: str) -> bool:
        """The service refused `refused`: get another, and say whether it is worth another try."""

    def secrets(self) -> list[str]:
        """Texts that no log and no error may show."""


class Basic:
    """A user name and a password with every request."""

    def __init__(self, username: str, password: str) -> None:
        self._value = httpx.BasicAuth(username, password)._auth_header
        self._password = password

    def header(self, client: HttpClient) -> str:
        return self._value

    def renew(self, client: HttpClient, refused: str) -> bool:
        return False

    def secrets(self) -> list[str]:
        return [self._password, self._value.split()[-1]]


class Bearer:
    """A token that `login` gets and `refresh`, where the service has it, renews.

    Both are given the client, and ask with ``authorized=False``. A token that the service refuses, or whose lifetime is
    over, is renewed once, by whichever thread meets it first; a refresh that fails is followed by a login.
    """

    def __init__(
        self,
        login: Callable[[HttpClient], Token],
        refresh: Callable[[HttpClient, str], Token] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self._login = login
        self._refresh = refresh
        self._secrets = list(secrets)
        self._lock = threading.RLock()
        self._token: Token | None = None
        self._until = float("inf")

    def header(self, client: HttpClient) -> str:
        with self._lock:
            if self._token is None or time.monotonic() > self._until:
                self._keep(self._renewed(client))
            assert self._token is not None
            return f"Bearer {self._token.access}"

    def renew(self, client: HttpClient, refused: str) -> bool:
        with self._lock:
            if self._token is not None and f"Bearer {self._token.access}" == refused:
                self._keep(self._renewed(client))
        return True

    def secrets(self) -> list[str]:
        return self._secrets

    def _renewed(self, client: HttpClient) -> Token:
        old, self._token = self._token, None  # should this fail, the next request logs in
        if old and old.refresh and self._refresh:
            try:
                return self._refresh(client, old.refresh)
            except SourceError as error:
                _log.info("the token was not refreshed, logging in again: %s", error)
        return self._login(client)

    def _keep(self, token: Token) -> None:
        self._token = token
        self._secrets += [text for text in (token.access, token.refresh) if text]
        self._until = float("inf") if token.lifetime is None else time.monotonic() + 0.9 * token.lifetime


class HttpClient:
    """Requests to one service, relative to `base_url`.

    `timeout` is for each connection and each wait for data, in seconds. A request that meets a broken connection, a
    truncated body or a passing status (429, 500, 502, 503, 504, ...) is tried `retries` times more, after the time that
    the service asks for (``Retry-After``) or after a doubling, jittered one. Never more than `concurrency` requests go
    on at once, nor more than `per_second` begin in a second. Credentials go to the host of `base_url` alone, whatever
    is redirected where. With `cache`, a folder, answers are kept there, and the service is asked whether they changed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 30.0,
        retries: int = 5,
        concurrency: int = 5,
        per_second: float | None = None,
        credentials: Credentials | None = None,
        cache: Path | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/") + "/"
        self.concurrency = concurrency
        self._timeout = timeout
        self._retries = retries
        self._credentials = credentials
        self._cache = cache
        self._slots = threading.BoundedSemaphore(concurrency)
        self._pace = _Pace(per_second)

    def get(self, path: str, params: Params | None = None, *, allow: Iterable[int] = ()) -> Answer:
        """The answer to a GET; statuses in `allow` are answers too. Raises HttpError."""
        return self._answer("GET", path, params=params, allow=frozenset(allow))

    def get_json(self, path: str, params: Params | None = None) -> Any:
        """The JSON that a GET gives; raises HttpError, also when it is none."""
        return self.get(path, params).json()

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        allow: Iterable[int] = (),
        authorized: bool = True,
    ) -> Answer:
        """The answer to a POST; it is not redirected, so that what it carries stays with the service."""
        return self._answer(
            "POST", path, json=json, data=form, allow=frozenset(allow), authorized=authorized, follow=False
        )

    @contextmanager
    def stream(self, path: str, params: Params | None = None) -> Iterator[Iterator[bytes]]:
        """The body of a GET in pieces, for what is too large for memory.

        What fails before the first piece is tried again; what fails later raises HttpError from the iteration.
        """
        with self._slots, self._opened("GET", path, params=params) as response:
            yield self._pieces(response)

    def download(self, path: str, target: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> None:
        """The body of a GET as the file `target`, which is there only when it is whole.

        What broke off is gone on with, also by a later call, as long as the service says that it is still the same
        (``ETag`` or ``Last-Modified``). `progress` is told the bytes that are here, and how many there are. Raises
        HttpError.
        """
        part, same = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.same")
        tries = 0
        while True:
            try:
                self._go_on(path, part, same, progress)
                break
            except HttpError as error:
                tries += 1
                if error.status is not None or tries > self._retries:
                    raise
                _log.info("%s; going on from there", error)
                time.sleep(1.0)
        part.replace(target)
        same.unlink(missing_ok=True)

    def _go_on(self, path: str, part: Path, same: Path, progress: Callable[[int, int], None]) -> None:
        here = part.stat().st_size if part.exists() and same.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if here:
            headers |= {"Range": f"bytes={here}-", "If-Range": same.read_text()}
        with self._slots, self._opened("GET", path, headers=headers, allow=frozenset({416})) as response:
            if response.status_code == 416:  # all of it is here, or it shrank: we cannot know
                part.unlink()
                raise HttpError(f"{self._shown(response.url)}: has no byte {here}")
            here = here if response.status_code == 206 else 0
            known = response.headers.get("etag") or response.headers.get("last-modified") or ""
            if known and not known.startswith("W/"):
                same.write_text(known)
            else:
                same.unlink(missing_ok=True)
            of = here + int(response.headers.get("content-length", 0))
            with part.open("ab" if here else "wb") as file:
                for piece in self._pieces(response):
                    file.write(piece)
                    here += len(piece)
                    progress(here, of)

    def side_by_side(self, items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
        """``(item, work(item))`` for all items, in their order, `concurrency` at a time.

        A bounded number of results waits to be taken. The first error is raised, and what has not begun is given up.
        """
        rest = iter(items)
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="http")
        try:
            for item in islice(rest, 4 * self.concurrency):
                waiting.append((item, pool.submit(work, item)))
            while waiting:
                item, future = waiting.popleft()
                yield item, future.result()
                waiting.extend((more, pool.submit(work, more)) for more in islice(rest, 1))
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Close the connections; a further request opens new ones."""
        if "_http" in self.__dict__:
            self._http.close()
            del self._http

    @cached_property
    def _http(self) -> httpx.Client:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
        wire = httpx.HTTPTransport(verify=_trusted(), limits=limits)
        transport: httpx.BaseTransport = _Authorizing(wire, httpx.URL(self.base_url))
        if self._cache is not None:
            self._cache.mkdir(parents=True, exist_ok=True)
            storage = SqliteStorage(database_path=self._cache / "http.sqlite")
            transport = CacheTransport(transport, storage, CacheOptions(shared=False))
        timeout = httpx.Timeout(self._timeout, pool=None)
        return httpx.Client(transport=transport, timeout=timeout, headers={"User-Agent": USER_AGENT})

    def _answer(self, method: str, path: str, **how: Any) -> Answer:
        def read(response: httpx.Response) -> Answer:
            content = response.read()
            return Answer(self._shown(response.url), response.status_code, _lower(response.headers), content)

        if not how.get("authorized", True):  # a login, which a request waits for that has the last slot
            return self._tried(method, path, read, **how)
        with self._slots:
            return self._tried(method, path, read, **how)

    @contextmanager
    def _opened(self, method: str, path: str, **how: Any) -> Iterator[httpx.Response]:
        response = self._tried(method, path, lambda response: response, **how)
        try:
            yield response
        finally:
            response.close()

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()
        except httpx.HTTPError as error:
            raise HttpError(f"{self._shown(response.url)}: {_reason(error)} after a part of the answer") from error

    def _tried(self, method: str, path: str, use: Callable[[httpx.Response], Result], **how: Any) -> Result:
        """What `use` makes of a good response, after as many tries as it takes and is allowed."""
        renewed = False
        tries = 0
        while True:
            try:
                result = self._once(method, path, use, renewed=renewed, **how)
            except _Renewed:
                renewed = True
                continue
            if not isinstance(result, _Fault):
                return result
            tries += 1
            if tries > self._retries or result.wait is None:
                raise result.error if tries == 1 else _after(result.error, tries)
            pause = max(result.wait, 0.0) or random.uniform(0.5, 1.0) * min(0.5 * 2**tries, 60.0)
            _log.info("%s; trying again in %.1f s", result.error, pause)
            time.sleep(pause)

    def _once(
        self,
        method: str,
        path: str,
        use: Callable[[httpx.Response], Result],
        *,
        renewed: bool,
        allow: frozenset[int] = frozenset(),
        authorized: bool = True,
        follow: bool = True,
        **content: Any,
    ) -> Result | _Fault:
        """One try: the result, or what went wrong."""
        credentials = self._credentials if authorized else None
        value = credentials.header(self) if credentials else None
        self._pace.wait()
        url = httpx.URL(
            path if "://" in path else self.base_url + path.lstrip("/")
        )  # parsed once: it costs as much as TCP
        request = self._http.build_request(method, url, **content, extensions={_AUTHORIZATION: value})
        try:
            response = self._http.send(request, stream=True, follow_redirects=follow)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _Fault(HttpError(f"{self._shown(url)}: {_reason(error)}"), _worth(error))
        kept = False
        try:
            status = response.status_code
            if response.is_success or status in allow:
                result = use(response)
                kept = result is response
                return result
            if status == 401 and credentials and value and not renewed and credentials.renew(self, value):
                raise _Renewed
            return _Fault(self._refused(response), _asked_to_wait(response))
        except httpx.HTTPError as error:
            return _Fault(HttpError(f"{self._shown(url)}: {_reason(error)}", response.status_code), _worth(error))
        finally:
            if not kept:
                response.close()

    def _refused(self, response: httpx.Response) -> HttpError:
        body = self._hidden(_excerpt(response.read().decode("utf-8", "replace")))
        said = f": {body}" if body else ""
        advice = ""
        if response.status_code == 401:
            advice = "; check the user name and the password"
        elif response.is_redirect:
            advice = f" to {self._shown(httpx.URL(response.headers.get('location', '')))}; check the address"
        shown = self._shown(response.url)
        return HttpError(
            f"{shown}: {response.status_code} {response.reason_phrase}{advice}{said}", response.status_code, body
        )

    def _shown(self, url: httpx.URL) -> str:
        """An address as logs and errors may show it."""
        if not (url.query or url.userinfo or url.fragment):
            return self._hidden(str(url))
        params = [(name, "..." if _SECRET_NAME.search(name) else value) for name, value in url.params.multi_items()]
        url = url.copy_with(userinfo=b"", fragment=None)
        return self._hidden(str(url.copy_with(params=params) if params else url))

    def _hidden(self, text: str) -> str:
        for secret in self._credentials.secrets() if self._credentials else ():
            if secret:
                text = text.replace(secret, "...")
        return text


_AUTHORIZATION = "ionbeam_authorization"


@dataclass(frozen=True, slots=True)
class _Fault:
    """What went wrong, and how long to wait for the next try (0: as we like, None: for ever)."""

    error: HttpError
    wait: float | None


class _Renewed(Exception):
    """The credentials were renewed: the request is worth another try at once."""


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities' certificates, for all clients: to read them takes as long as many requests."""
    return httpx.create_ssl_context()


class _Authorizing(httpx.BaseTransport):
    """Adds the ``Authorization`` header on the way out: to the service's own host alone, and unseen by the cache.

    On the way in it says that what is cached is never used unasked: a file may be published again at any time.
    """

    def __init__(self, wire: httpx.BaseTransport, home: httpx.URL) -> None:
        self._wire = wire
        self._home = (home.scheme, home.host, home.port)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        value = request.extensions.get(_AUTHORIZATION)
        if value and (request.url.scheme, request.url.host, request.url.port) == self._home:
            request.headers["Authorization"] = value
        response = self._wire.handle_request(request)
        if "no-store" not in response.headers.get("cache-control", ""):
            response.headers["cache-control"] = "no-cache"
        return response

    def close(self) -> None:
        self._wire.close()


class _Pace:
    """Lets at most `per_second` pass in a second, evenly."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1.0 / per_second if per_second else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            begin, self._next = max(now, self._next), max(now, self._next) + self._gap
        time.sleep(max(0.0, begin - now))


def _after(fault: HttpError, tries: int) -> HttpError:
    return HttpError(f"{fault} ({tries} tries)", fault.status, fault.body)


def _asked_to_wait(response: httpx.Response) -> float | None:
    """Seconds until the next try: what the service asks for, 0 when it does not say, None when there is no use."""
    if response.status_code not in _AGAIN:
        return None
    asked = response.headers.get("retry-after", "").strip()
    if not asked:
        return 0.0
    try:
        if asked.replace(".", "", 1).isdigit():
            wait = float(asked)
        else:
            wait = (in_utc(parsedate_to_datetime(asked)) - _told_time(response)).total_seconds()
    except ValueError:
        return 0.0
    return wait if wait <= LONGEST_WAIT else None


def _told_time(response: httpx.Response) -> datetime:
    """What time it is by the service's clock, which need not be ours."""
    try:
        return in_utc(parsedate_to_datetime(response.headers["date"]))
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _worth(error: Exception) -> float | None:
    """0 where another try may do, None where it will not."""
    passing = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return 0.0 if passing else None


def _reason(error: Exception) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ReadTimeout() | httpx.WriteTimeout():
            return "no data within the time-out"
        case httpx.RemoteProtocolError():
            return f"the answer broke off ({error})"
        case httpx.ConnectError():
            return f"no connection ({error})"
        case httpx.TooManyRedirects():
            return "redirected in circles"
        case httpx.DecodingError():
            return f"the body is not encoded as it claims ({error})"
    return f"{type(error).__name__}: {error}"


def _kind(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "no declared type").partition(";")[0]


def _excerpt(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _EXCERPT else plain[:_EXCERPT] + "..."


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
