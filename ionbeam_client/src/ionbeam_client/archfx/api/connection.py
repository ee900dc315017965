"""The connection to a service: log-in, tokens, and requests to any of its resources.

Belongs here: everything that makes requests. Does not belong here: what single resources mean; the service says that.

A request is made in `_Session.attempt`, which gives the answer or the fault instead of raising it: so that no traceback
of a fault has a frame in which a password or a token is a local variable.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import Retry

from ionbeam_client.archfx.api.exceptions import (
    HttpClientError,
    HttpConnectionError,
    HttpCouldNotVerifyServerError,
    HttpNotFoundError,
    HttpServerError,
    HttpTimeoutError,
    ImproperlyConfigured,
    RestBaseException,
)
from ionbeam_client.archfx.reports.exceptions import DataError

DOMAIN_NAME = "https://arch.archfx.io"
API_PREFIX = "api/v1"
DEFAULT_TOKEN_TYPE = "jwt"  # noqa: S105 (a word of the protocol)
_WORD = re.compile(r"[!#-\[\]-~]+")  # printable, and written in JSON and in a header as it is
_LONGEST_REASON = 500  # characters of a refusal's text that are told

OpenedFile: TypeAlias = IO[bytes] | tuple[str, IO[bytes] | bytes]

_log = logging.getLogger(__name__)


class _Token(AuthBase):
    """The header of a token, where there is one. Without this, requests would look for a password in `~/.netrc`."""

    def __init__(self) -> None:
        self.header = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.header:
            request.headers["Authorization"] = self.header
        return request


class _Session(requests.Session):
    """Connections that are kept, and the token that goes with every request."""

    def __init__(self, verify: bool | str, timeout: float | None, retries: int | Retry | None) -> None:
        super().__init__()
        self.verify = verify
        self.auth = self.token = _Token()
        self.timeout = timeout
        if retries is not None:
            self.mount("https://", HTTPAdapter(max_retries=retries))
            self.mount("http://", HTTPAdapter(max_retries=retries))

    def attempt(
        self, method: str, url: str, content: object = None, **given: Any
    ) -> requests.Response | RestBaseException | DataError:
        """The answer, whatever its status, or the fault. `content` is sent as JSON."""
        if content is not None:
            try:
                given |= {"data": json.dumps(content, allow_nan=False), "headers": {"Content-Type": "application/json"}}
            except (TypeError, ValueError, RecursionError) as error:
                return DataError(f"what is to be sent to {url} cannot be JSON: {error}")
        given["verify"] = self.verify  # by itself, requests prefers what the environment says
        given["allow_redirects"] = method == "GET"  # any other would become a GET, or change something elsewhere
        try:
            return self.request(method, url, timeout=self.timeout, **given)
        except requests.exceptions.SSLError as error:
            return HttpCouldNotVerifyServerError(f"Could not verify the server's certificate: {error}")
        except requests.exceptions.Timeout as error:
            return HttpTimeoutError(f"{method} {url}: {error}")
        except requests.exceptions.RequestException as error:
            return HttpConnectionError(f"{method} {url}: {error}")


def _json(answer: requests.Response) -> Any:
    """What the answer says; None for none, and bytes that are no JSON as they are."""
    if answer.status_code in (204, 205):
        return None
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return answer.content


def _reason(answer: requests.Response, token: str | None) -> str:
    """The beginning of a refusal's text, without the token in case that it repeats what was sent."""
    if 300 <= answer.status_code <= 399:
        return f"it is at {answer.headers.get('Location', 'another address')}: give that as the domain"
    text = " ".join(answer.content.decode(errors="replace").split())
    return (text.replace(token, "***") if token else text)[:_LONGEST_REASON]


def _path(name: object) -> str:
    """A resource's name, an id or a path of these, as part of an address."""
    text = str(name).strip("/")
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise DataError(f"{name!r} names no resource")
    return quote(text, safe="/:@")


class RestResource:
    """A resource, one of its things, or an action: `api.machine("d--...").devices`. Any name is part of its address.

    Arguments by keyword are parameters of the address. Answers are what their JSON says; bytes where it is no JSON,
    None where there is no content (204).

    Raises (all requests):
        HttpClientError, HttpNotFoundError: refused. HttpServerError: failed at the service.
        HttpConnectionError, HttpTimeoutError: no answer. HttpCouldNotVerifyServerError: no safe connection.
        DataError: what was to be sent cannot be JSON, or an id is none; nothing was sent.
    """

    def __init__(self, session: _Session, base_url: str) -> None:
        self._session = session
        self._base_url = base_url

    def __call__(self, id: object = None) -> RestResource:
        """The thing of this id (a number, text or a slug); without one, the resource itself."""
        return self if id is None else type(self)(self._session, f"{self._base_url}{_path(id)}/")

    def __getattr__(self, item: str) -> RestResource:
        if item.startswith("_"):
            raise AttributeError(item)
        return self(item)

    def __repr__(self) -> str:
        return f"<RestResource {self._base_url}>"

    def url(self) -> str:
        """Its address, which ends in `/`."""
        return self._base_url

    def get(self, **kwargs: Any) -> Any:
        return self._ask("GET", kwargs)

    def post(self, data: object = None, **kwargs: Any) -> Any:
        return self._ask("POST", kwargs, content=data)

    def patch(self, data: object = None, **kwargs: Any) -> Any:
        return self._ask("PATCH", kwargs, content=data)

    def put(self, data: object = None, **kwargs: Any) -> Any:
        return self._ask("PUT", kwargs, content=data)

    def delete(self, data: object = None, **kwargs: Any) -> bool:
        """Whether it was deleted. The reason why not is logged."""
        try:
            self._ask("DELETE", kwargs, content=data)
        except (HttpClientError, HttpServerError) as error:
            _log.error("Not deleted: %s", error)
            return False
        return True

    def each(self, **kwargs: Any) -> Iterator[Any]:
        """The things of all pages, asked for page by page.

        After an error the next `next()` asks for the same page again: nothing is lost or comes twice, as long as the
        service's pages stay what they were.
        """
        return _Pages(self, kwargs)

    def upload_fp(self, fp: OpenedFile, data: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Post a file, opened for bytes, or its name with its bytes; `data` are more fields of the form."""
        if isinstance(fp, str):
            raise DataError(f"{fp!r} is no opened file; upload_file() opens it")
        return self._ask("POST", kwargs, files={"file": fp}, data=data)

    def upload_file(self, filename: str, data: dict[str, Any] | None = None, mode: str = "rb", **kwargs: Any) -> Any:
        """Post a file from disk."""
        with Path(filename).open(mode) as opened:
            return self.upload_fp(opened, data, **kwargs)

    def _ask(self, method: str, parameters: Any, **given: Any) -> Any:
        answer = self._session.attempt(method, self._base_url, params=parameters, **given)
        if not isinstance(answer, requests.Response):
            raise answer
        status = answer.status_code
        if 200 <= status <= 299:
            return _json(answer)
        reason = _reason(answer, self._session.token.header.rpartition(" ")[2])
        whose, kind = ("Server", HttpServerError) if status >= 500 else ("Client", HttpClientError)
        raise (HttpNotFoundError if status == 404 else kind)(
            f"{whose} Error {status}: {method} {self._base_url} ({reason})", response=answer, content=answer.content
        )


class _Pages(Iterator[Any]):
    """Of the address of the next page only the parameters are used: behind a proxy it may name another host or scheme,
    and a token must not go there."""

    def __init__(self, resource: RestResource, parameters: dict[str, Any]) -> None:
        given = {name: value for name, value in parameters.items() if value is not None}
        self._resource = resource
        self._next: list[tuple[str, str]] | None = parse_qsl(urlencode(given, doseq=True), keep_blank_values=True)
        self._asked: set[tuple[tuple[str, str], ...]] = set()
        self._things: Iterator[Any] = iter(())

    def __next__(self) -> Any:
        while True:
            for thing in self._things:
                return thing
            if self._next is None:
                raise StopIteration
            self._turn(self._next)

    def _turn(self, parameters: list[tuple[str, str]]) -> None:
        if tuple(parameters) in self._asked:
            raise RestBaseException(f"The next page of {self._resource.url()} is one that came before: {parameters}")
        page = self._resource._ask("GET", parameters)
        if isinstance(page, list):
            page = {"results": page}
        if not isinstance(page, dict) or not isinstance(page.get("results"), list):
            raise RestBaseException(
                f"{self._resource.url()} did not answer with pages, which have 'results' and 'next'"
            )
        self._asked.add(tuple(parameters))
        following = page.get("next")
        self._next = parse_qsl(urlsplit(following).query, keep_blank_values=True) if following else None
        self._things = iter(page["results"])


class Api:
    """A service, and who is logged in there. `api.org`, `api("streamer/report")` and so on are its resources.

    Args:
        domain: where it is, such as `https://arch.archfx.io`.
        token_type: the word before the token: `jwt`, or `token` for tokens that do not expire.
        verify: of the server's certificate: the file of authorities to trust, or False for none, which is not safe.
        timeout: seconds to wait for a connection, and for each part of an answer; None: for ever.
        retries: how often a connection that fails is tried again.

    Raises:
        ImproperlyConfigured: `domain` is no address of a service.
    """

    def __init__(
        self,
        domain: str | None = None,
        token_type: str | None = None,
        verify: bool | str = True,
        timeout: float | None = 60.0,
        retries: int | Retry | None = None,
    ) -> None:
        self.domain = (domain or DOMAIN_NAME).rstrip("/")
        address = urlsplit(self.domain)
        if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc:
            raise ImproperlyConfigured("A domain begins with https://, and has no user or password in it")
        if address.scheme == "http" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
            _log.warning("%s is not encrypted: passwords and tokens can be read on the way", self.domain)
        self.base_url = f"{self.domain}/{API_PREFIX}"
        self.token_type = token_type or DEFAULT_TOKEN_TYPE
        self.session = _Session(verify, timeout, retries)
        self.token: str | None = None
        self.refresh_token_data: str | None = None
        self.username: str | None = None

    def __repr__(self) -> str:
        return f"<Api {self.base_url}>"

    def __call__(self, id: object) -> RestResource:
        return RestResource(self.session, self.url(id))

    def __getattr__(self, item: str) -> RestResource:
        if item.startswith("_"):
            raise AttributeError(item)
        return self(item)

    def url(self, section: object) -> str:
        """The address of a resource."""
        return f"{self.base_url}/{_path(section)}/"

    def login(self, password: str, email: str) -> bool:
        """Whether the service knows this user; it then gave a token, which goes with all requests. Why not is logged.

        Raises HttpConnectionError, HttpTimeoutError or HttpCouldNotVerifyServerError where it could not be asked.
        """
        known = {"email": email, "password": password}
        answer = self.session.attempt("POST", self.url("auth/login"), known, auth=_Token())
        del password, known
        if not isinstance(answer, requests.Response):
            raise answer
        content = _json(answer)
        if answer.status_code != 200 or not isinstance(content, dict):
            _log.error("Login failed: status %s, whose text may repeat the password", answer.status_code)
            return False
        jwt = content.get("jwt")
        if jwt and not self._use(jwt, content.get("jwt_refresh_token"), DEFAULT_TOKEN_TYPE):
            _log.error("Login failed: what the service gave is no token")
            return False
        self.username = content.get("username")
        return True

    def logout(self) -> None:
        """Tell the service, and forget the tokens. Where it does not agree, that is logged, and they stay."""
        answer = self.session.attempt("POST", self.url("auth/logout"), {})
        if not isinstance(answer, requests.Response):
            raise answer
        if 200 <= answer.status_code <= 299:
            self._forget()
        else:
            _log.error("Logout failed: %s %s", answer.status_code, _reason(answer, self.token))

    def set_token(self, token: str | dict[str, str | None], token_type: str | None = None) -> None:
        """Use a token from elsewhere: text, or a dictionary with `token`, or with `access` and perhaps `refresh`.

        Raises ImproperlyConfigured where it is none.
        """
        given = token if isinstance(token, dict) else {"token": token}
        used = self._use(given.get("token") or given.get("access"), given.get("refresh"), token_type)
        del token, given
        if not used:
            raise ImproperlyConfigured("Invalid token: it has to be one word of ASCII characters without quotes")

    def refresh_token(self) -> bool:
        """Whether the service gave a new token for an old one (JWT). Tokens that it refuses are forgotten; where it
        only failed, they stay, and this may be tried again. Why not is logged."""
        if self.token_type != DEFAULT_TOKEN_TYPE:
            raise ImproperlyConfigured(f"Tokens of the type {self.token_type} are not refreshed")
        known = {"refresh": self.refresh_token_data} if self.refresh_token_data else {"token": self.token}
        answer = self.session.attempt("POST", self.url("auth/api-jwt-refresh"), known, auth=_Token())
        del known
        if not isinstance(answer, requests.Response):
            raise answer
        content = _json(answer)
        if answer.status_code == 200 and isinstance(content, dict):
            refresh = content.get("refresh") or self.refresh_token_data
            if self._use(content.get("token") or content.get("access"), refresh):
                return True
        _log.error("Token refresh failed: status %s, whose text may repeat the token", answer.status_code)
        if 400 <= answer.status_code <= 499:
            self._forget()
        return False

    def _use(self, token: object, refresh: str | None, token_type: str | None = None) -> bool:
        """Whether this can be a token; it then goes with all requests."""
        word = token.strip() if isinstance(token, str) else ""
        if not _WORD.fullmatch(word):
            return False
        self.token, self.refresh_token_data = word, refresh
        self.token_type = token_type or self.token_type
        self.session.token.header = f"{self.token_type} {word}"
        return True

    def _forget(self) -> None:
        self.token = self.refresh_token_data = self.username = None
        self.session.token.header = ""
        self.session.cookies.clear()
