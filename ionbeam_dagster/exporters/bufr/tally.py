"""What went into a file: counted while it is written, told in the report, and compared when the file is read back.

Belongs here: counts, sums and bounds of what was written, by element, and what had to be changed or left out. Does not
belong here: the comparison (reading.py).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from ionbeam_dagster.exporters.bufr.station_ids import StationIds
from ionbeam_dagster.exporters.bufr.templates import MISSING, Element, Integers


@dataclass(slots=True)
class Tally:
    """How many values of an element there are, their sum, their bounds, and the step between two, in its unit."""

    step: float = 0.0
    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @property
    def sum_and_bounds(self) -> tuple[float, float, float]:
        return self.total, self.low, self.high

    def add(self, count: int, total: float, low: float, high: float) -> None:
        self.count += count
        self.total += total
        self.low, self.high = min(self.low, low), max(self.high, high)


@dataclass(slots=True)
class BufrCounts:
    """What went into a file: by element, and what had to be changed or left out."""

    station_ids: StationIds
    tallies: dict[str, Tally] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)
    subsets: Counter[str] = field(default_factory=Counter)
    quality: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    stations: int = 0

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = {"subsets": dict(self.subsets)} | self.station_ids.facts()
        facts |= {"quality": dict(+self.quality)} if self.quality else {}
        return facts | ({"values left out": dict(self.beyond)} if self.beyond else {})

    def tally(self, element: Element, coded: Integers) -> None:
        present = coded[coded != MISSING] if len(coded) and coded.min() == MISSING else coded
        tally = self.tallies.setdefault(element.name, Tally(10.0**-element.scale))
        if len(present):
            sums = int(present.sum()) + len(present) * element.reference
            low, high = int(present.min()) + element.reference, int(present.max()) + element.reference
            tally.add(len(present), *(number / 10.0**element.scale for number in (sums, low, high)))
