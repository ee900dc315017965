"""Sources that the platform's configuration has always known, and that this version does not bring.

Belongs here: the keys of their blocks, so that a configuration with them loads and its misspellings are found. A source
leaves this file for a module of its own when it is written.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr

from ionbeam_dagster.sources import SourceConfig


def _or(address: str) -> AfterValidator:
    """An empty address in the YAML means the service's known one."""
    return AfterValidator(lambda given: given or address)


class MeteoTrackerConfig(SourceConfig):
    base_url: Annotated[str, _or("https://app.meteotracker.com")] = "https://app.meteotracker.com"
    token_endpoint: Annotated[str, _or("/auth/login/api")] = "/auth/login/api"
    refresh_endpoint: Annotated[str, _or("/auth/refreshtoken")] = "/auth/refreshtoken"
    timeout: float = 30
    max_retries: int = 5
    max_queries: int = 100
    username: str = ""
    password: SecretStr = SecretStr("")


class SensorCommunityConfig(SourceConfig):
    base_url: Annotated[str, _or("https://archive.sensor.community")] = "https://archive.sensor.community"
    timeout_seconds: float = 60
    concurrency: int = 5


SPECIFIED_SOURCES: dict[str, type[SourceConfig]] = {
    "meteotracker": MeteoTrackerConfig,
    "sensor_community": SensorCommunityConfig,
}
