"""What can go wrong between this client and the service, by name.

Belongs here: every exception of this sub-package that is not Python's own. Does not belong here: when they are raised.
"""

from __future__ import annotations

from ionbeam_client.errors import IonbeamError


class DatastoreError(IonbeamError):
    """The root: the service did not do what was asked of it."""


class AuthError(DatastoreError):
    """The token is missing, unknown (401) or not allowed to do this (403)."""


class APICompatibilityError(DatastoreError):
    """The service has no such resource (404), or its answer does not have the shape that this client knows."""


class APIConcurrencyLimitError(DatastoreError):
    """Too many requests at once (429), or four streams of one endpoint open in one place.

    `retry_after` is the number of seconds after which the service wants to be asked again; None where it did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServiceError(DatastoreError):
    """No good answer: the network, a timeout, a status that is none of the above, or a stream that breaks again and
    again.

    `status` is the HTTP status, None where there was no answer at all; `may_pass` says whether asking again may help.
    """

    def __init__(self, message: str, *, status: int | None = None, may_pass: bool = False,
                 retry_after: float | None = None) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.may_pass = may_pass
        self.retry_after = retry_after
