"""A station's logger for InfluxDB that loses nothing: a log on disk that is the queue of every server.

Belongs here: the names that users import. Does not belong here: code. The names are loaded when they are first used, so
that a program that only bins or parses times loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ionbeam_client.influx.client import (
        ASYNCHRONOUS,
        BATCHING,
        SYNCHRONOUS,
        EHTInfluxDBClient,
        PointSettings,
        Receipt,
        WriteApi,
        WriteOptions,
    )
    from ionbeam_client.influx.config import Config, read_config_file
    from ionbeam_client.influx.errors import (
        ConfigurationError,
        InfluxError,
        LogError,
        NotDeliveredError,
        RecordError,
        RefusedRowsError,
    )
    from ionbeam_client.influx.timebin import TimeBin

__all__ = [
    "ASYNCHRONOUS",
    "BATCHING",
    "SYNCHRONOUS",
    "Config",
    "ConfigurationError",
    "EHTInfluxDBClient",
    "InfluxError",
    "LogError",
    "NotDeliveredError",
    "PointSettings",
    "Receipt",
    "RecordError",
    "RefusedRowsError",
    "TimeBin",
    "WriteApi",
    "WriteOptions",
    "read_config_file",
]

_HOMES = {
    "client": (
        "ASYNCHRONOUS", "BATCHING", "SYNCHRONOUS", "EHTInfluxDBClient", "PointSettings", "Receipt", "WriteApi",
        "WriteOptions",
    ),
    "config": ("Config", "read_config_file"),
    "errors": (
        "ConfigurationError", "InfluxError", "LogError", "NotDeliveredError", "RecordError", "RefusedRowsError",
    ),
    "timebin": ("TimeBin",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'ionbeam-client[influx]'") from error
