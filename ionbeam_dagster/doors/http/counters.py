"""The counter by which a device's streamer numbers its readings: which of them are new, also once it began anew.

Belongs here: that rule, and the state it needs. Does not belong here: sets of numbers as such (sequences.py), or where
the state is kept (memory.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ionbeam_dagster.doors.http.sequences import Numbers, Seen

Times = npt.NDArray[np.int64]

NEVER = -(2**63)
_AHEAD = 86_400 * 10**9  # ns: a clock that is further ahead than that says nothing of when readings were made


@dataclass(frozen=True, slots=True)
class Counter:
    """The numbers that were taken, and what tells another reading of the same number. Times are ns since 1970.

    A reading that comes again is no newer than the `newest` that was taken. One that is, and has a number that is
    known, is another: the device was reset, or its board replaced, and counts from 1 again. From then on `now` has the
    numbers of readings newer than `after`, the newest of before, and `before` those of all others, so that what is late
    of either is known. `noticed` is when that was seen last.
    """

    now: Seen = field(default_factory=Seen)
    before: Seen = field(default_factory=Seen)
    after: int = NEVER
    newest: int = NEVER + 1  # anything is newer, and from it on can be counted anew
    noticed: int = NEVER

    def new(self, numbers: Numbers, times: Times) -> npt.NDArray[np.bool_]:
        """Which readings were not taken yet."""
        current = times > self.after
        new = np.zeros(len(numbers), bool)
        new[current] = self.now.new(numbers[current])
        new[~current] = self.before.new(numbers[~current])
        return new

    def with_(self, numbers: Numbers, times: Times, received: int) -> Counter:
        """This and readings that came at `received`."""
        current = times > self.after
        sane = times[times <= received + _AHEAD]
        newest = max(self.newest, int(sane.max())) if len(sane) else self.newest
        now, before = self.now.with_(numbers[current]), self.before.with_(numbers[~current])
        return Counter(now, before, self.after, newest, self.noticed)

    def begins_anew(self, numbers: Numbers, times: Times, received: int) -> bool:
        """Whether among readings that come at `received` are others than those that were taken by their numbers."""
        others = self.now.known(numbers) & (times > self.newest) & (times <= received + _AHEAD)
        return bool(others.any())

    def anew(self, after: int, received: int) -> Counter:
        """Count anew for what is newer than `after`; the same where that was done already."""
        if after <= self.after:
            return self
        return Counter(Seen(), self.before.and_(self.now), after, max(after, self.newest), received)
