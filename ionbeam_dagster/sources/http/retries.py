"""Which failures pass, and how long to wait for the next try.

Does not belong here: trying (client.py). No library for retries takes this over: the wait depends on the answer
(``Retry-After`` by the service's own clock, and none that is too long), a body that breaks off counts as well, and
credentials that were renewed are another reason to try.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from ionbeam_client.certificates import certificate_fault
from ionbeam_dagster.domain.times import in_utc
from ionbeam_dagster.sources.http.answers import HttpError

LONGEST_WAIT = 300.0  # seconds: a service that asks for more is not waited for
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, and how long to wait for the next try (0: as we like, None: for ever)."""

    error: HttpError
    wait: float | None

    def after(self, tries: int) -> HttpError:
        """The error to end with after so many tries."""
        if tries == 1:
            return self.error
        return HttpError(f"{self.error} ({tries} tries)", self.error.status, self.error.body)


def wait_asked_for(response: httpx.Response) -> float | None:
    """Seconds until the next try: what the service asks for, 0 when it does not say, None when there is no use."""
    if response.status_code not in _PASSING:
        return None
    asked = response.headers.get("retry-after", "").strip()
    if not asked:
        return 0.0
    try:
        if asked.replace(".", "", 1).isdigit():
            wait = float(asked)
        else:
            wait = (in_utc(parsedate_to_datetime(asked)) - _time_there(response)).total_seconds()
    except ValueError:
        return 0.0
    return wait if wait <= LONGEST_WAIT else None


def _time_there(response: httpx.Response) -> datetime:
    """What time it is by the service's clock, which need not be ours."""
    try:
        return in_utc(parsedate_to_datetime(response.headers["date"]))
    except (KeyError, ValueError):
        return datetime.now(UTC)


def worth_another(error: Exception) -> float | None:
    """0 where another try may do, None where it will not: a certificate stays what it is."""
    if _is_untrusted(error):
        return None
    passing = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return 0.0 if passing else None


def _is_untrusted(error: BaseException | None) -> bool:
    """Whether a certificate that could not be verified is among the causes of an error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason_of(error: Exception) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ReadTimeout() | httpx.WriteTimeout():
            return "no data within the time-out"
        case httpx.RemoteProtocolError():
            return f"the answer broke off ({error})"
        case httpx.ConnectError() if _is_untrusted(error):
            return f"{certificate_fault(error, 'SSL_CERT_FILE of the environment', '')}; nothing was sent"
        case httpx.ConnectError():
            return f"no connection ({error})"
        case httpx.TooManyRedirects():
            return "redirected in circles"
        case httpx.DecodingError():
            return f"the body is not encoded as it claims ({error})"
    return f"{type(error).__name__}: {error}"
