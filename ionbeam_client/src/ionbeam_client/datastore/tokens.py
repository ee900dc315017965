"""The token that a request carries: given, from a variable, or granted to a client that has an id and a secret.

Belongs here: where it comes from, and how long one that was granted is good. Does not belong here: sending anything.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ionbeam_client.datastore import constants
from ionbeam_client.datastore.errors import APICompatibilityError, AuthError, hide

_GRANTED: dict[tuple[str, ...], tuple[str, float]] = {}
"""Token, and the end of its time, by host, id and secret."""


def known(host: str, given: str | None) -> str | None:
    """The token to use; None where one has to be asked for, with `form`.

    Raises AuthError where there is neither a token nor a client's id and secret.
    """
    token = given or next(filter(None, map(os.environ.get, constants.TOKEN_VARIABLES)), None)
    if token is None:
        granted, until = _GRANTED.get((host, *_client()), ("", 0.0))
        return granted if time.monotonic() < until else None
    token = token.strip()
    if not (token and token.isascii() and token.isprintable()):
        raise AuthError("the token has characters that no HTTP header can have: was it copied whole, and nothing else?")
    return hide(token)


def form() -> dict[str, str]:
    """What to ask for a token with."""
    id, secret = _client()
    return {"client_id": id, "client_secret": hide(secret), "grant_type": "client_credentials"}


def take(host: str, answer: Any) -> str:
    """The token that was granted; it is used again until shortly before its end."""
    try:
        token, seconds = hide(str(answer["access_token"])), float(answer["expires_in"])
    except (KeyError, TypeError, ValueError):
        raise APICompatibilityError(f"{host}{constants.TOKEN_PATH}: the answer grants no token") from None
    _GRANTED[(host, *_client())] = token, time.monotonic() + seconds - constants.TOKEN_MARGIN_SECONDS
    return token


def forget(token: str) -> None:
    """It was refused: the next request asks for another, if it was a granted one."""
    for client in [client for client, (granted, _) in _GRANTED.items() if granted == token]:
        _GRANTED.pop(client, None)


def _client() -> tuple[str, str]:
    id, secret = (os.environ.get(name, "").strip() for name in constants.CLIENT_VARIABLES)
    if not (id and secret):
        raise AuthError(
            f"no token: set {' or '.join(constants.TOKEN_VARIABLES)}, or {' and '.join(constants.CLIENT_VARIABLES)}, "
            "or give auth_token="
        )
    return id, secret
