"""What can go wrong with a request, by name.

Belongs here: the kinds, all below `RestBaseException`. Does not belong here: when they are raised. None of their
messages has a password or a token in it.
"""

from __future__ import annotations

import requests


class RestBaseException(Exception):
    """The root of this package's faults of requests."""


class RestHttpBaseException(RestBaseException):
    """A request failed. `response` is the answer (`requests.Response`) and `content` its bytes, where there was one."""

    response: requests.Response | None = None
    content: bytes | None = None

    def __init__(self, *args: object, **attributes: object) -> None:
        super().__init__(*args)
        for name, value in attributes.items():
            setattr(self, name, value)


class HttpClientError(RestHttpBaseException):
    """The service refused the request (3xx or 4xx): it would refuse the same request again."""


class HttpNotFoundError(HttpClientError):
    """There is no such thing, or not for this user (404)."""


class HttpServerError(RestHttpBaseException):
    """The service failed (5xx): the same request may be taken later."""


class HttpConnectionError(RestHttpBaseException, requests.exceptions.ConnectionError):
    """The service could not be reached, or its answer broke off: whether it took the request is not known."""


class HttpTimeoutError(HttpConnectionError, requests.exceptions.Timeout):
    """The service did not answer in time: whether it took the request is not known."""


class HttpCouldNotVerifyServerError(RestHttpBaseException):
    """No safe connection: the server's certificate is not trusted, or is another's. Nothing was sent."""


class ImproperlyConfigured(RestBaseException):
    """An address or a token that cannot be one."""
