"""A ledger that was lost is noticed, and made again from the raw files, the dataset files and the observations."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.records import BuiltRevision, RawPartition
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.pipeline.agenda import assess
from ionbeam_dagster.pipeline.build import build, describe
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform, recover_platform
from ionbeam_dagster.stores.ledger import Ledger, LedgerError, RedisLedger, SqliteLedger
from ionbeam_dagster.stores.publish import file_hash

MORNING = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOURS = [Window(MORNING + timedelta(hours=h), MORNING + timedelta(hours=h + 1)) for h in range(3)]
FIRST = Window(MORNING, MORNING + timedelta(minutes=20))
LATER = MORNING + timedelta(days=3)
NETWORK = """
state_path: state
sources:
  scheduler: {{windows: [{{source_name: ioncannon, window_size: PT20M}}, {{source_name: sent, window_size: PT1H}}]}}
  ioncannon: {{num_stations: 5, start: 2026-06-21, aggregation_span: PT1H, seed: 7, late_fraction: 0.1, late_by: PT30M}}
  sent: {{kind: external, start: 2026-06-21, aggregation_span: PT1H}}
{sections}
"""
SENT = IngestionMetadata.model_validate(
    {
        "dataset": {"name": "sent", "aggregation_span": "PT1H"},
        "ingestion_map": {"canonical_variables": [{"column": "T", "standard_name": "air_temperature", "cf_unit": "K"}]},
    }
)


@pytest.fixture(params=["sqlite", "redis", "redis, influxdb"])
def again(request, tmp_path, monkeypatch):
    """Opens the platform, as a new process would."""
    monkeypatch.chdir(tmp_path)
    sections = ""
    if "redis" in request.param:
        url = request.getfixturevalue("redis").url
        with Redis.from_url(url) as client:
            client.flushdb()
        sections = f"redis: {{redis_url: '{url}'}}\n"
    if "influxdb" in request.param:
        server = request.getfixturevalue("influxdb")
        sections += (
            f"influxdb_common: {{influxdb_url: '{server.url}', influxdb_org: {server.org}, "
            f"influxdb_bucket: recovery, influxdb_token: {server.token}}}\n"
        )
    (tmp_path / "config.yaml").write_text(NETWORK.format(sections=sections))
    return lambda: open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))


def lose(platform: Platform) -> None:
    """As a person does it, or a server without its append-only file."""
    redis = platform.config.sections.redis
    if redis is None:
        for path in platform.config.sections.state_path.glob("ledger.sqlite*"):
            path.unlink()
    else:
        with Redis.from_url(redis.redis_url) as client:
            client.flushdb()


def send(platform: Platform, id: str, minute: int) -> None:
    """What a client sent for the first hour, as the bus takes it in."""
    time = [HOURS[0].start + timedelta(minutes=minute)]
    columns = {"datetime": pa.array(time, pa.timestamp("us", "UTC")), "lat": [50.0], "lon": [8.0], "T": [280.0]}
    raw = platform.raws(platform.source("sent")).write_sent("sent", id, HOURS[0], SENT, [pa.record_batch(columns)])
    platform.ledger.record_sent([(raw, [HOURS[0]])])


def known(platform: Platform) -> dict:
    ledger = platform.ledger
    found = {}
    for hour in HOURS:
        latest = ledger.latest_revision("ioncannon", hour)
        found[hour] = (
            [(claim.id, claim.arrival, claim.rows, claim.stray_windows) for claim in ledger.claims("ioncannon", hour)],
            latest and (latest.revision, latest.path, latest.facts.rows, latest.facts.stations),
            describe(assess(platform, platform.dataset("ioncannon"), hour, LATER)),
        )
    return found | {"due": ledger.due("ioncannon")}


def test_what_was_known_is_known_again(again, caplog):
    platform = again()
    for window in windows_between(HOURS[0].start, HOURS[1].end, timedelta(minutes=20)):
        collect(platform, platform.source("ioncannon"), window, LATER)
        ingest(platform, platform.source("ioncannon"), window)
        if window.end == HOURS[0].end:
            assert build(platform, platform.dataset("ioncannon"), HOURS[0], LATER).built
    send(platform, "one", 5)
    ingest(platform, platform.source("sent"), HOURS[0])
    send(platform, "two", 6)
    build(platform, platform.dataset("ioncannon"), HOURS[0], LATER, insist=True)
    assert build(platform, platform.dataset("ioncannon"), HOURS[1], LATER, insist=True).built
    purged = platform.raws(platform.source("ioncannon")).files("ioncannon")[2]
    raw, sent = platform.ledger.raw("ioncannon", FIRST), platform.ledger.sent("sent", HOURS[0])
    before, feed = known(platform), [change.number for change in platform.ledger.changes(0, 100)]
    assert platform.ledger.recovered() is None

    lose(platform)
    assert known(again()) == before
    assert "recovered from the stores" in caplog.text
    at, told = again().ledger.recovered()
    assert datetime.now(UTC) - at < timedelta(minutes=1) and "8 claims" in told and "2 revisions" in told
    assert again().ledger.raw("ioncannon", FIRST) == replace(raw, signature="", asked_at=None)
    assert again().ledger.sent("sent", HOURS[0]) == sent and [raw.ingestion for raw in sent] == ["one", "two"]
    assert all(raw.hash == file_hash(Path(raw.path)) and raw.bytes for raw in sent)

    lose(platform)  # while it is used, and this time a raw file is gone, too
    platform.files.delete(purged)
    assert known(platform) == before
    assert platform.ledger.changes(feed[-1], 100)[0].number > feed[-1]
    assert build(platform, platform.dataset("sent"), HOURS[0], LATER).revision.facts.rows == 2, (
        "what waited was ingested"
    )
    assert not recover_platform(platform), "nothing is left to be recovered"


def test_files_that_cannot_be_read_are_named_and_hold_up_nothing(again):
    platform = again()
    windows = [Window(MORNING + timedelta(minutes=20 * n), MORNING + timedelta(minutes=20 * n + 20)) for n in range(3)]
    for window in windows:
        collect(platform, platform.source("ioncannon"), window, LATER)
    damaged = Path(platform.raws(platform.source("ioncannon")).files("ioncannon")[1])
    damaged.write_bytes(b"no Parquet")
    damaged.with_name("ioncannon_by_hand.parquet").write_bytes(b"neither")
    lose(platform)
    claims = platform.ledger.claims("ioncannon", HOURS[0])
    assert [claim.collected for claim in claims] == [windows[0], windows[2]]
    assert damaged.name in platform.ledger.recovered()[1] and "by_hand" in platform.ledger.recovered()[1]


def an_hour_is_built(platform: Platform, revisions: int) -> BuiltRevision:
    for window in windows_between(HOURS[0].start, HOURS[0].end, timedelta(minutes=20)):
        collect(platform, platform.source("ioncannon"), window, LATER)
        ingest(platform, platform.source("ioncannon"), window)
    for _ in range(revisions):
        built = build(platform, platform.dataset("ioncannon"), HOURS[0], LATER, force=True).revision
    return built


def test_a_dataset_file_with_a_damaged_page_holds_up_nothing_and_is_built_again(again):
    platform = again()
    before = an_hour_is_built(platform, 2)
    path, whole = Path(before.path), Path(before.path).read_bytes()
    pages = pq.read_metadata(path).row_group(0).column(pq.read_schema(path).get_field_index("station_id"))
    at = pages.data_page_offset
    path.write_bytes(whole[:at] + bytes(byte ^ 255 for byte in whole[at : at + 20]) + whole[at + 20 :])
    lose(platform)
    assert HOURS[0] in platform.ledger.due("ioncannon")
    told = platform.ledger.recovered()[1]
    assert f"{path} cannot be read" in told and f"kept as {path}.damaged" in told and not path.exists()
    made = build(platform, platform.dataset("ioncannon"), HOURS[0], LATER).revision
    assert (made.revision.number, path.read_bytes()) == (2, whole)
    lose(platform)
    assert platform.ledger.latest_revision("ioncannon", HOURS[0]).facts.hash == before.facts.hash, "damage is seen"


def test_what_was_collected_again_since_it_was_built_takes_the_place_of_what_a_dataset_file_tells(again, monkeypatch):
    """Also where the points are lost with the ledger: those of the earlier ingestion are then nowhere."""
    platform = again()
    feed = platform.sources["ioncannon"]
    with monkeypatch.context() as fewer:
        fewer.setattr(
            type(feed), "fetch", lambda self, window, all=feed.fetch: (batch.slice(1) for batch in all(window))
        )
        an_hour_is_built(platform, 1)
    collect(platform, platform.source("ioncannon"), FIRST, LATER)
    ingest(platform, platform.source("ioncannon"), FIRST)
    expected = {claim.id for claim in platform.ledger.claims("ioncannon", HOURS[0])}
    lose(platform)
    shutil.rmtree("state/segments", ignore_errors=True)
    platform = again()
    assert {claim.id for claim in platform.ledger.claims("ioncannon", HOURS[0])} == expected
    assert build(platform, platform.dataset("ioncannon"), HOURS[0], LATER).revision.revision.number == 2


def test_numbers_of_revisions_go_on_where_the_file_of_the_last_one_tells_nothing(again):
    platform = again()
    path = Path(an_hour_is_built(platform, 3).path)
    path.write_bytes(path.read_bytes()[:-4] + b"????")
    for raw in platform.raws(platform.source("ioncannon")).files("ioncannon"):
        platform.files.delete(raw)
    for _ in range(2):  # again before it is built
        lose(platform)
        assert HOURS[0] in platform.ledger.due("ioncannon")
        assert Path(f"{path}.damaged").exists() and not path.exists()
        assert f"{path} cannot be read" in platform.ledger.recovered()[1]
    made = build(platform, platform.dataset("ioncannon"), HOURS[0], LATER).revision
    assert made.revision.number == 4 and made.facts.rows and "revision 3 was lost" in made.facts.why
    assert [one.revision.number for one in platform.ledger.revisions_of("ioncannon", HOURS[0])] == [3, 4]


def test_a_redis_that_was_exchanged_or_emptied_asks_again_and_one_that_restarted_asks_once(redis):
    with Redis.from_url(redis.url) as client:
        client.flushdb()
        asked = []
        first, second = (RedisLedger(redis.url, lambda: asked.append(1)) for _ in range(2))
        assert first.due("crowd") == second.due("crowd") == [] and len(asked) == 1
        client.flushdb()
        first.record_raw(RawPartition("a", "crowd", HOURS[0], HOURS[0].key, 1))  # type: ignore[arg-type]
        assert len(asked) == 2 and second.raw("crowd", HOURS[0]) is not None and len(asked) == 2
        redis.process.stop()
        redis.process.start()
        assert RedisLedger(redis.url, lambda: asked.append(1)).raw("crowd", HOURS[0]) is not None
        assert len(asked) == 3 and first.due("crowd") == [] and len(asked) == 3


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_recovery_that_fails_is_tried_again(kind, tmp_path, request):
    tries = []

    def recover() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise LedgerError("the stores are away")

    if kind == "redis":
        url = request.getfixturevalue("redis").url
        with Redis.from_url(url) as client:
            client.flushdb()
        ledger: Ledger = RedisLedger(url, recover)
    else:
        ledger = SqliteLedger(tmp_path / "ledger.sqlite", recover)
    with pytest.raises(LedgerError, match="the stores are away"):
        ledger.due("crowd")
    assert ledger.due("crowd") == [] and len(tries) == 2


def test_the_password_of_redis_is_never_told(redis, caplog):
    caplog.set_level("DEBUG")
    for address in (f"redis://somebody:h1dden@{redis.url.split('://')[1]}", "rediss://somebody:h1dden@127.0.0.1:1/0"):
        ledger = RedisLedger(address)
        with pytest.raises(LedgerError) as refused:
            ledger.due("crowd")
        assert "h1dden" not in f"{refused.value!r} {refused.value.__cause__!r} {caplog.text} {ledger!r}"
        assert "Redis at 127.0.0.1" in str(refused.value)
