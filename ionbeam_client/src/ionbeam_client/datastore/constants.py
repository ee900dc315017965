"""The words of the Restream service: its paths, its codes for choices, and the limits that this client keeps.

Belongs here: what is fixed by the service or by us, once. Does not belong here: anything that computes.
"""

from __future__ import annotations

from enum import Enum

DEFAULT_HOST = "https://app.restreamsolutions.com"
HOST_VARIABLE = "RESTREAM_HOST"
TOKEN_VARIABLES = ("TALLY_AUTH_TOKEN", "RESTREAM_AUTH_TOKEN")
CLIENT_VARIABLES = ("RESTREAM_CLIENT_ID", "RESTREAM_CLIENT_SECRET")

TOKEN_PATH = "/o/token/"  # noqa: S105 (a path)
TOKEN_MARGIN_SECONDS = 30.0
"""A token is not used in the last seconds of its time."""
API = "/external/thirdparty/v1/"

REQUESTS_AT_ONCE = 3
"""For one endpoint, over all threads and tasks of this process: the service refuses more."""
SECONDS_FOR_A_PLACE = 300.0
"""How long a request waits until one of those before it is through."""

ATTEMPTS = 5
"""Of a request that fails for a reason that may pass; and of a stream that breaks without giving one more item."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
LONGEST_RETRY_AFTER = 300.0
"""Seconds that the service may ask us to wait; if it asks for more, the caller is told instead."""
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 120.0
"""A connection over which no byte comes for so long is taken to be broken."""

STAGES_AT_ONCE = 200
"""Numbers of stages in the address of one request for aggregations: addresses have an end."""


class StageNameFilters(Enum):
    """Kinds of stages."""

    FRAC = "frac"
    WIRELINE = "wl"
    STANDBY = "standby"


class DataResolutions(Enum):
    """The time between two items."""

    SECOND = "raw"
    TEN_SECOND = "ten-second"
    MINUTE = "minute"
    TEN_MINUTE = "ten-minute"
    HOUR = "hour"


class DataAggregations(Enum):
    """What an item of a coarser resolution is made of."""

    MIN = "min"
    MAX = "max"
    MEAN = "mean"


class DataFillMethods(Enum):
    """Where the service takes a value from that is missing."""

    BACKWARD_FILL = "bfill"
    FORWARD_FILL = "ffill"
