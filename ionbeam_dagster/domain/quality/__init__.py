"""Quality control: what was tested of every value, and what came of it.

Belongs here: the flags, the tests and their bits, and how verdicts make one flag. The tests themselves work on arrays:
a value by itself and in its series (series.py), against its neighbours (neighbours.py, consistency.py, resistant.py).
Their limits are in limits.py; plan.py says what is tested of a dataset's columns, chain.py runs the tests, explain.py
tells of them. Does not belong here: where flags are stored.

A value that fails a test stays where it is: forecasters decide what to do without.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, auto

import numpy as np
import numpy.typing as npt

VERSION = "3"
"""Raised when the same rows and limits would get other flags than before."""

Masks = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.uint8]


class Flag(IntEnum):
    """The aggregate flag of a value: QARTOD's (IOC Manuals and Guides 54, volume 3, 2013)."""

    PASS = 1
    NOT_EVALUATED = 2
    SUSPECT = 3
    FAIL = 4
    MISSING = 9


class Test(IntFlag):
    """The tests, a bit each in ``tests_applied`` and ``tests_failed``. Bits keep their meaning for ever."""

    __test__ = False  # of the weather, not of this code

    GROSS_RANGE = auto()
    CLIMATOLOGY = auto()
    STEP = auto()
    SPIKE = auto()
    PERSISTENCE = auto()
    INTERNAL_CONSISTENCY = auto()
    POSITION = auto()
    MOVED = auto()
    INDOOR = auto()
    RADIATION = auto()
    ISOLATION = auto()
    BUDDY = auto()
    BUDDY_EVENT = auto()
    SPATIAL_CONSISTENCY = auto()
    RESISTANT_BUDDY = auto()
    LASTING = auto()
    IMPOSSIBLE_HERE = auto()
    TENDENCY = auto()
    PROVIDER = auto()


CONDEMNS = Test.GROSS_RANGE
"""A value that fails one of these is bad whatever the others say."""

SAYS_GOOD, SAYS_POOR = 1, 3
"""Codes of a provider: `SAYS_POOR` and what is above it is poor (E-SOH's 3, QARTOD's 3 and 4), but for 9, missing."""

TELLS_NOTHING_OF_THE_VALUE = Test.ISOLATION
"""A value without neighbours is not worse for it: it could not be compared."""

KINDS = (
    Test.CLIMATOLOGY | Test.IMPOSSIBLE_HERE,
    Test.STEP | Test.SPIKE | Test.PERSISTENCE,
    Test.INTERNAL_CONSISTENCY,
    Test.POSITION | Test.MOVED,
    Test.BUDDY
    | Test.BUDDY_EVENT
    | Test.SPATIAL_CONSISTENCY
    | Test.RESISTANT_BUDDY
    | Test.TENDENCY
    | Test.INDOOR
    | Test.RADIATION,
    Test.LASTING,
    Test.PROVIDER,
)
"""Kinds of evidence: one against a value makes it suspect, two that are independent of each other make it bad."""


def flags_of(applied: Masks, failed: Masks, missing: npt.NDArray[np.bool_]) -> Flags:
    """The aggregate flag of each value from what was applied to it and what it failed."""
    against = sum(((failed & np.uint32(kind)) != 0).astype(np.uint8) for kind in KINDS)
    judged = (applied & ~np.uint32(TELLS_NOTHING_OF_THE_VALUE | Test.PROVIDER)) != 0  # a good word is no test
    flags = np.where(judged, Flag.PASS, Flag.NOT_EVALUATED).astype(np.uint8)
    flags[against >= 1] = Flag.SUSPECT
    flags[(against >= 2) | ((failed & np.uint32(CONDEMNS)) != 0)] = Flag.FAIL
    flags[missing] = Flag.MISSING
    return flags


def names_of(mask: int) -> list[str]:
    """The names of the tests in a mask, in the order of their bits."""
    return [test.name.lower() for test in Test if test & mask and test.name]
