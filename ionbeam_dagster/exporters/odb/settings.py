"""What the configuration says of ODB files: which variables become which varnos, and the codes in every row.

Belongs here: the keys of ``projections.odb_service``, and what of them is refused. Does not belong here: what is
written where the configuration says nothing (tables.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from ionbeam_client.models import NamePart, Period
from ionbeam_dagster.exporters.odb.tables import PERIOD_OF_RAIN, PRESETS, RAIN, REPORT_TYPES, VARNOS
from ionbeam_dagster.exporters.settings import CycleSettings
from ionbeam_dagster.settings import Settings


def _writable_varno(number: int) -> int:
    if number == PERIOD_OF_RAIN:
        raise ValueError(f"varno {PERIOD_OF_RAIN} is written by itself with {RAIN}, whose period it tells")
    if number not in VARNOS:
        known = ", ".join(f"{varno.number} {varno.name}" for varno in VARNOS.values())
        raise ValueError(f"varno {number} has no known unit; choose from {known}")
    return number


class _Strict(Settings):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)


class MappedFrom(_Strict):
    """A canonical variable by everything but its unit: any unit that can be converted to the varno's will do."""

    standard_name: NamePart = Field(description="CF's name of the quantity.", examples=["air_temperature"])
    level: float = Field(allow_inf_nan=False, description="Height above the ground in m.", examples=[2.0])
    method: NamePart = Field(description="CF's cell method.", examples=["point"])
    period: Period = Field(description="Time that the method is over.", examples=["PT0S"])


class VariableMapping(_Strict):
    """The variables that become `varno`; of several in one dataset, the first in the list. None: it is not written."""

    varno: Annotated[int, AfterValidator(_writable_varno)] = Field(
        description="ECMWF's number of the variable (docs/tables.md).", examples=[39]
    )
    mapped_from: list[MappedFrom] = Field(
        description="Variables of a dataset, of which the first that it has is written; none: it is not written.",
        examples=[[{"standard_name": "air_temperature", "level": 2.0, "method": "point", "period": "PT0S"}]],
    )


class OdbCodes(_Strict):
    """The codes that stand in every row: MARS's (`class`, `type`, `stream`, `expver`) and those of the kind of report.

    `preset` gives the codes of the kind of report, which each may be changed: ``ecmwf_crowd`` (the default), ``synop``
    (automatic land stations) or ``dwd`` (DWD's code of citizens' weather stations). A crowd station must not come in as
    an automatic SYNOP, which assimilation takes by default. `stream` is the one
    whose analyses are six hours apart, as `andate` and `antime` are. `type` is an observation without feedback.
    """

    preset: Literal["ecmwf_crowd", "synop", "dwd"] = Field(
        default="ecmwf_crowd", description="Codes of the kind of report, of which each may be changed below."
    )
    class_: int = Field(default=2, alias="class", description="MARS class.")
    stream: int = Field(default=1025, description="MARS stream; its analyses are six hours apart.")
    type: int = Field(default=264, description="MARS type: an observation without feedback.")
    expver: str = Field(default="xxxx", pattern=r"^[0-9A-Za-z]{4}$", description="MARS experiment version.")
    reportype: int = Field(default=16090, description="Kind of report.")
    groupid: int = Field(default=17, description="Group of the kind of report.")
    obstype: int = Field(default=1, description="Type of observation.")
    codetype: int = Field(default=179, description="Code of the type of observation.")

    @model_validator(mode="before")
    @classmethod
    def _of_the_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return PRESETS.get(str(given.get("preset", "ecmwf_crowd")), {}) | given

    @model_validator(mode="after")
    def _codes_agree(self) -> Self:
        kind = REPORT_TYPES.get(self.reportype)
        if kind is None:
            return self
        right = {"groupid": (kind.groupid,), "obstype": (kind.obstype,), "codetype": kind.codetypes}
        for code, allowed in right.items():
            if getattr(self, code) not in allowed:
                raise ValueError(
                    f"reportype {self.reportype} ({kind.meaning}) goes with {code} {' or '.join(map(str, allowed))}, "
                    f"not {getattr(self, code)}"
                )
        return self


class OdbSettings(CycleSettings):
    """The ODB-2 exports: odb, and odb_cycle for analysis cycles."""

    variable_map: list[VariableMapping] = Field(
        default=[],
        description="Variables that become other varnos than by default (docs/odb.md).",
    )
    codes: OdbCodes = Field(default=OdbCodes(), description="The codes that stand in every row.")
