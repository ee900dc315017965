"""The registry of stations in Dagster: one asset a source, one job for all."""

from datetime import UTC, datetime, timedelta

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
CANNON = """
  scheduler: {windows: [{source_name: ioncannon, window_size: PT1H}]}
  ioncannon: {num_stations: 3, start: 2026-06-21, aggregation_span: PT1H}
"""


def test_the_job_brings_each_sources_stations_up_to_date_and_tells_of_them(platform_of):
    entries = "[{source: ioncannon, station: SYNTH_0001, admit: deny, why: '*indoors*', wigos_id: 0-1-0-A}]"
    platform = platform_of(CANNON, stations=entries)
    hour = Window(MORNING, MORNING + timedelta(hours=1))
    collect(platform, platform.source("ioncannon"), hour, platform.now())
    ingest(platform, platform.source("ioncannon"), hour)
    job = build_definitions(WatchedPlatform(platform)).resolve_job_def("stations")
    done = job.execute_in_process()
    assert done.success
    [event] = done.get_asset_materialization_events()
    told = {name: value.value for name, value in event.materialization.metadata.items()}
    assert event.asset_key.to_user_string() == "ioncannon/stations"
    assert (told["stations"], told["new"], told["denied"]) == (3, 3, 1)
    assert told["raw partitions looked at"] == 1 and told["raw partitions gone before"] == 0
    assert "SYNTH_0001" in told["to look at"] and "denied" in told["to look at"]
