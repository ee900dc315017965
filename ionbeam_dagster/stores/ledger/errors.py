"""The error of every ledger.

Belongs here: `LedgerError`. Does not belong here: the platform's other errors (errors.py).
"""

from __future__ import annotations

from ionbeam_dagster.errors import StoreError


class LedgerError(StoreError):
    """The ledger cannot be used; the message names its place, the reason and what to do."""
