"""The error of every ledger.

Belongs here: `LedgerError`, and what both ledgers say alike.
Does not belong here: the platform's other errors (errors.py).
"""

from __future__ import annotations

from ionbeam_dagster.errors import StoreError


class LedgerError(StoreError):
    """The ledger cannot be used; the message names its place, the reason and what to do."""


def of_a_newer_version(place: str, form: int, known: int) -> LedgerError:
    """The error of a ledger that a later version of this software wrote."""
    return LedgerError(
        f"{place}: was written by a newer version of ionbeam-dagster (form {form}, this one knows {known}); install "
        "that version again, or let this one have stores of its own (state_path, redis)"
    )
