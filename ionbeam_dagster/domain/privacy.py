"""What of a dataset others may see: places, names of stations, columns, from when on.

Belongs here: the rules, and what they make of places and names. Does not belong here: where rows leave the platform
(pipeline/shown.py), or the key of pseudonyms (stores/privacy.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, field_validator

from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, STATION
from ionbeam_dagster.domain.forgotten import mark_of
from ionbeam_dagster.domain.geo import MEAN_RADIUS
from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.settings import Settings

Floats = npt.NDArray[np.float64]

BUS = "bus"
"""The door by which clients get datasets over the message broker, beside the formats of exports."""
HARMLESS = frozenset({"mobility", "mobile", "indoor", "sensor_type", *HEIGHT_COLUMNS})
"""The descriptive columns that stay where stations have pseudonyms: none of them names one."""
_NEEDED = ("datetime", "lat", "lon", STATION)
_DIGITS = 16
_DECIMALS = 6  # of degrees: a tenth of a metre


class Privacy(Settings):
    """What others see of a dataset: in exports, on the web, in what clients are sent (docs/security.md)."""

    position: Literal["exact"] | Annotated[float, Field(ge=10, le=100_000)] = Field(
        default="exact",
        description="Where stations are shown: exact, or a number of metres: in the centre of the square of that size "
        "that they lie in.",
        examples=[1000],
    )
    station_id: Literal["as is", "pseudonym"] = Field(
        default="as is",
        description="pseudonym: another id for each station, the same for ever, from which nobody can tell its own; of "
        "descriptive columns those go that may name it.",
    )
    drop: tuple[str, ...] = Field(
        default=(), description="Columns that nobody is shown, by their names in the dataset.", examples=[["author"]]
    )
    drive_ends: float = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Metres around the first and the last place of a station in each window in which its rows are left "
        "out: where drives begin and end.",
        examples=[200],
    )
    delay: NonNegativeDuration = Field(
        default=timedelta(0), description="How long after its end a window is shown at the earliest.", examples=["P1D"]
    )
    exact_in: tuple[str, ...] = Field(
        default=("odb", "odb_cycle"),
        description="Formats of exports to which none of this applies; bus is what clients of the broker are sent.",
        examples=[["odb", "odb_cycle", "bus"]],
    )

    @field_validator("drop")
    @classmethod
    def _can_be_dropped(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if needed := [name for name in given if name in _NEEDED]:
            raise ValueError(f"{', '.join(needed)} cannot be left out; see position and station_id")
        return given

    @property
    def changes_rows(self) -> bool:
        """Whether what is shown is anything else than what there is."""
        return bool(self.position != "exact" or self.station_id != "as is" or self.drop or self.drive_ends)

    def fingerprint(self, key: bytes) -> str:
        """A short hash of what is shown, by which it is known which exports showed something else."""
        rules = self.model_dump(mode="json", exclude={"delay", "exact_in"})
        return sha256(json.dumps([rules, mark_of(key, "fingerprint")], sort_keys=True).encode()).hexdigest()[:12]

    def hidden(self, described: Collection[str]) -> list[str]:
        """Those of the descriptive columns `described` that nobody is shown, without what `drop` names."""
        if self.station_id == "as is":
            return []
        return [name for name in described if name != STATION and name not in HARMLESS]


def in_squares(lat: Floats, lon: Floats, metres: float) -> tuple[Floats, Floats]:
    """The centres of the squares of a grid over the globe that places (degrees) lie in; of one row of squares, all are
    as wide at its middle as they are high."""
    height = np.degrees(metres / MEAN_RADIUS)
    rows = int(np.ceil(180 / height))
    row = np.clip(np.floor((lat + 90) / height), 0, rows - 1)
    middle = np.clip((row + 0.5) * height - 90, -90, 90)
    columns = np.maximum(1, np.floor(360 * np.cos(np.radians(middle)) / height))
    width = 360 / columns
    east = np.mod(lon + 180, 360)
    centre = (np.minimum(np.floor(east / width), columns - 1) + 0.5) * width - 180
    return np.round(middle, _DECIMALS), np.round(centre, _DECIMALS)


def pseudonyms(names: pl.Series, key: bytes, dataset: str) -> pl.Series:
    """For each of `names` a pseudonym of 16 hexadecimal digits, null where there is none; the same for ever."""
    different = names.unique().drop_nulls()
    others = [mark_of(key, "pseudonym", dataset, name)[:_DIGITS] for name in different]
    return names.replace_strict(different, pl.Series(others, dtype=pl.String), default=None, return_dtype=pl.String)
