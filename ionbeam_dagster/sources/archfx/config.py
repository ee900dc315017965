"""The block of the source `archfx`: who asks, for which streams, and what their variables are.

Belongs here: its keys. Does not belong here: requests (source.py).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug, ArchFxParentSlug, ArchFxStreamSlug, ArchFxVariableID
from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.sources import SourceConfig
from ionbeam_dagster.sources.declared import DeclaredStation, DeclaredVariable, Latitude, Longitude
from ionbeam_dagster.sources.http.settings import Concurrency, Retries, Timeout

SERVICE = "https://arch.archfx.io"


def _slug(kind: Callable[[str], object]) -> AfterValidator:
    """Any form of an id becomes the one that the service writes."""
    return AfterValidator(lambda given: str(kind(given)))


def _station(given: str) -> object:
    return (ArchFxParentSlug if given.startswith("p") else ArchFxDeviceSlug)(given)


class ArchFxVariable(DeclaredVariable):
    """One variable that is pulled."""

    variable: Annotated[str, _slug(ArchFxVariableID)] = Field(
        description="The variable's id, the last part of a stream's.", examples=["0000-5001"]
    )


class ArchFxConfig(SourceConfig):
    """ArchFX Cloud: who asks, for which streams, and what their variables are."""

    base_url: str = Field(default=SERVICE, pattern="^https?://", description="Address of the service.")
    email: str = Field(default="", description="The account, with `password`.", examples=["somebody@example.org"])
    password: SecretStr = Field(default=SecretStr(""), description="Its password.", examples=["${ARCHFX_PASSWORD}"])
    token: SecretStr = Field(
        default=SecretStr(""), description="A token, instead of an account.", examples=["${ARCHFX_TOKEN}"]
    )
    token_type: Literal["jwt", "token"] = Field(
        default="token", description="Kind of that token: token does not expire, jwt soon does."
    )
    streams: tuple[Annotated[str, _slug(ArchFxStreamSlug)], ...] = Field(
        default=(),
        description="Streams that are pulled; without it those that `filter` finds.",
        examples=[["sl--0000-0001--0000-0000-0000-0007--0000-5001"]],
    )
    filter: dict[str, str] = Field(
        default={},
        description="What the service's list of streams is asked by; without it all that the account may see.",
        examples=[{"line": "pl--0000-0001"}],
    )
    variables: tuple[ArchFxVariable, ...] = Field(
        min_length=1,
        description="What is measured; streams of other variables are left out, and told.",
        examples=[[{"variable": "0000-5001", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}]],
    )
    stations: dict[Annotated[str, _slug(_station)], DeclaredStation] = Field(
        default={},
        description="Places of devices, or of sites, areas and lines that have streams of their own, by their ids.",
        examples=[{"d--0000-0000-0000-0007": {"latitude": 52.1, "longitude": 5.2, "altitude": 12.0}}],
    )
    latitude: Latitude | None = Field(
        default=None, description="Degrees north of what is not among `stations`.", examples=[52.1]
    )
    longitude: Longitude | None = Field(
        default=None, description="Degrees east of what is not among `stations`.", examples=[5.2]
    )
    page_size: int = Field(default=1000, ge=1, description="Readings that are asked for at once.")
    timeout_seconds: Timeout = 60
    concurrency: Concurrency = 4
    max_retries: Retries = 4
    collect_again_after: tuple[NonNegativeDuration, ...] = Field(
        default=(timedelta(hours=3), timedelta(days=1)),
        description="How long after a window could first be collected it is collected again for late reports.",
    )

    @model_validator(mode="after")
    def _is_told_apart(self) -> Self:
        for key, these in (
            ("variable", [one.variable for one in self.variables]),
            ("quantity", [one.canonical.column for one in self.variables]),
        ):
            if twice := sorted({one for one in these if these.count(one) > 1}):
                raise ValueError(f"variables: the {key} {', '.join(twice)} is given twice; keep one of them")
        if self.streams and self.filter:
            raise ValueError("streams and filter both say which streams are pulled; keep one of them")
        return self
