"""Ionbeam's client library: send observations to a platform, receive its dataset windows, open its datasets.

Belongs here: the names that users import. Does not belong here: code. The names are loaded when they are first used, so
that the platform can import the models without a broker's library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ionbeam_client.client import IonbeamClient, Receipt
    from ionbeam_client.config import IonbeamClientConfig
    from ionbeam_client.errors import DataError, IonbeamError, OutboxFullError
    from ionbeam_client.handlers import BatchStream
    from ionbeam_client.opening import OpenError, OpenWarning, open_dataset, provenance
    from ionbeam_client.sync import SyncIonbeamClient, ingest

__all__ = [
    "BatchStream",
    "DataError",
    "IonbeamClient",
    "IonbeamClientConfig",
    "IonbeamError",
    "OpenError",
    "OpenWarning",
    "OutboxFullError",
    "Receipt",
    "SyncIonbeamClient",
    "ingest",
    "open_dataset",
    "provenance",
]

_HOMES = {
    "BatchStream": "handlers",
    "DataError": "errors",
    "IonbeamClient": "client",
    "IonbeamClientConfig": "config",
    "IonbeamError": "errors",
    "OpenError": "opening",
    "OpenWarning": "opening",
    "OutboxFullError": "errors",
    "Receipt": "client",
    "SyncIonbeamClient": "sync",
    "ingest": "sync",
    "open_dataset": "opening",
    "provenance": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
