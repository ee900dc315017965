"""Heights that become levels: of a profile, each height of a variable is a quantity of its own.

Belongs here: how a block says where heights stand, and what a height is. Does not belong here: reading the heights of
netCDF files (netcdf_files.py) and of rows (rows.py), and the variables that follow (describing.py).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from ionbeam_client.cf import UnitError, conversion
from ionbeam_dagster.settings import Settings

SAME_HEIGHT = 0.0005
"""In m: what two heights may differ by and be one."""


def _of_a_length(unit: str) -> str:
    metres(unit)
    return unit


def metres(unit: str) -> tuple[float, float]:
    """Scale and offset from a unit of heights to m. Raises ValueError."""
    try:
        return conversion(unit, "m")
    except UnitError as error:
        raise ValueError(f"{unit!r} is no unit of a length ({error}); levels are heights above the ground") from error


class Heights(Settings):
    """Where the heights of a profile stand, each of which is a level of its own."""

    column: str = Field(description="Column of the heights, or netCDF coordinate.", examples=["z"])
    unit: Annotated[str, AfterValidator(_of_a_length)] | None = Field(
        default=None, description="Their unit; without it what the file declares, else m.", examples=["ft"]
    )
    heights: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(
        default=(),
        description="Heights that are read, in m above the ground (below it: negative); without it all of a netCDF "
        "file. Others are left out.",
        examples=[[2, 10, 50]],
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.heights)) < len(self.heights):
            raise ValueError(f"heights: {', '.join(f'{one:g}' for one in self.heights)} has one of them twice; keep it")
        return self


def column_of_heights(level: Any) -> Any:
    """A level as the block has it; a text that is no number is the column of heights."""
    if not isinstance(level, str):
        return level
    try:
        return float(level)
    except ValueError:
        if in_a_unit := re.fullmatch(r"\s*([+-]?\d+(?:\.\d+)?)\s*(m|metres?|meters?)\s*", level):
            raise ValueError(f"{level!r} is a number with its unit; levels are in m: write {in_a_unit[1]}") from None
        return {"column": level}
