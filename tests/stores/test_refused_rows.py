"""Rows that the time-series server will not take are told wherever a reader looks, and take no others with them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from influxdb_client import BucketRetentionRules, InfluxDBClient
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import HOUR, window_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

HALF_DAY = 12 * HOUR
CONFIGURATION = """
influxdb_common: {{influxdb_url: '{url}', influxdb_org: {org}, influxdb_bucket: {bucket}, influxdb_token: {token}}}
sources:
  loggers:
    type: files
    path: in/*.csv
    start: {start}
    settle: 0
    aggregation_span: PT12H
    revise_for: P2D
    time: time
    latitude: 45.0
    longitude: 7.0
    constants: {{station_id: A}}
    variables: [{{column: t, standard_name: air_temperature, cf_unit: degC, level: 2.0}}]
"""


def test_rows_that_the_bucket_no_longer_keeps_are_told_by_run_status_gaps_and_the_log(
    influxdb,
    tmp_path,
    monkeypatch,
    caplog,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    bucket = f"two_days_{uuid4().hex}"
    rules = BucketRetentionRules(type="expire", every_seconds=2 * 86_400)
    with InfluxDBClient(influxdb.url, influxdb.token, org=influxdb.org) as client:
        client.buckets_api().create_bucket(bucket_name=bucket, org=influxdb.org, retention_rules=rules)
    last = window_of(datetime.now(UTC), HALF_DAY).start
    old, fresh = last - timedelta(days=4), last - HALF_DAY
    keys = {"url": influxdb.url, "org": influxdb.org, "bucket": bucket, "token": influxdb.token}
    (tmp_path / "config.yaml").write_text(CONFIGURATION.format(start=f"{old:%Y-%m-%dT%H:%M:%SZ}", **keys))
    (tmp_path / "in").mkdir()
    rows = [f"{start + n * HOUR / 6:%Y-%m-%dT%H:%M:%SZ},{n}" for start in (old, fresh) for n in range(6)]
    (tmp_path / "in" / "a.csv").write_text("\n".join(["time,t", *rows, ""]))

    def ionbeam(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["--config", "config.yaml", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    with caplog.at_level(logging.WARNING):
        told = ionbeam("run")
    assert "6 rows were refused by the time-series server; the first: of an hour that InfluxDB" in caplog.text
    line = "loggers: 6 rows refused by the time-series server, in 1 window; the first, of"
    everything = ("--from", f"{old:%Y-%m-%dT%H:%MZ}", "--to", f"{last:%Y-%m-%dT%H:%MZ}")
    for text in (told, ionbeam("status", *everything), ionbeam("gaps", *everything)):
        assert line in text and "(it keeps data for 2 d)" in text
    assert "6 rows set aside" in ionbeam("gaps", *everything)
    assert "of an hour that InfluxDB" in ionbeam("quarantine", "list", *everything)
    shown = ionbeam("quarantine", "show", *everything)
    assert "6 rows set aside" in shown and f"{old:%Y-%m-%d %H}:50" in shown
    status = ionbeam("status", *everything)
    assert f"{fresh:%Y-%m-%d %H:%M}" in status
