"""Somebody removes InfluxDB's bucket while a window is being collected: what was in it is ingested again, and told."""

from datetime import UTC, datetime, timedelta

from influxdb_client import InfluxDBClient

from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest

SOURCE = "  ioncannon: {num_stations: 5, start: 2026-06-21, aggregation_span: PT1H}"
START = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOUR = Window(START, START + timedelta(hours=1))


def test_what_was_in_a_bucket_that_is_gone_is_ingested_again_from_raw_files(platform_of, influxdb, caplog):
    keys = f"influxdb_url: '{influxdb.url}', influxdb_org: {influxdb.org}, influxdb_token: {influxdb.token}"
    platform = platform_of(SOURCE, influxdb_common=f"{{{keys}, influxdb_bucket: gone}}")
    source, dataset = platform.source("ioncannon"), platform.dataset("ioncannon")
    windows = list(windows_between(HOUR.start, HOUR.end, source.window_size))
    rows = 0
    for number, window in enumerate(windows):
        collect(platform, source, window, platform.now())
        if number == 9:
            with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
                client.buckets_api().delete_bucket(client.buckets_api().find_bucket_by_name("gone"))
            platform = platform_of(SOURCE, influxdb_common=f"{{{keys}, influxdb_bucket: gone}}")
        rows += ingest(platform, source, window).claim.rows
    built = build(platform, dataset, HOUR, platform.now())
    assert built.revision.facts.rows == rows == 5 * len(windows)
    assert "bucket gone: was not there, and was made" in caplog.text
    assert "ioncannon: 9 ingestions are no longer in the time-series store" in caplog.text
