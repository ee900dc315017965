"""A station that is forgotten is nowhere any more, whatever was killed meanwhile, and does not come back."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from shutil import copyfile, rmtree
from threading import Event
from time import sleep

import dagster as dg
import polars as pl
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from forgotten import CROWD, DAY, GONE, LATER, STAYS, WINDOWS, left_of, made, mentions, rows
from redis import Redis
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.cli.terminal import dagster_instance
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.cycles import cycle_of
from ionbeam_dagster.orchestration import metadata
from ionbeam_dagster.orchestration.forgetting import mentions_of
from ionbeam_dagster.orchestration.holders import working_on
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.cycles import export_cycle
from ionbeam_dagster.pipeline.forgetting import forget, who_is
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.stations import change_entries
from ionbeam_dagster.sources.files.source import Files
from ionbeam_dagster.stores.ledger.leases import lease_of
from ionbeam_dagster.stores.privacy import PrivacyError
from ionbeam_dagster.stores.raw import RawStore


@pytest.fixture
def crowd(platform_of, tmp_path):
    def make(exports="[pygeoapi, odb, bufr, odb_cycle]", **sections):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "all.csv").write_text(rows())
        return platform_of(CROWD.replace("EXPORTS", exports), **sections)

    return make


def test_what_is_forgotten_is_nowhere_and_does_not_come_back(crowd, tmp_path, caplog, monkeypatch):
    platform = crowd()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    made(platform)
    change_entries(platform, lambda told: told.denied("crowd", "other", "x").denied("crowd", GONE, "asked"))
    platform.stations.entries()
    assert len(mentions(tmp_path, GONE)) > 15
    before = [platform.ledger.latest_revision("crowd", window).revision.number for window in WINDOWS]
    mark = platform.ledger.changes(0, 1_000)[-1].number
    told = CliRunner().invoke(app, ["--config", "config.yaml", "stations", "forget", "crowd", GONE, "--dry-run"])
    assert told.exit_code == 0 and "would go" in told.output
    assert {one.revision.number for one in platform.ledger.revisions("crowd", DAY, LATER)} == {*before}

    done = CliRunner().invoke(app, ["--config", "config.yaml", "stations", "forget", "crowd", GONE])
    assert done.exit_code == 0, done.output
    for kind in ("raw partitions", "rows in quarantine", "observations", "dataset windows", "the registry"):
        assert kind in done.output
    assert "data-raw/crowd.files.json" in done.output and "what crowd reads is its owner's" in done.output
    platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
    assert mentions(tmp_path, GONE) == []
    left_of(platform)
    after = [platform.ledger.latest_revision("crowd", window).revision.number for window in WINDOWS]
    assert after == [number + 1 for number in before]
    assert {one.built.revision.window for one in platform.ledger.changes(mark, 1_000) if one.built} == {*WINDOWS}
    assert platform.privacy.unfinished() == {}

    caplog.set_level("INFO")
    made(platform, again=True)  # the next sweep
    assert "7 rows of stations that are forgotten were left out" in caplog.text
    assert mentions(tmp_path, GONE) == []
    left_of(platform)
    assert forget(platform, who_is(platform, "crowd", GONE)).removed == []


def test_copies_for_the_gts_go_and_exports_that_are_not_to_be_shown_yet_wait(crowd, tmp_path):
    platform = crowd(exports="[bufr]", projections="{bufr_service: {settings: {cccc: EDZW}}}")
    made(platform)
    copies = tmp_path / "data-projections" / "gts" / "crowd"
    before = {path.name: path.read_bytes() for path in copies.iterdir()}
    config = tmp_path / "config.yaml"
    forget(platform, who_is(platform, "crowd", GONE))
    after = {path.name: path.read_bytes() for path in copies.iterdir()}
    assert len(after) == len(WINDOWS) and not {*after.values()} & {*before.values()}
    config.write_text(config.read_text().replace("    exports:", "    privacy: {delay: P3650D}\n    exports:"))
    platform = open_platform(IonbeamConfig.load(config))
    found = forget(platform, who_is(platform, "crowd", STAYS))
    waiting = [one.what for one in found.removed if one.kind == "exports, not to be shown yet"]
    assert len(waiting) == len(WINDOWS) and not any(Path(one).exists() for one in waiting)


def test_also_what_is_ingested_from_raw_files_that_were_put_back_leaves_it_out(crowd, tmp_path):
    platform = crowd(exports="[pygeoapi]")
    made(platform)
    raw = platform.ledger.raws("crowd", LATER)[0]
    kept = Path(raw.path).read_bytes()
    forget(platform, who_is(platform, "crowd", GONE))
    Path(raw.path).write_bytes(kept)
    platform.ledger.record_raw(raw)
    assert ingest(platform, platform.source("crowd"), raw.window).rows == 6


def test_exports_of_dataset_files_that_are_lost_are_told_and_do_not_keep_it_from_ending(crowd):
    platform = crowd(exports="[pygeoapi, odb_cycle]")
    made(platform)
    lost = platform.ledger.latest_revision("crowd", WINDOWS[0])
    Path(lost.path).unlink()
    formats = {"pygeoapi": WINDOWS[0], "odb_cycle": cycle_of(DAY)}
    exports = [platform.ledger.export("crowd", window, format).path for format, window in formats.items()]
    found = forget(platform, who_is(platform, "crowd", GONE))
    assert platform.privacy.unfinished() == {}
    told = [one for one in found.left if one.startswith(tuple(exports))]
    assert len(told) == 2 and all("`ionbeam rebuild crowd --force --from 2026-06-21" in one for one in told)
    again = {one.what for one in found.removed if one.kind == "exports, made again"}
    assert again == {platform.ledger.export("crowd", WINDOWS[1], "pygeoapi").path}


def test_cycles_whose_revisions_from_before_the_cut_off_are_gone_are_made_of_the_next_ones(crowd):
    platform = crowd(exports="[odb_cycle]")
    source, dataset, cycle = platform.source("crowd"), platform.dataset("crowd"), cycle_of(DAY)
    collect(platform, source, WINDOWS[0], LATER)
    ingest(platform, source, WINDOWS[0])
    build(platform, dataset, WINDOWS[0], WINDOWS[0].end)
    export_cycle(platform, dataset, platform.config.cycle_exporters["odb_cycle"], cycle, LATER)
    build(platform, dataset, WINDOWS[0], LATER, force=True)
    before = platform.ledger.export("crowd", cycle, "odb_cycle")
    assert before.facts.holds == {WINDOWS[0].key: 1} and before.facts.rows == 12
    forget(platform, who_is(platform, "crowd", GONE))
    after = platform.ledger.export("crowd", cycle, "odb_cycle")
    assert after.facts.holds == {WINDOWS[0].key: 3} and after.facts.rows == 6
    assert Path(after.path).exists() and platform.privacy.unfinished() == {}


def test_a_list_of_the_forgotten_without_its_key_lets_nothing_in(crowd, tmp_path):
    platform = crowd(exports="[pygeoapi]")
    made(platform)
    forget(platform, who_is(platform, "crowd", GONE))
    key = next(tmp_path.rglob("privacy.key"))
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    with pytest.raises(PrivacyError, match="put a copy of it back"):
        collect(platform, platform.source("crowd"), WINDOWS[0], LATER)


def test_dagsters_pages_and_logs_lose_it_too_and_keep_the_others(crowd, tmp_path, monkeypatch):
    platform = crowd(exports="[pygeoapi]")
    home = tmp_path / "dagster"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    runner = CliRunner()
    range = ["--from", "2026-06-21", "--to", "2026-06-21T02:00Z"]
    done = runner.invoke(app, ["--config", "config.yaml", "run", "crowd", *range])
    assert done.exit_code == 0, done.output
    assert mentions(home, GONE)
    done = runner.invoke(app, ["--config", "config.yaml", "stations", "forget", "crowd", GONE])
    assert done.exit_code == 0, done.output
    assert "texts and pictures on Dagster's pages" in done.output
    assert mentions(tmp_path, GONE) == []
    told = b"".join(path.read_bytes() for path in home.rglob("*.db"))
    assert b"data:image/png" not in told and b"this told of a station that is forgotten" in told
    with dagster_instance(platform.config) as instance:
        key = dg.AssetKey(["crowd", "dataset"])
        assert instance.get_materialized_partitions(key) == {window.key for window in WINDOWS}
        event = instance.get_latest_materialization_event(key)
        assert event.asset_materialization.metadata["stations"].value == 2


def test_on_redis_s3_and_influxdb_it_is_nowhere_either(platform_of, redis, s3, influxdb, tmp_path):
    root = s3.bucket("forgetting")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "all.csv").write_text(rows())
    at_influxdb = {
        "influxdb_url": influxdb.url, "influxdb_org": influxdb.org, "influxdb_bucket": "forgetting",
        "influxdb_token": influxdb.token,
    }  # fmt: skip
    projections = {f"{name}_service": {"output_path": f"{root}/out"} for name in ("odb", "bufr", "pygeoapi")}
    platform = platform_of(
        CROWD.replace("EXPORTS", "[pygeoapi, odb, bufr, odb_cycle]") + f"    data_path: {root}/raw\n",
        redis=json.dumps({"redis_url": redis.url}), s3=json.dumps(s3.section()), projections=json.dumps(projections),
        influxdb_common=json.dumps(at_influxdb), dataset_aggregator=json.dumps({"data_path": f"{root}/data"}),
    )  # fmt: skip
    made(platform)

    def mentioned():
        kept = tmp_path / f"of-s3-{len(list(tmp_path.glob('of-s3-*')))}"
        for number, place in enumerate(platform.files.listed(root)):
            with platform.files.fetched(place) as local:
                kept.mkdir(exist_ok=True)
                copyfile(local, kept / f"{number}-{Path(place).name}")
        server = Redis.from_url(redis.url)
        server.config_set("rdbcompression", "no")
        told = [key + server.dump(key) for key in server.scan_iter()]
        found = (
            mentions(kept, GONE),
            [one for one in told if GONE.encode() in one],
            mentions(tmp_path / "ionbeam-state", GONE),
        )
        rmtree(kept)
        return *map(len, found), platform.series.of_station("crowd", GONE, remove=False)

    before = mentioned()
    assert before[0] > 5 and before[2] > 3 and before[3] == 12, before
    done = CliRunner().invoke(app, ["--config", "config.yaml", "stations", "forget", "crowd", GONE])
    assert done.exit_code == 0, done.output
    assert mentioned() == (0, 0, 0, 0)
    left_of(platform)
    made(platform, again=True)
    assert mentioned() == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "text", "tells"),
    [
        ("roof", "the first: no latitude (roof).", True),
        ("roof", "crowd: roof. Nothing else", True),
        ("roof", "roof.2 and roof-top and sunroof", False),
        ("roof.2", "no place of roof.2.", True),
        ("1", "1 rows of 1 stations, 100.1", False),
        ("1", "station 1: no latitude", True),
        ("1", "stations=1", True),
        ("1", "{'station_id': '1'}", True),
        ("1", metadata.table(["reason", "rows"], [("no latitude", 1)]), False),
        ("1", metadata.table(["station_id", "rows"], [("2", 1)]), False),
        ("1", "Preview\n\n" + metadata.table(["rows", "station_id"], [(5, "2"), (5, "1")]), True),
        ("70:ee:50", metadata.table(["station", "last heard"], [("70:ee:50", "never")]), True),
        ("", "nothing | of | it", False),
    ],
)
def test_a_station_is_found_where_a_text_tells_of_it_and_a_number_is_no_station(name, text, tells):
    assert mentions_of([name] if name else [])(text) is tells


def test_what_runs_printed_of_it_is_blanked_in_its_place(crowd, tmp_path, monkeypatch):
    platform = crowd(exports="[pygeoapi]")
    made(platform)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with (
        dagster_instance(platform.config) as instance,
        instance.compute_log_manager.open_log_stream(["a-run", "compute_logs", "x"], ComputeIOType.STDERR) as printed,
    ):
        printed.write(f"crowd begins\n{GONE}: no latitude\n{STAYS}: no latitude\n")
    [log] = [path for path in (tmp_path / "dagster").rglob("*.err") if GONE in path.read_text()]
    size = log.stat().st_size
    done = CliRunner().invoke(app, ["--config", "config.yaml", "stations", "forget", "crowd", GONE])
    assert done.exit_code == 0 and "lines of the logs of runs" in done.output, done.output
    first, blanked, last = log.read_text().splitlines()
    assert (first, last, log.stat().st_size) == ("crowd begins", f"{STAYS}: no latitude", size) and GONE not in blanked


def test_what_was_at_work_before_is_let_end_and_leaves_nothing_behind(crowd, tmp_path, monkeypatch):
    platform = crowd(exports="[pygeoapi]")
    made(platform)
    platform.ledger.workers.beat("slow", "elsewhere", 1, "a run")
    lease = [lease_of("collect", "crowd", WINDOWS[0])]
    assert platform.ledger.leases.take(lease, "slow") == lease
    asked, answers = Event(), Event()
    given = Files.fetch

    def slowly(source, window):
        asked.set()
        assert answers.wait(30)
        yield from given(source, window)

    monkeypatch.setattr(Files, "fetch", slowly)
    arguments = ["--config", "config.yaml", "stations", "forget", "crowd", GONE]
    with ThreadPoolExecutor() as both:
        collected = both.submit(collect, platform, platform.source("crowd"), WINDOWS[0], LATER)
        assert asked.wait(30)
        done = both.submit(CliRunner().invoke, app, arguments)
        while not platform.privacy.unfinished():
            assert not done.done()
            sleep(0.05)
        wait([done], timeout=4)
        assert not done.done()
        answers.set()
        collected.result(30)
        platform.ledger.leases.give_back(lease, "slow")
        assert done.result(30).exit_code == 0, done.result().output
    assert mentions(tmp_path, GONE) == []


def test_what_is_collected_while_its_raw_partition_is_written_again_is_not_lost(crowd, tmp_path, monkeypatch):
    platform = crowd(exports="[pygeoapi]")
    made(platform)
    written_again, began = RawStore.write_again, Event()

    def again():
        platform.ledger.workers.beat("a run", "elsewhere", 1, "collects")
        with working_on(platform, "collect", "crowd", WINDOWS[0], "a run"):
            collect(platform, platform.source("crowd"), WINDOWS[0], LATER)

    with ThreadPoolExecutor() as pool:

        def while_others_collect(store, file, ingestion, left):
            def left_meanwhile(batch):
                if not began.is_set():
                    began.set()
                    (tmp_path / "in" / "all.csv").write_text(rows((GONE, STAYS, "mast")))
                    collected.append(pool.submit(again))
                    wait(collected, timeout=4)
                return left(batch)

            written_again(store, file, ingestion, left_meanwhile)

        collected = []
        monkeypatch.setattr(RawStore, "write_again", while_others_collect)
        done = CliRunner().invoke(app, ["--config", "config.yaml", "stations", "forget", "crowd", GONE])
        assert done.exit_code == 0, done.output
        collected[0].result(30)
    assert platform.ledger.leases.held() == {}
    raw = platform.ledger.raw("crowd", WINDOWS[0])
    assert sorted({*pl.read_parquet(raw.path)["station_id"]}) == ["mast", STAYS]
    assert platform.raws(platform.source("crowd")).measured(raw.path) == (raw.rows, raw.bytes, raw.hash)


def kill(folder: Path, step: int, seconds: int) -> tuple[int, str]:
    command = [sys.executable, str(Path(__file__).with_name("forgotten.py")), str(folder), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    *wrong, writes = done.stdout.splitlines()
    return int(writes.removeprefix("writes: ")), "\n".join(wrong)


def test_killed_here_and_there_it_is_ended_by_the_next_one(tmp_path):
    writes, wrong = kill(tmp_path, step=23, seconds=120)
    assert writes > 100 and wrong == ""


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_killed_at_every_write_it_is_ended_by_the_next_one(tmp_path):
    _, wrong = kill(tmp_path, step=1, seconds=3600)
    assert wrong == ""
