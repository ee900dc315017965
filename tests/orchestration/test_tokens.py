"""Why a window is to be collected, as the ledger keeps it: also as earlier versions wrote it."""

from datetime import UTC, datetime

import pytest

from ionbeam_dagster.pipeline.agenda.tokens import Changed, Lost, Replaces, Triggered, read_token

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (Triggered(NOON), "2026-06-21T12:00:00+00:00"),
        (Lost("3f2a"), "lost 3f2a"),
        (Changed("a signature of words"), "changed a signature of words"),
        (Replaces(NOON), "replaces 2026-06-21T12:00:00+00:00"),
        (Replaces(NOON, "981"), "replaces 2026-06-21T12:00:00+00:00 981"),
        (Replaces(None), "replaces never"),
        (Replaces(None, "1 of 2"), "replaces never 1 of 2"),
    ],
)
def test_each_kind_is_kept_as_a_text_and_read_from_it(token, text):
    assert str(token) == text and read_token(text) == token


@pytest.mark.parametrize("text", ["", "r1 of a dataset", "replaces", "found 3f2a"])
def test_what_is_no_such_text_is_none(text):
    with pytest.raises(ValueError, match="isoformat"):
        read_token(text)
