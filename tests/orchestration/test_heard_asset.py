"""What was heard, in Dagster: one asset a source, with a picture, one job for all, each hour."""

from datetime import UTC, datetime, timedelta

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
CANNON = """
  scheduler: {windows: [{source_name: ioncannon, window_size: PT1H}]}
  ioncannon: {num_stations: 3, start: 2026-06-21, aggregation_span: PT1H}
"""


def test_the_job_brings_each_source_up_to_date_and_shows_it(platform_of):
    platform = platform_of(CANNON)
    definitions = build_definitions(WatchedPlatform(platform))
    job = definitions.resolve_job_def("heard")
    [nothing] = job.execute_in_process().get_asset_materialization_events()
    assert nothing.materialization.metadata["stations"].value == 0
    hour = Window(MORNING, MORNING + timedelta(hours=1))
    collect(platform, platform.source("ioncannon"), hour, platform.now())
    ingest(platform, platform.source("ioncannon"), hour)
    build(platform, platform.dataset("ioncannon"), hour, platform.now(), insist=True)
    done = job.execute_in_process()
    [event] = done.get_asset_materialization_events()
    told = {name: value.value for name, value in event.materialization.metadata.items()}
    assert event.asset_key.to_user_string() == "ioncannon/heard"
    assert (told["stations"], told["silent stations"]) == (3, 0)
    assert told["picture"].startswith("![where stations fell silent, and rows and lateness of a week](data:image/png;")
    assert 0 <= told["share of values that are doubted"] <= 1
    assert definitions.resolve_schedule_def("heard").cron_schedule == "11 * * * *"
