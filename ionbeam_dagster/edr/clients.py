"""Who follows the windows: what each client has of each dataset, and what it lacks.

Belongs here: what an operator is shown of them, by the command and in Dagster. Does not belong here: what clients are
told and tell (changes.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ionbeam_client.windows import WindowsError, feed
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.edr.served import kept_in, served
from ionbeam_dagster.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Client:
    """How many windows of a dataset a client has confirmed, and how many are others now, or new, or gone."""

    dataset: str
    name: str
    has: int
    lacks: int
    at: datetime
    """When it confirmed last."""


def clients(config: IonbeamConfig) -> list[Client]:
    """All who have confirmed a window, from where the exports are kept, so that it is the same on every machine.

    Raises ServiceError where that cannot be read.
    """
    found = []
    kept = kept_in(config)
    try:
        for dataset in served(config):
            names = feed.clients_of(*kept, dataset)
            there = feed.versions_in(*kept, dataset) if names else {}
            for one in (feed.confirmed_by(*kept, dataset, name) for name in names):
                lacks = sum(1 for _ in feed.changes(there, one.versions))
                found.append(Client(dataset, one.client, len(one.versions), lacks, one.at))
    except WindowsError as error:
        raise ServiceError(f"who follows the windows cannot be told: {error}") from error
    return found
