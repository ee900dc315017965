"""What can go wrong between this client and the service, by name.

Belongs here: every exception of this sub-package that is not Python's own. Does not belong here: when they are raised.
"""

from __future__ import annotations

from ionbeam_client.errors import IonbeamError

_SECRETS: set[str] = set()
_SHORTEST_SECRET = 6


def hide(secret: str) -> str:
    """The same text, which no error of this sub-package shows from now on: a service may repeat what it was sent."""
    if len(secret) >= _SHORTEST_SECRET:
        _SECRETS.add(secret)
    return secret


class DatastoreError(IonbeamError):
    """The root: the service did not do what was asked of it.

    `status` is the HTTP status, None where no answer was the reason. `may_pass` says whether asking again may help, and
    `retry_after` after how many seconds, where the service said so.
    """

    def __init__(
        self, message: str, *, status: int | None = None, may_pass: bool = False, retry_after: float | None = None
    ) -> None:
        for secret in sorted(_SECRETS, key=len, reverse=True):  # one may begin like another
            message = message.replace(secret, "***")
        super().__init__(message)
        self.status = status
        self.may_pass = may_pass
        self.retry_after = retry_after


class AuthError(DatastoreError):
    """The token is missing, unknown (401) or not allowed to do this (403); or the service gives none for the client."""


class APICompatibilityError(DatastoreError):
    """The service has no such resource (404), or its answer does not have the shape that this client knows."""


class APIConcurrencyLimitError(DatastoreError):
    """Too many requests at once: the service says so (429), or as many as it allows are open here already."""


class ServiceError(DatastoreError):
    """No good answer: the network, a timeout, any other status, or a stream that breaks again and again."""
