"""What can go wrong between a station's program and its servers, by name.

Belongs here: every exception that leaves ionbeam_client.influx. Does not belong here: when they are raised.
"""

from __future__ import annotations

from ionbeam_client.errors import DataError, IonbeamError


class InfluxError(IonbeamError):
    """The root of this package's errors."""


class ConfigurationError(InfluxError, ValueError):
    """The INI file, or a keyword, is not what it should be; the message names file, key and remedy."""


class RecordError(InfluxError, DataError):
    """A record cannot become rows; nothing of it was logged."""


class LogError(InfluxError, OSError):
    """The log cannot be written or read; nothing of the record was logged."""


class FileError(InfluxError):
    """A file that is replayed or verified is not what its name says, or breaks off; its rows before that were taken."""


class NotDeliveredError(InfluxError, TimeoutError):
    """The rows are in the log, but not yet on every server; they will be sent."""


class RefusedRowsError(InfluxError):
    """A server refused rows; `refusals` has the reason of each, and the file of refused rows has the rows."""

    def __init__(self, message: str, refusals: list[str]) -> None:
        super().__init__(message)
        self.refusals = refusals
