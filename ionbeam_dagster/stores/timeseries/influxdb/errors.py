"""What goes wrong with InfluxDB.

Belongs here: `InfluxError` and what the store tells apart. Does not belong here: the errors of other stores.
"""

from __future__ import annotations

from ionbeam_dagster.errors import StoreError


class InfluxError(StoreError):
    """InfluxDB cannot be used, or refuses; the message names the server, the reason and what to do."""


class RefusedError(InfluxError):
    """The server understood a request and will not do it."""
