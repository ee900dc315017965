"""Units that a code in each row says, as weewx's archive has them.

Belongs here: what a block says of such codes, and which of weewx's codes it contradicts. Does not belong here: the
values of rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ionbeam_client.cf import UnitError, conversion
from ionbeam_dagster.domain.usual_names import told_by
from ionbeam_dagster.domain.written_numbers import same_as_text
from ionbeam_dagster.settings import Settings

WEEWX = "usUnits"
"""weewx's column of unit systems."""
_SYSTEMS = {
    "1": {"degC": "degF", "hPa": "inHg", "m s-1": "mile hour-1", "mm": "inch", "mm h-1": "inch hour-1"},
    "16": {"degC": "degC", "hPa": "hPa", "m s-1": "km h-1", "mm": "cm", "mm h-1": "cm h-1"},
    "17": {"degC": "degC", "hPa": "hPa", "m s-1": "m s-1", "mm": "mm", "mm h-1": "mm h-1"},
}
"""weewx's US, METRIC and METRICWX: their units of what is otherwise in the unit before them."""
_SNOW = "surface_snow_thickness"  # which weewx has in the unit of rain


def _codes_as_text(given: Any) -> Any:
    return {str(same_as_text(code)): unit for code, unit in given.items()} if isinstance(given, dict) else given


class UnitCodes(Settings):
    """A column whose code says the unit of each row."""

    column: str = Field(description="Column of the codes.", examples=[WEEWX])
    units: Annotated[dict[str, str], BeforeValidator(_codes_as_text)] = Field(
        min_length=1,
        description="The unit that each code means; rows of other codes are set aside.",
        examples=[{1: "degF", 16: "degC", 17: "degC"}],
    )


def weewx_units(column: str) -> dict[str, str]:
    """The unit of a column of weewx's archive by its code of unit systems; empty where weewx has no such column, or in
    one unit whatever the code."""
    usual = told_by(column).usual
    if usual is None:
        return {}
    unit = "mm" if usual.standard_name == _SNOW else usual.unit
    return {code: units[unit] for code, units in _SYSTEMS.items() if unit in units}


def contradicted(column: str, unit: str) -> Mapping[str, str]:
    """weewx's codes by which a column is in another unit than `unit`, with that unit."""
    return {code: one for code, one in weewx_units(column).items() if not _is_same(one, unit)}


def _is_same(one: str, other: str) -> bool:
    try:
        scale, offset = conversion(one, other)
    except UnitError:
        return True  # it is no quantity of weewx's
    return abs(scale - 1.0) < 1e-6 and abs(offset) < 1e-6
