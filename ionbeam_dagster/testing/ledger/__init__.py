"""What every ledger promises: records of what happened, and open work.

Belongs here: the suite that SQLite's and Redis' ledgers pass, a module a group of subjects, for whoever keeps one
elsewhere. Does not belong here: what only one of them can get wrong, or any server.

    class TestMyLedger(LedgerContract):
        @pytest.fixture
        def open_ledger(self, tmp_path):
            return partial(MyLedger, tmp_path / "ledger")
"""

from __future__ import annotations

from ionbeam_dagster.testing.ledger.attempts import AttemptsContract
from ionbeam_dagster.testing.ledger.claims import ClaimsContract
from ionbeam_dagster.testing.ledger.corrections import CorrectionsContract
from ionbeam_dagster.testing.ledger.doors import DoorsContract
from ionbeam_dagster.testing.ledger.holding import HoldingContract
from ionbeam_dagster.testing.ledger.notices import NoticesContract
from ionbeam_dagster.testing.ledger.raws import RawsContract
from ionbeam_dagster.testing.ledger.revisions import RevisionsContract
from ionbeam_dagster.testing.ledger.windows import WindowsContract

__all__ = ["LedgerContract"]


class LedgerContract(
    RawsContract,
    ClaimsContract,
    WindowsContract,
    RevisionsContract,
    AttemptsContract,
    CorrectionsContract,
    DoorsContract,
    HoldingContract,
    NoticesContract,
):
    """The suite of a `Ledger`. A subclass gives `open_ledger`, and a ledger that is new to each test."""
