"""The HTTP client: requests with their retries, side by side, in pieces, or into a file.

Does not belong here: what an answer is (answers.py), which failures pass (retries.py).
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
from hishel import CacheOptions, SqliteStorage
from hishel.httpx import CacheTransport

from ionbeam_dagster import __version__
from ionbeam_dagster.errors import DeadlineExceeded
from ionbeam_dagster.sources.deadline import at_most, remaining
from ionbeam_dagster.sources.http.answers import Answer, HttpError, excerpt
from ionbeam_dagster.sources.http.credentials import Credentials, Fixed
from ionbeam_dagster.sources.http.retries import Fault, reason_of, wait_asked_for, worth_another
from ionbeam_dagster.sources.http.wire import AUTHORIZATION, AuthorizingTransport, Pace, trusted_authorities

Item = TypeVar("Item")
Result = TypeVar("Result")
Params = Mapping[str, Any] | Sequence[tuple[str, Any]]

USER_AGENT = f"ionbeam/{__version__}"
_SECRET_NAME = re.compile(r"token|key|passw|secret|auth|signature", re.IGNORECASE)

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs every address, with its query
_log = logging.getLogger(__name__)


class HttpClient:
    """Requests to one service, relative to `base_url`.

    `timeout` is for each connection and each wait for data, in seconds; all of them together, with the tries, end with
    the deadline of what is being done (sources/deadline.py), as a DeadlineExceeded.

    A request that meets a broken connection, a truncated body or a passing status (429, 500, 502, 503, 504, ...) is
    tried `retries` times more, after the time that the service asks for (``Retry-After``) or after a doubling, jittered
    one. Never more than `concurrency` requests go on at once, nor more than `per_second` begin in a second. Credentials
    go to the host of `base_url` alone, whatever is redirected where. With `cache`, a folder, answers are kept there,
    and the service is asked whether they changed.
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
        self._pace = Pace(per_second)

    def get(
        self,
        path: str,
        params: Params | None = None,
        *,
        allow: Iterable[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a GET; statuses in `allow` are answers too. Raises HttpError."""
        return self._answer("GET", path, params=params, allow=frozenset(allow), headers=headers)

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
        with self._slot(path), self._opened("GET", path, params=params) as response:
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
                time.sleep(at_most(1.0, str(error)))
        part.replace(target)
        same.unlink(missing_ok=True)

    def _go_on(self, path: str, part: Path, same: Path, progress: Callable[[int, int], None]) -> None:
        here = part.stat().st_size if part.exists() and same.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if here:
            headers |= {"Range": f"bytes={here}-", "If-Range": same.read_text()}
        with self._slot(path), self._opened("GET", path, headers=headers, allow=frozenset({416})) as response:
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

        def hand_over(item: Item) -> Future[Result]:
            return pool.submit(copy_context().run, work, item)  # with its deadline

        try:
            for item in islice(rest, 4 * self.concurrency):
                waiting.append((item, hand_over(item)))
            while waiting:
                item, future = waiting.popleft()
                yield item, future.result()
                waiting.extend((more, hand_over(more)) for more in islice(rest, 1))
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
        wire = httpx.HTTPTransport(verify=trusted_authorities(), limits=limits)
        transport: httpx.BaseTransport = AuthorizingTransport(wire, httpx.URL(self.base_url))
        if self._cache is not None:
            self._cache.mkdir(parents=True, exist_ok=True)
            storage = SqliteStorage(database_path=self._cache / "http.sqlite")
            transport = CacheTransport(transport, storage, CacheOptions(shared=False))
        return httpx.Client(transport=transport, headers={"User-Agent": USER_AGENT})

    def _answer(self, method: str, path: str, **how: Any) -> Answer:
        def read(response: httpx.Response) -> Answer:
            content = self._whole(response)
            return Answer(
                self._shown(response.url),
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                content,
            )

        if not how.get("authorized", True):  # a login, which a request waits for that has the last slot
            return self._tried(method, path, read, **how)
        with self._slot(path):
            return self._tried(method, path, read, **how)

    @contextmanager
    def _slot(self, path: str) -> Iterator[None]:
        """One of the `concurrency` requests that may go on at once."""
        if not self._slots.acquire(timeout=remaining(path)):
            raise DeadlineExceeded(f"{path}: no request of its {self.concurrency} at once came to an end in time")
        try:
            yield
        finally:
            self._slots.release()

    @contextmanager
    def _opened(self, method: str, path: str, **how: Any) -> Iterator[httpx.Response]:
        response = self._tried(method, path, lambda response: response, **how)
        try:
            yield response
        finally:
            response.close()

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from self._in_time(response)
        except httpx.HTTPError as error:
            raise HttpError(f"{self._shown(response.url)}: {reason_of(error)} after a part of the answer") from error

    def _in_time(self, response: httpx.Response) -> Iterator[bytes]:
        """The body in pieces, as long as there is time: a service that sends a byte now and then never times out."""
        shown = self._shown(response.url)
        for piece in response.iter_bytes():
            remaining(shown)
            yield piece

    def _whole(self, response: httpx.Response) -> bytes:
        return b"".join(self._in_time(response))

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
            if not isinstance(result, Fault):
                return result
            tries += 1
            if tries > self._retries or result.wait is None:
                raise result.after(tries)
            pause = max(result.wait, 0.0) or random.uniform(0.5, 1.0) * min(0.5 * 2**tries, 60.0)
            left = remaining(str(result.error))
            if left is not None and pause >= left:
                raise DeadlineExceeded(f"{result.after(tries)}; another try, in {pause:.0f} s, would be too late")
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
    ) -> Result | Fault:
        """One try: the result, or what went wrong."""
        credentials = self._credentials if authorized else None
        value = credentials.header(self) if credentials else None
        self._pace.wait()
        url = httpx.URL(
            path if "://" in path else self.base_url + path.lstrip("/")
        )  # parsed once: it costs as much as TCP
        timeout = httpx.Timeout(at_most(self._timeout, self._shown(url)), pool=None)
        request = self._http.build_request(method, url, **content, timeout=timeout, extensions={AUTHORIZATION: value})
        try:
            response = self._http.send(request, stream=True, follow_redirects=follow)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Fault(HttpError(f"{self._shown(url)}: {reason_of(error)}"), worth_another(error))
        kept = False
        try:
            status = response.status_code
            if response.is_success or status in allow:
                result = use(response)
                kept = result is response
                return result
            if status == 401 and credentials and value and not renewed and credentials.renew(self, value):
                raise _Renewed
            return Fault(self._refused(response), wait_asked_for(response))
        except httpx.HTTPError as error:
            return Fault(
                HttpError(f"{self._shown(url)}: {reason_of(error)}", response.status_code), worth_another(error)
            )
        finally:
            if not kept:
                response.close()

    def _refused(self, response: httpx.Response) -> HttpError:
        body = self._hidden(excerpt(self._whole(response).decode("utf-8", "replace")))
        quoted = f": {body}" if body else ""
        advice = ""
        if response.status_code == 401:
            advice = (
                "; check the token"
                if isinstance(self._credentials, Fixed)
                else "; check the user name and the password"
            )
        elif response.is_redirect:
            advice = f" to {self._shown(httpx.URL(response.headers.get('location', '')))}; check the address"
        shown = self._shown(response.url)
        return HttpError(
            f"{shown}: {response.status_code} {response.reason_phrase}{advice}{quoted}", response.status_code, body
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


class _Renewed(Exception):
    """The credentials were renewed: the request is worth another try at once."""
