"""What a block of the YAML declares of its observations, where what comes has neither names of CF nor a place.

Belongs here: the variables and stations of such blocks. Does not belong here: where a variable stands in what comes
(each source).
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from ionbeam_client.cf import UnitError, conversion
from ionbeam_client.models import CanonicalVariable, Definition, NamePart, Period
from ionbeam_dagster.settings import Settings

ALTITUDE = "altitude"

Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=360)]


class DeclaredVariable(Settings):
    """A quantity that is measured. Values are converted from `unit` to `cf_unit`."""

    standard_name: NamePart = Field(
        description="CF's name of the quantity; x_... for what CF has no name for.", examples=["air_temperature"]
    )
    definition: Definition = Field(
        default="",
        description="What is measured, in a sentence; for what CF has no name for.",
        examples=["Load of the spindle, as a share of its rated power"],
    )
    unit: str | None = Field(default=None, description="Unit in what comes; without it cf_unit.", examples=["degF"])
    cf_unit: NamePart = Field(description="Unit in the dataset.", examples=["degC"])
    level: float = Field(default=0.0, allow_inf_nan=False, description="Height above the ground in m.", examples=[2.0])
    method: NamePart = Field(default="point", description="CF's cell method.", examples=["mean"])
    period: Period = Field(
        default="PT0S",
        description="Time that the method is over, which ends at the observation's time.",
        examples=["PT10M"],
    )

    @cached_property
    def canonical(self) -> CanonicalVariable:
        """The variable, whose raw column has its canonical name."""
        one = CanonicalVariable(
            column="x", standard_name=self.standard_name, cf_unit=self.cf_unit, level=self.level, method=self.method,
            period=self.period, definition=self.definition,
        )  # fmt: skip
        return one.model_copy(update={"column": one.to_canonical_name()})

    @property
    def factors(self) -> tuple[float, float]:
        """(scale, offset) from the unit of what comes to that of the dataset."""
        return (1.0, 0.0) if self.unit in (None, self.cf_unit) else conversion(str(self.unit), self.cf_unit)

    @model_validator(mode="after")
    def _can_be_converted(self) -> Self:
        try:
            _ = self.factors
        except UnitError as error:
            raise ValueError(f"{self.standard_name}: {error}") from error
        return self


class DeclaredStation(Settings):
    """Where a station is, whose observations do not say it."""

    latitude: Latitude = Field(description="Degrees north.", examples=[52.1])
    longitude: Longitude = Field(description="Degrees east.", examples=[5.2])
    altitude: float | None = Field(
        default=None, allow_inf_nan=False, description="Height above the sea in m.", examples=[12.0]
    )
