"""A Redis that dropped part of the ledger is recognised: nobody works on with the rest, and it is made again whole."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from backends import Missing, start_redis
from redis import ConnectionError, Redis
from test_recovery import HOURS, LATER, NETWORK, known, send
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import windows_between
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.stores.ledger import Ledger, LedgerError, RedisLedger
from ionbeam_dagster.stores.ledger.attempts import Attempt
from ionbeam_dagster.stores.ledger.refusals import Refusal
from ionbeam_dagster.testing.ledger.samples import HOUR, NEXT, NOON, WINDOW, arrived, built, claimed

RANGE = ("--from", "2026-06-21T06:00Z", "--to", "2026-06-21T09:00Z")


@pytest.fixture
def server(tmp_path):
    try:
        own = start_redis(tmp_path)
    except Missing as missing:
        pytest.skip(missing.reason)
    yield own
    own.process.stop()


def test_a_platform_stands_still_while_keys_are_evicted_and_is_whole_again_after(server, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(NETWORK.format(sections=f"redis: {{redis_url: '{server.url}'}}\n"))
    monkeypatch.setenv("IONBEAM_CONFIG_PATH", str(tmp_path / "config.yaml"))

    def again():
        return open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))

    platform = again()
    for window in windows_between(HOURS[0].start, HOURS[2].end, timedelta(minutes=20)):
        collect(platform, platform.source("ioncannon"), window, LATER)
        ingest(platform, platform.source("ioncannon"), window)
    for hour in HOURS[:2]:
        build(platform, platform.dataset("ioncannon"), hour, LATER, insist=True)
    send(platform, "one", 5)
    platform.ledger.seal("ioncannon", [HOURS[1]], LATER)
    before = known(platform)
    with Redis.from_url(server.url) as client:
        keys = client.dbsize()
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 8_000)
        client.set("something", "else")
        assert 0 < client.dbsize() < keys
        client.config_set("maxmemory", 0)
        for command in (["status"], ["run", "ioncannon", *RANGE], ["ledger", "rebuild"]):
            refused = CliRunner().invoke(app, command)
            told = " ".join(refused.output.split())
            assert refused.exit_code == 1 and "set maxmemory-policy noeviction (now allkeys-random)" in told, told
        client.config_set("maxmemory-policy", "noeviction")
    assert known(again()) == before and "all of it is made again from the files" in caplog.text
    assert "recovered from the stores" in again().ledger.recovered()[1]
    assert CliRunner().invoke(app, ["status"]).exit_code == 0
    assert known(platform) == before, "a process that ran on"


def filled(ledger: Ledger) -> None:
    first, second = claimed(ledger, "first", WINDOW), arrived(ledger, "second", NOON + HOUR)
    ledger.record_raw(RawPartition("first", "crowd", WINDOW, "first.parquet", 7))
    ledger.record_sent([(RawPartition("second", "crowd", WINDOW, "second.parquet", 7), [WINDOW])])
    claimed(ledger, "third", NEXT)
    for number in (1, 2):
        ledger.record_revision(built(WINDOW, number, [first, second]), [first, second])


def asked(ledger: Ledger) -> tuple[object, ...]:
    far = NOON + 9 * HOUR
    claims = ledger.claims("crowd", WINDOW)
    return (
        claims, ledger.metadata_of(claims), ledger.claims_between("crowd", NOON, far), ledger.claims_of(["third"]),
        ledger.raws("crowd", far), ledger.sent("crowd", WINDOW), ledger.revisions("crowd", NOON, far),
        ledger.revisions_of("crowd", WINDOW), ledger.superseded("crowd", far), ledger.due("crowd"),
        ledger.metadata_of_version("crowd", 1), ledger.rows_in("crowd", WINDOW), ledger.span_of("crowd"),
    )  # fmt: skip


def test_a_record_that_is_gone_is_noticed_when_it_is_looked_for(redis):
    with Redis.from_url(redis.url, decode_responses=True) as client:
        client.flushdb()
        ledger: Ledger
        ledger = RedisLedger(redis.url, lambda: filled(ledger))
        expected = asked(ledger)
        whole = sorted(client.keys())
        looked_for = {"claim", "revision", "revisions", "sent", "raw", "readings"}
        assert looked_for <= {key.split(":")[1] for key in whole}
        for key in whole:
            client.flushdb()
            assert asked(ledger) == expected
            ledger.seal("crowd", [NEXT], NOON)
            client.delete(key)
            found = asked(RedisLedger(redis.url, lambda: filled(ledger)))
            assert key.split(":")[1] not in looked_for or found == expected, key
            assert ledger.sealed("crowd", NEXT) == NOON or key == "ionbeam:generation", key


def test_threads_that_miss_the_same_record_find_it_made_again_once(redis):
    begun = Event()

    def fill():
        begun.set()
        claims = [claimed(ledger, name, WINDOW) for name in ("first", "second")]
        time.sleep(0.3)
        claimed(ledger, "third", WINDOW)
        return claims

    with Redis.from_url(redis.url) as client, ThreadPoolExecutor(4) as threads:
        client.flushdb()
        ledger = RedisLedger(redis.url, fill)
        expected = ledger.claims("crowd", WINDOW)
        client.delete("ionbeam:claim:first")
        found = list(threads.map(lambda _: ledger.claims("crowd", WINDOW), range(4)))
        assert found == [expected] * 4 and len(expected) == 3
        client.delete("ionbeam:claim:first")
        begun.clear()
        filling = threads.submit(ledger.claims, "crowd", WINDOW)
        assert begun.wait(10)
        assert ledger.claims("crowd", WINDOW) == expected == filling.result(), "nobody reads what is half filled"


def test_a_ledger_that_is_hurt_each_time_it_is_filled_is_an_error_with_a_sentence(redis):
    with Redis.from_url(redis.url) as client:
        client.flushdb()

        def fill():
            claimed(ledger, "first", WINDOW)
            client.delete("ionbeam:claim:first")
            ledger.claims("crowd", WINDOW)

        ledger = RedisLedger(redis.url, fill)
        with pytest.raises(
            LedgerError, match=r"lost part of the ledger again .*ionbeam:claim:first is gone.*try again"
        ):
            ledger.due("crowd")


def test_what_no_store_tells_stays_when_the_rest_is_made_again_unless_it_is_hurt_itself(redis):
    with Redis.from_url(redis.url) as client:
        client.flushdb()
        ledger = RedisLedger(redis.url)
        claimed(ledger, "first", WINDOW)
        ledger.requests.note("crowd", WINDOW, NOON)
        ledger.refusals.accept("roofs")
        client.delete("ionbeam:claim:first")
        assert ledger.claims("crowd", WINDOW) == []
        assert len(ledger.requests.unanswered(10)) == 1 and ledger.refusals.accepted() == ["roofs"]
        client.delete("ionbeam:requests:crowd")
        assert ledger.requests.unanswered(10) == [] and ledger.refusals.accepted() == []
        assert ledger.requests.note("crowd", WINDOW, NOON) == 1


def test_keys_that_others_let_expire_on_the_same_server_are_none_of_ours(server):
    ledger = RedisLedger(server.url)
    first = claimed(ledger, "first", WINDOW)
    with Redis.from_url(server.url[:-1] + "1") as other:
        other.config_set("maxmemory-policy", "volatile-lru")
        for number in range(200):
            other.set(f"cached {number}", "x" * 5000, ex=1000)
        other.config_set("maxmemory", other.info("memory")["used_memory"] - 100_000)
        other.set("one more", "x", ex=1000)
        assert other.info("stats")["evicted_keys"] > 0
        other.config_set("maxmemory", 0)
    assert RedisLedger(server.url).claims("crowd", WINDOW) == [first]


@pytest.mark.parametrize("also", ["", "ionbeam:generation"])
def test_keys_that_were_evicted_before_redis_was_restarted_are_made_again(server, also):
    def fill():
        filled(ledger)

    with Redis.from_url(server.url, decode_responses=True) as client:
        ledger = RedisLedger(server.url, fill)
        expected = asked(ledger)
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", 1 << 30)
        assert RedisLedger(server.url).due("crowd") is not None, "somebody looked while keys might be evicted"
        gone = client.keys("ionbeam:claims*") + client.keys("ionbeam:due*") + client.keys("ionbeam:revisions*")
        assert client.delete(*gone, *filter(None, [also])) == len(gone) + bool(also)
    server.process.stop()
    server.process.start()
    ledger = RedisLedger(server.url, fill)
    assert asked(ledger) == expected


def test_two_processes_that_miss_the_same_record_drop_the_rest_once(redis):
    def ids(ledger):
        return {claim.id for claim in ledger.claims("crowd", WINDOW)}

    def fill():
        if not begun.is_set():
            begun.set()
            claimed(first, "first", WINDOW)
            assert go_on.wait(10)
        claimed(first, "second", WINDOW)

    with Redis.from_url(redis.url) as client, ThreadPoolExecutor(2) as threads:
        client.flushdb()
        begun, go_on = Event(), Event()
        begun.set()
        first, second = RedisLedger(redis.url, lambda: fill()), RedisLedger(redis.url)
        claimed(first, "first", WINDOW)
        assert ids(first) == ids(second) == {"first", "second"}
        server = second._server
        client.delete("ionbeam:claim:first")
        begun.clear()
        dropped = server._drop

        def late(*given):  # it noticed what is missing before the first process had begun to make it again
            filling = threads.submit(ids, first)
            assert begun.wait(10)
            dropped(*given)
            go_on.set()
            assert filling.result() == {"first", "second"}

        server._drop = late
        assert ids(second) == {"first", "second"}


def test_what_is_counted_counts_once_where_an_answer_of_redis_is_lost_on_the_way(redis, monkeypatch):
    work = Attempt("collect", "crowd", WINDOW, "token", "why", 0, NOON, NOON)

    def count():
        ledger.silences.add("crowd", 1, NOON)
        ledger.attempts.begin([work], NOON)
        ledger.refusals.add([Refusal("a queue", "m1", "it is wrong", NOON)])
        ledger.refusals.note_too_early("crowd", NOON, NOON)
        ledger.refusals.note_stranger("crowd", "somebody", NOON)
        return ledger.requests.note("crowd", WINDOW, NOON)

    def counted():
        [attempt] = ledger.attempts.open()
        return (
            ledger.silences.all()["crowd"].windows, attempt.tries, len(ledger.refusals.newest(9)),
            ledger.refusals.too_early()[0].commands, ledger.refusals.strangers(9)[0].messages,
        )  # fmt: skip

    with Redis.from_url(redis.url) as client:
        client.flushdb()
    ledger = RedisLedger(redis.url)
    assert count() == 1 and counted() == (1, 1, 1, 1, 1)
    answer, asked_for = Redis.parse_response, []

    def losing(self, connection, command, **options):
        found = answer(self, connection, command, **options)
        if command == "EVALSHA":
            asked_for.append(found)
            if len(asked_for) % 2:  # so that each is sent again
                raise ConnectionError("the connection is cut")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Redis, "parse_response", losing)
        assert count() == 2
    assert len(asked_for) == 14 and counted() == (2, 2, 2, 2, 2)
