"""What forecast centres get of a crowd network: every file of a day, corrections, and rows that nobody can use."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import codc
import eccodes
import pyarrow as pa
import pytest
from decoders import check_bufr, check_odb

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

DAY = datetime(2026, 6, 21, tzinfo=UTC)
HOURS = [Window(DAY + timedelta(hours=h), DAY + timedelta(hours=h + 1)) for h in range(24)]
LATER = DAY + timedelta(days=3)
CROWD = """
  scheduler: {windows: [{source_name: ioncannon, window_size: PT1H}]}
  ioncannon:
    {num_stations: 40, measurement_frequency_minutes: 15, start: 2026-06-21, aggregation_span: PT1H,
     exports: [odb, bufr]%s}
"""
SENDER = "{bufr_service: {settings: {cccc: EDZW, centre: 78}}}"


def exported(platform, window):
    collect(platform, platform.source("ioncannon"), window, LATER)
    ingest(platform, platform.source("ioncannon"), window)
    built = build(platform, platform.dataset("ioncannon"), window, LATER)
    return built.revision, *(
        export(platform, platform.dataset("ioncannon"), platform.config.window_exporters[format], window)
        for format in ("odb", "bufr")
    )


@pytest.mark.parametrize(
    "hours", [HOURS[11:13], pytest.param(HOURS, marks=pytest.mark.soak)], ids=["two hours", "a day"]
)
def test_every_file_of_a_crowd_day_says_the_same_to_decoders_that_are_not_ours(platform_of, hours):
    platform = platform_of(CROWD % ", bad_value_fraction: 0.1")
    flagged = 0
    for hour in hours:
        revision, odb, bufr = exported(platform, hour)
        assert check_odb(revision.path, odb.path) > 500 and check_bufr(revision.path, bufr.path) > 400
        flagged += sum(odb.report.read_back["quality"].get(flag, 0) for flag in ("suspect", "fail"))
    assert flagged > 10


def temperatures(path):
    frame = codc.read_odb(str(path), columns=["varno@body", "obsvalue@body"], single=True)
    return frame["obsvalue@body"][frame["varno@body"] == 39].to_numpy()


def about_bufr(path):
    with Path(path).open("rb") as file:
        handle = eccodes.codes_bufr_new_from_file(file)
    eccodes.codes_set(handle, "unpack", 1)
    found = eccodes.codes_get(handle, "updateSequenceNumber"), eccodes.codes_get_double_array(handle, "airTemperature")
    eccodes.codes_release(handle)
    return found


def test_a_late_correction_travels(platform_of, monkeypatch):
    platform = platform_of(CROWD % "", projections=SENDER)
    source, noon = platform.sources["ioncannon"], HOURS[12]
    first, odb, bufr = exported(platform, noon)
    before, (number, in_bufr) = temperatures(odb.path), about_bufr(bufr.path)
    assert (first.revision.number, number) == (1, 0)
    assert Path(bufr.published.copies["for the GTS"]).name == "A_ISAX30EDZW211200_C_EDZW_20260621120000.bin"
    as_sent = Path(bufr.published.copies["for the GTS"]), Path(bufr.path).read_bytes()
    whole = source.fetch

    def warmer(window):
        for batch in whole(window):
            place = batch.schema.get_field_index("temperature")
            values = batch.column(place).to_numpy(zero_copy_only=False).copy()
            values[0] += 1.5
            yield batch.set_column(place, batch.schema.field(place), pa.array(values, batch.schema.field(place).type))

    monkeypatch.setattr(source, "fetch", warmer)
    second, odb, bufr = exported(platform, noon)
    after, (number, corrected) = temperatures(odb.path), about_bufr(bufr.path)
    assert second.revision.number == 2
    changed = (after != before).nonzero()[0]
    assert len(changed) >= 1 and after[changed] - before[changed] == pytest.approx([1.5] * len(changed), abs=1e-4)
    assert number == 1 and sorted(corrected) != sorted(in_bufr)
    assert Path(bufr.published.copies["for the GTS"]).name == "A_ISAX30EDZW211200CCA_C_EDZW_20260621120000.bin"
    assert (
        about_bufr(bufr.published.copies["for the GTS"])[0] == 1
        and Path(bufr.published.copies["for the GTS"]).read_bytes() == Path(bufr.path).read_bytes()
    )
    assert as_sent[0].read_bytes() == as_sent[1], "what was sent stays as it was"
    assert codc.Reader(str(odb.path)).frames[0].properties["revision"] == "2"
