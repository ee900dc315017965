"""Heights that become levels: of a profile, each height of a variable is a quantity of its own.

Belongs here: how a block says where heights stand, and which variables follow from them. Does not belong here: reading
the heights of netCDF files (netcdf_files.py) and of rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from ionbeam_client.cf import UnitError, conversion
from ionbeam_dagster.settings import Settings

if TYPE_CHECKING:
    from ionbeam_dagster.sources.files.config import FileVariable

MOST_HEIGHTS = 100
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
        return {"column": level}


def raised(stated: FileVariable, known: Mapping[str, Sequence[float]]) -> list[FileVariable]:
    """The variables that one of the block stands for: one a height, where its level is a column of heights. `known`
    are the heights that a file tells, in m, by column. Raises ValueError where none are known, or very many."""
    if not isinstance(stated.level, Heights):
        return [stated]
    where, heights = stated.level, [*(stated.level.heights or known.get(stated.level.column, ()))]
    example = f"level: {{column: {where.column}, heights: [2, 10, 50]}}, in m"
    if not heights:
        raise ValueError(f"state which heights in {where.column!r} are read: {example}")
    if len(heights) > MOST_HEIGHTS:
        raise ValueError(f"has {len(heights):,} heights in {where.column!r}; state which of them are read: {example}")
    return [
        stated.model_copy(
            update={"column": f"{stated.column}@{height:g}m", "read_from": stated.stands_in, "level": height}
        )
        for height in heights
    ]
