"""What went into a file, counted as it is written: for the report, and to compare with what is read back.

Belongs here: counts, sums and bounds. Does not belong here: what is counted (rows.py), or the comparison (reading.py).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.exporters.odb.station_ids import StationIds
from ionbeam_dagster.exporters.odb.tables import STATUS_BY_FLAG, STATUS_OF, STATUSES, label_of


@dataclass(slots=True)
class Tally:
    """How many values there are, their sum, and their bounds, as they are in REAL."""

    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: npt.NDArray[np.float32]) -> None:
        if len(values):
            self.count += len(values)
            self.total += float(values.sum(dtype=np.float64))
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))


@dataclass(slots=True)
class OdbCounts:
    """What went into a file: by varno, by place, and what had to be changed. Its reports are numbered from
    `first_number` + 1 on."""

    first_number: int = 0
    tallies: dict[int, Tally] = field(default_factory=dict)
    lat: Tally = field(default_factory=Tally)
    lon: Tally = field(default_factory=Tally)
    beyond: int = 0
    heights: int = 0
    analyses: Counter[int] = field(default_factory=Counter)
    flags: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(max(Flag) + 1, np.int64))
    station_ids: StationIds = field(default_factory=StationIds)

    def add(self, number: int, values: npt.NDArray[np.float32]) -> None:
        """Count those of the `values` of varno `number` that are there."""
        self.tallies.setdefault(number, Tally()).add(values[~np.isnan(values)])

    @property
    def rows(self) -> int:
        return sum(tally.count for tally in self.tallies.values())

    @property
    def quality(self) -> tuple[int, ...]:
        """How many values are active, passive and rejected, and the sum of all flags."""
        of_status = (int(self.flags[code == STATUS_BY_FLAG].sum()) for code in STATUSES)
        return (*of_status, int(self.flags @ np.arange(len(STATUS_BY_FLAG))))

    def facts(self) -> dict[str, object]:
        bounds = {label_of(number): [tally.low, tally.high] for number, tally in sorted(self.tallies.items())}
        facts: dict[str, object] = {"reports": self.lat.count, "bounds": bounds} | self.station_ids.facts()
        facts["reports by analysis"] = {
            f"{analysis // 1_000_000} {analysis // 10_000 % 100:02} UTC": count
            for analysis, count in sorted(self.analyses.items())
        }
        facts["quality"] = {flag.name.lower(): int(self.flags[flag]) for flag in STATUS_OF if self.flags[flag]}
        facts |= {"heights that no station has, left out": self.heights} if self.heights else {}
        return facts | ({"values beyond REAL": self.beyond} if self.beyond else {})
