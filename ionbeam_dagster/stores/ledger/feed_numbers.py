"""The numbers of a ledger's feed.

Belongs here: where they begin. Does not belong here: the feed's entries (feed.py).
"""

from __future__ import annotations

import time


def feed_begins() -> int:
    """The number before the first of a new ledger's feed: larger than any that an earlier one gave out.

    It is the time in milliseconds, and a feed grows by less than 1,000 entries a second in the long run. Who follows
    the feed of a ledger that was lost finds all of the new one's entries after its own place.
    """
    return time.time_ns() // 1_000_000
