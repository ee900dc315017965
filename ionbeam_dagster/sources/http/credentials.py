"""What goes into the ``Authorization`` header: a password, or a token that is renewed.

Does not belong here: to which hosts it goes (wire.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from ionbeam_dagster.errors import SourceError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """What a login gave; `lifetime` in seconds, where the service tells it."""

    access: str
    refresh: str | None = None
    lifetime: float | None = None

    def __repr__(self) -> str:
        return "Token(...)"


class Credentials(Protocol):
    """What goes into the ``Authorization`` header, and how it is renewed when the service refuses it.

    `client` is the `HttpClient` that asks; it is above this module.
    """

    def header(self, client: Any) -> str:
        """The header's value; may log in."""

    def renew(self, client: Any, refused: str) -> bool:
        """The service refused `refused`: get another, and say whether it is worth another try."""

    def secrets(self) -> list[str]:
        """Texts that no log and no error may show."""


class Basic:
    """A user name and a password with every request."""

    def __init__(self, username: str, password: str) -> None:
        self._value = httpx.BasicAuth(username, password)._auth_header
        self._password = password

    def header(self, client: Any) -> str:
        return self._value

    def renew(self, client: Any, refused: str) -> bool:
        return False

    def secrets(self) -> list[str]:
        return [self._password, self._value.split()[-1]]


class Fixed:
    """A token that was given once and for all, after the word that the service wants before it."""

    def __init__(self, token: str, scheme: str = "Bearer") -> None:
        self._value = f"{scheme} {token}"
        self._token = token

    def header(self, client: Any) -> str:
        return self._value

    def renew(self, client: Any, refused: str) -> bool:
        return False

    def secrets(self) -> list[str]:
        return [self._token]


class Bearer:
    """A token that `login` gets and `refresh`, where the service has it, renews; `scheme` is the word before it.

    Both are given the client, and ask with ``authorized=False``. A token that the service refuses, or whose lifetime is
    over, is renewed once, by whichever thread meets it first; a refresh that fails is followed by a login.
    """

    def __init__(
        self,
        login: Callable[[Any], Token],
        refresh: Callable[[Any, str], Token] | None = None,
        secrets: Sequence[str] = (),
        scheme: str = "Bearer",
    ) -> None:
        self._login = login
        self._scheme = scheme
        self._refresh = refresh
        self._secrets = list(secrets)
        self._lock = threading.RLock()
        self._token: Token | None = None
        self._until = float("inf")

    def header(self, client: Any) -> str:
        with self._lock:
            if self._token is None or time.monotonic() > self._until:
                self._keep(self._renewed(client))
            assert self._token is not None
            return self._value(self._token)

    def renew(self, client: Any, refused: str) -> bool:
        with self._lock:
            if self._token is not None and self._value(self._token) == refused:
                self._keep(self._renewed(client))
        return True

    def secrets(self) -> list[str]:
        return self._secrets

    def _value(self, token: Token) -> str:
        return f"{self._scheme} {token.access}"

    def _renewed(self, client: Any) -> Token:
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
