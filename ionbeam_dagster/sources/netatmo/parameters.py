"""What E-SOH calls a parameter, ``standard_name:level:method:period``, and what becomes of it.

Belongs here: the parameters of Netatmo's stations, their units, and the ingestion metadata that follow. Does not belong
here: how observations come.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from ionbeam_client.cf import conversion, lookup, suggest_unit
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    Link,
    MetadataVariable,
)
from ionbeam_dagster.sources import Source, SourceConfig

UNITS = {
    "air_temperature": "degC",
    "relative_humidity": "%",
    "surface_air_pressure": "hPa",
    "wind_from_direction": "degree",
    "wind_speed": "m s-1",
    "wind_speed_of_gust": "m s-1",
    "precipitation_amount": "kg m-2",
}
"""The units that Netatmo's observations come in; any other quantity is kept in CF's own unit."""

NETATMO = (
    "air_temperature:2.0:point:PT0S",
    "relative_humidity:2.0:point:PT0S",
    "surface_air_pressure:2.0:point:PT0S",
    "wind_from_direction:2.0:mean:PT5M",
    "wind_speed:2.0:mean:PT5M",
    "wind_speed_of_gust:2.0:mean:PT5M",
    "precipitation_amount:2.0:sum:PT1M",
)
DESCRIBED = ("station_id", "platform_id", "mobility", "station_height", "indoor")


def flag_column(parameter: str) -> str:
    """The raw column with the quality codes of `parameter` (E-SOH: 0 unknown, 1 good, 3 poor)."""
    return f"{parameter}:quality_code"


def declared_unit(standard_name: str) -> str:
    return UNITS.get(standard_name) or lookup(standard_name).units or "1"


def declared_conversion(standard_name: str, unit: str | None) -> tuple[float, float]:
    """Scale and offset from `unit`, as the service spells it, to the declared one; raises UnitError."""
    declared = declared_unit(standard_name)
    if unit is None or unit == declared:
        return 1.0, 0.0
    return conversion(suggest_unit(unit) or unit, declared)


def variable_of(parameter: str, flagged: bool = False) -> CanonicalVariable:
    """The canonical variable of a parameter; raises ValueError when it is not spelled as one."""
    parts = parameter.split(":")
    if len(parts) != 4:
        raise ValueError(
            f"{parameter!r} is not standard_name:level:method:period; right would be, for example, {NETATMO[0]}"
        )
    name, level, method, period = parts
    if str(float(level)) != level:
        raise ValueError(f"{parameter!r}: the level is written {float(level)}")
    return CanonicalVariable(
        column=parameter,
        standard_name=name,
        cf_unit=declared_unit(name),
        level=float(level),
        method=method,
        period=period,
        flag_column=flag_column(parameter) if flagged else None,
    )


def _parameter(text: str) -> str:
    variable_of(text)
    return text


Parameter = Annotated[str, AfterValidator(_parameter)]


class EsohConfig(SourceConfig):
    """The keys that all three ways to Netatmo share."""

    parameters: tuple[Parameter, ...] = Field(
        default=NETATMO, description="Quantities that are kept, each as standard_name:level:method:period."
    )


def metadata(source: Source, config: EsohConfig, flagged: bool) -> IngestionMetadata:
    """How the wide rows of `config`'s parameters are to be read."""
    return IngestionMetadata(
        dataset=source.described(
            "Netatmo's weather stations in Europe, passed on by MET Norway in E-SOH",
            [Link(href="https://github.com/EURODEO/e-soh", title="E-SOH")],
            ["Netatmo", "citizen weather stations", "E-SOH"],
        ),
        ingestion_map=DataIngestionMap(
            canonical_variables=[variable_of(parameter, flagged) for parameter in config.parameters],
            metadata_variables=[MetadataVariable(column=column) for column in DESCRIBED],
        ),
    )
