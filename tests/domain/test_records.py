"""Records as ledgers and dataset files keep them, also those of earlier versions."""

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ionbeam_client.models import CanonicalVariable, IngestionMetadata
from ionbeam_dagster.domain.records import Claim, Compared, ExportFacts, Provenance, RevisionFacts
from ionbeam_dagster.domain.windows import Window

moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
windows = st.builds(
    lambda start, span: Window(start, start + span), moments, st.timedeltas(timedelta(seconds=1), timedelta(days=9))
)
VARIABLE = CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC")
METADATA = IngestionMetadata(dataset={"name": "crowd"}, ingestion_map={"canonical_variables": [VARIABLE]})
shares, some_windows = st.floats(0, 1), st.lists(windows, max_size=3).map(tuple)
compared = st.builds(Compared, limits=st.text(min_size=1), neighbours=st.dictionaries(st.text(), st.text()))
records = st.one_of(
    st.builds(
        RevisionFacts, coverage=shares, gaps=some_windows, overlaps=some_windows, duplicates=st.none() | st.integers(),
        ingestions=st.integers(), flags=st.dictionaries(st.text(), st.dictionaries(st.text(), st.integers())),
        made_of=st.none() | st.lists(st.text()).map(tuple), software=st.text(), why=st.text(), made_by=st.text(),
    ),
    st.builds(ExportFacts, holds=st.dictionaries(st.text(), st.integers()), afterwards=st.booleans()),
    st.builds(
        Provenance, window=windows, ingestions=st.lists(st.text()).map(tuple), metadata=st.just({"a": METADATA}),
        coverage=shares, gaps=some_windows, software=st.text(), quality=compared,
    ),
)  # fmt: skip


@given(records)
def test_what_was_written_is_read_as_it_was(record):
    written = json.loads(json.dumps(record.to_json()))
    assert type(record).from_json(written) == record
    assert type(record).from_json(written | {"of a later version": [1]}) == record


@given(st.builds(Claim, dataset=st.just("crowd"), collected=windows, stray_windows=some_windows, arrived_at=st.none()))
def test_a_claim_in_a_file_is_read_as_it_was(claim):
    assert Claim.from_json("crowd", json.loads(json.dumps(claim.to_json()))) == claim


def test_what_an_earlier_version_did_not_write_has_a_default():
    facts = RevisionFacts.from_json({"rows": 3, "stations": 1, "bytes": 9, "coverage": 1.0, "gaps": []})
    assert facts.complete and facts.made_of is None and (facts.flags, facts.why, facts.made_by) == ({}, "", "")
    assert ExportFacts.from_json({"rows": 3, "bytes": 1, "stations": 2}) == ExportFacts(3, 2, 1)
    start, end = "2026-06-21T06:00:00+00:00", "2026-06-21T07:00:00+00:00"
    written = {"dataset": "a", "window_start": start, "window_end": end, "revision": 2, "inputs": "i"}
    assert Provenance.from_json(written | {"gaps": [[start, end]]}).gaps[0].span == timedelta(hours=1)


def test_the_keys_of_a_dataset_file_stay_as_they_are():
    """Files of the same rows are the same files, whatever version wrote them."""
    window = Window(datetime(2026, 6, 21, tzinfo=UTC), datetime(2026, 6, 22, tzinfo=UTC))
    written = Provenance("a", window, 1, "i", claims=(Claim("c", "s", "a", window, 1, 2),)).to_json()
    assert list(written) == [
        "dataset", "window_start", "window_end", "revision", "inputs", "ingestions", "claims", "metadata", "coverage",
        "gaps", "software", "quality",
    ]  # fmt: skip
    assert list(written["claims"][0]) == ["id", "source", "start", "end", "arrival", "rows", "quarantined", "strays"]
    assert written["quality"] == {}
