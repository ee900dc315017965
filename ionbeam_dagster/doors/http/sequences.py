"""Sequence numbers that were seen, so that what comes again counts once.

Belongs here: sets of numbers as intervals. Does not belong here: whose they are, or where they are kept.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]


def _none() -> Numbers:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Seen:
    """Numbers of 64 bits, as disjoint intervals [first, last] in order that do not touch: a million numbers with gaps
    take a few kB. 0 is no number, and is never among them."""

    first: Numbers = field(default_factory=_none)
    last: Numbers = field(default_factory=_none)

    def new(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which of `numbers` were not seen; of those that are there twice, the first. Each 0 is new."""
        once = np.zeros(len(numbers), bool)
        once[np.unique(numbers, return_index=True)[1]] = True
        new: npt.NDArray[np.bool_] = (once & ~self.known(numbers)) | (numbers == 0)
        return new

    def known(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which of `numbers` were seen."""
        place = np.searchsorted(self.first, numbers, side="right")
        known = np.zeros(len(numbers), bool)
        after = place > 0
        known[after] = numbers[after] <= self.last[place[after] - 1]
        return known

    def with_(self, numbers: Numbers) -> Seen:
        """These and `numbers`."""
        added = np.unique(numbers[numbers != 0])
        return self.and_(Seen(added, added))

    def and_(self, other: Seen) -> Seen:
        """The numbers of both."""
        if not len(other.first):
            return self
        firsts = np.concatenate([self.first, other.first])
        order = np.argsort(firsts, kind="stable")
        firsts, lasts = firsts[order], np.maximum.accumulate(np.concatenate([self.last, other.last])[order])
        begins = np.ones(len(firsts), bool)
        begins[1:] = firsts[1:] - np.uint64(1) > lasts[:-1]  # no number is 0, so that nothing wraps around
        ends = np.append(begins[1:], True)
        return Seen(firsts[begins], lasts[ends])

    @property
    def highest(self) -> int:
        """The highest number, 0 where there is none."""
        return int(self.last[-1]) if len(self.last) else 0

    def to_bytes(self) -> bytes:
        steps = np.diff(np.stack([self.first, self.last], axis=1).ravel(), prepend=np.uint64(0))
        return zlib.compress(steps.astype("<u8").tobytes())

    @classmethod
    def from_bytes(cls, kept: bytes) -> Seen:
        numbers = np.cumsum(np.frombuffer(zlib.decompress(kept), "<u8"), dtype=np.uint64).reshape(-1, 2)
        return cls(numbers[:, 0].copy(), numbers[:, 1].copy())
