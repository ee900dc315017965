"""Sensor.Community over real HTTP: its archive's layouts and habits, its faults, and the live document."""

import gzip
import json
import re
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from sensor_community_service import Archive, LiveDocument, file, month_zip, record, synthetic_day

from ionbeam_dagster.domain.canonical import canonicalise
from ionbeam_dagster.domain.forgotten import Forgotten, mark_of
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.orchestration.definitions import build_definitions
from ionbeam_dagster.orchestration.resources import WatchedPlatform
from ionbeam_dagster.pipeline.agenda import needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources.sensor_community import archive, live
from ionbeam_dagster.testing.service import Reply, empty, html, not_utf8, redirected, slow, status, truncated

DAY = "2026-06-21"
START = datetime(2026, 6, 21, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(days=1))
PLACE = "42;48.800;9.003;2026-06-21"


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """It is the last day of June 2026, and waits between tries are not sat through."""
    monkeypatch.setattr(archive, "_now", lambda: datetime(2026, 6, 30, tzinfo=UTC))
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", lambda seconds: None)


@pytest.fixture
def served():
    opened = []

    def serve(service):
        opened.append(service)
        return service.__enter__()

    yield serve
    for service in opened:
        service.__exit__()


def source(service, folder, **keys):
    config = archive.ArchiveConfig(
        base_url=service.url, data_path=folder, timeout_seconds=0.5, max_retries=1, concurrency=4, **keys
    )
    return archive.Archive("sensor_community", config)


def fetched(feed, window=WINDOW):
    batches = list(feed.fetch(window))
    return pl.concat([pl.from_arrow(batch) for batch in batches]) if batches else pl.DataFrame()


def small_day():
    return (
        file(DAY, "sds011", 92, [f"{PLACE}T13:02:46;7.71;;;5.03;;", f"{PLACE}T13:05:16;8.00;;;5.10;;"])
        | file(DAY, "dht22", 93, [f"{PLACE}T13:02:47;11.10;68.90"])
        | file(DAY, "bme280", 94, [f"{PLACE}T13:02:48;96913.02;;98000.10;12.75;63.35"])
    )


@pytest.mark.parametrize(
    ("past", "suffix"), [((2024, 2025), ".csv"), ((2026,), ".csv.gz"), ((2026,), ".csv"), ((), ".csv.gz")]
)
def test_both_layouts_and_both_suffixes_give_the_same_rows(served, tmp_path, past, suffix):
    files = file(DAY, "sds011", 92, [f"{PLACE}T13:02:46;7.71;;;5.03;;"], suffix)
    rows = fetched(source(served(Archive({DAY: files}, past)), tmp_path))
    assert rows.select("station_id", "platform_id", "location_id", "lat", "P1", "P2", "indoor", "mobility").rows() == [
        ("SC92", "92", "42", "48.800", "7.71", "5.03", "false", "fixed")
    ]


def test_a_year_that_moves_while_it_is_read_is_found(served, tmp_path):
    """The root listing still names the day at the top, but the folder has moved."""
    service = served(Archive({DAY: small_day()}, (2026,)))
    service.break_("^/$", lambda reply: Reply(f'<html><a href="{DAY}/">x</a></html>'.encode()))
    assert fetched(source(service, tmp_path)).height == 4


def test_files_that_are_packed_while_the_day_is_read_are_found(served, tmp_path):
    service = served(Archive({DAY: small_day()}))
    feed = source(service, tmp_path)
    feed.signature(WINDOW)  # the listing is read
    service.days[DAY] = {f"{name}.gz": gzip.compress(body) for name, body in service.days[DAY].items()}
    assert fetched(feed).height == 4


def test_a_file_that_was_withdrawn_is_left_out_but_one_that_should_be_there_fails(served, tmp_path):
    service = served(Archive({DAY: small_day()}))
    feed = source(service, tmp_path)
    feed.signature(WINDOW)
    del service.days[DAY][f"{DAY}_dht22_sensor_93.csv"]
    assert fetched(feed).height == 3
    service.break_("sensor_94", status(404), times=99)
    with pytest.raises(SourceError, match=r"2026-06-21_bme280_sensor_94: is listed, but not there"):
        fetched(source(service, tmp_path))


def test_a_day_that_is_not_published_is_no_empty_day(served, tmp_path, monkeypatch):
    service = served(Archive({DAY: small_day()}))
    monkeypatch.setattr(archive, "_now", lambda: datetime(2026, 6, 22, 8, tzinfo=UTC))
    with pytest.raises(SourceError, match=r"2026-06-21: is not published completely before 2026-06-22T09:00Z"):
        fetched(source(service, tmp_path))
    monkeypatch.setattr(archive, "_now", lambda: datetime(2026, 6, 30, tzinfo=UTC))
    del service.days[DAY]
    with pytest.raises(SourceError, match=r"2026-06-21: is not in the archive \(.* has no folder /2026-06-21/"):
        fetched(source(service, tmp_path))
    service.days[DAY] = {}
    with pytest.raises(SourceError, match="lists no sensor's file"):
        fetched(source(service, tmp_path))


def test_windows_are_whole_days(served, tmp_path):
    with pytest.raises(SourceError, match="let the source's window_size be P1D"):
        fetched(source(served(Archive({DAY: small_day()})), tmp_path), Window(START, START + timedelta(hours=1)))


def test_indoor_sensors_are_off_by_default_and_told(served, tmp_path):
    files = file(DAY, "dht22", 1, [f"{PLACE}T01:00:00;20;50"], indoor=True)
    service = served(Archive({DAY: files | file(DAY, "dht22", 2, [f"{PLACE}T01:00:00;10;50"])}))
    assert fetched(source(service, tmp_path))["platform_id"].to_list() == ["2"]
    rows = fetched(source(service, tmp_path, indoor=True))
    assert sorted(rows.select("platform_id", "indoor").rows()) == [("1", "true"), ("2", "false")]
    only_indoor = served(Archive({DAY: files}))
    assert fetched(source(only_indoor, tmp_path / "other")).height == 0


def test_every_type_mixed_rows_and_what_is_no_value(served, tmp_path):
    """What cannot be used goes to the quarantine with its reason, and takes no other row with it."""
    types = "sds011 ppd42ns sds021 pms1003 pms3003 pms5003 pms6003 pms7003 hpm sps30 dht11 dht22 htu21d sht30 ds18b20"
    columns = {"sps30": "P1;P4;P2;P0;N10;N4;N25;N1;N05;TS", "hpm": "P1;P2", "ds18b20": "temperature"}
    columns |= dict.fromkeys(["bmp180", "bmp280"], "pressure;altitude;pressure_sealevel;temperature")
    columns |= dict.fromkeys(["sds011", "ppd42ns", "sds021"], "P1;durP1;ratioP1;P2;durP2;ratioP2")
    head = "sensor_id;sensor_type;location;lat;lon;timestamp;"
    files = {}
    for i, type in enumerate([*types.split(), "bmp180", "bmp280", "bme280"]):
        given = columns.get(type, "P1;P2;P0" if type.startswith("pms") else "temperature;humidity")
        given = "pressure;altitude;pressure_sealevel;temperature;humidity" if type == "bme280" else given
        values = ";".join("" if n[:3] in ("dur", "rat", "alt") else "20.5" for n in given.split(";"))
        files[f"{DAY}_{type}_sensor_{i}.csv"] = (
            f"{head}{given}\n{i};{type.upper()};1;48.8;9.0;{DAY}T00:00:19;{values}\n".encode()
        )
    files[f"{DAY}_sps30_sensor_80.csv"] = (
        f"{head}{columns['sps30']}\n80;SPS30;1;48.8;9.0;{DAY}T00:00:19;9.6;;5.4;;;;;;;\n"
        f"80;SPS30;1;48.8;9.0;{DAY}T00:03:19;9.7\n80;SPS30;1;48.8;9.0;{DAY}T00:06:19;9.8;;5.5;;;;;;;;;;\n"
    ).encode()
    files |= file(
        DAY,
        "dht22",
        81,
        [
            f"42;;;{DAY}T00:00:00;11.1;68",  # no place
            f"{PLACE}T00:01:00.946949+00:00;11.2;68",  # an aware time with microseconds
            f"{PLACE}T00:02:00;unknown;68",
            f"{PLACE}T00:03:00;nan;unavailable",  # no value at all
            f"{PLACE}T00:04:00;%.1f;68",
            f"{PLACE}T00:05:00;-146.1;68",  # a dead sensor's: a matter of quality control, not of reading
            f"{PLACE}T00:06:00;11.3;68",
            f"{PLACE}T00:06:00;11.4;68",  # a contradiction: the later one
        ],
    )
    files[f"{DAY}_dnms_sensor_82.csv"] = f"{head}noise_LAeq\n82;DNMS;1;48.8;9.0;{DAY}T00:00:19;50\n".encode()
    feed = source(served(Archive({DAY: files})), tmp_path)
    done = [canonicalise(batch, feed.metadata) for batch in feed.fetch(WINDOW)]
    rows, rejected = pl.concat([one.rows for one in done]), pl.concat([one.rejected for one in done])
    assert {f"SC{i}" for i in range(18)} <= set(rows["station_id"])
    sps30 = rows.filter(pl.col("station_id") == "SC80").sort("datetime")
    dust = "mass_concentration_of_{}_ambient_aerosol_particles_in_air__ug m-3__2.0__point__PT0S"
    assert sps30[dust.format("pm10")].to_list() == [9.6, 9.7, 9.8]
    assert sps30[dust.format("pm2p5")].to_list() == [5.4, None, 5.5]
    dht = rows.filter(pl.col("station_id") == "SC81")
    assert dht["air_temperature__degC__2.0__point__PT0S"].to_list() == [11.2, None, None, -146.1, 11.3, 11.4]
    assert sorted(rejected["reason"]) == [
        "no latitude; no longitude", "no value in any variable", "temperature is no float64: %.1f",
    ]  # fmt: skip
    assert feed.problems() == ["1 files a day of type 'dnms', whose columns are not known, are left out"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (status(500), "500 Internal Server Error"),
        (truncated, "the answer broke off"),
        (slow(1), "no data within the time-out"),
        (empty, "the answer is empty, but was listed with a size"),
        (html, "is no sensor's CSV, but begins with b'<!DOCTYPE html>"),
        (not_utf8, "is not utf-8 text"),
    ],
)
def test_a_file_with_a_fault_fails_its_day_which_then_goes_on_where_it_stopped(served, tmp_path, fault, told):
    service = served(Archive({DAY: small_day()}))
    service.break_("sensor_94", fault, times=99)
    with pytest.raises(SourceError) as failure:
        fetched(source(service, tmp_path))
    assert f"{DAY}_bme280_sensor_94.csv: " in str(failure.value)
    assert told in str(failure.value)
    service.repair()
    service.seen.clear()
    assert fetched(source(service, tmp_path)).height == 4
    assert len(service.paths("sensor_94")) == 1


def test_a_gzip_file_that_is_none_is_told(served, tmp_path):
    service = served(Archive({DAY: file(DAY, "dht22", 1, [f"{PLACE}T01:00:00;20;50"], ".csv.gz")}))
    service.break_("sensor_1", html, times=9)
    with pytest.raises(SourceError, match=r"sensor_1.csv.gz: the answer is not a whole gzip file"):
        fetched(source(service, tmp_path))


def test_a_day_that_failed_goes_on_and_leaves_nothing_behind(served, tmp_path):
    files = synthetic_day(date(2026, 6, 21), 300, 4)
    service = served(Archive({DAY: files}))
    last = sorted(files)[-1]
    service.break_(last, status(500), times=99)
    with pytest.raises(SourceError):
        fetched(source(service, tmp_path))
    had = len(set(service.paths("_sensor_")))
    service.repair()
    service.seen.clear()
    told = []
    feed = source(service, tmp_path)
    feed.progress = lambda what, done, of: told.append((what, done, of))
    assert fetched(feed).height == 1200
    assert had == 300
    assert service.paths("_sensor_") == [f"/{DAY}/{last}"]
    assert told == [(f"sensor_community {DAY} files", 300, 300)]
    assert list((tmp_path / "sensor_community.files").iterdir()) == []


def test_a_listing_that_is_none_fails(served, tmp_path):
    service = served(Archive({DAY: small_day()}))
    for fault, told in [
        (html, "does not look like the archive's listing"),
        (empty, "is empty"),
        (truncated, "broke off"),
    ]:
        service.break_("^/$", fault, times=2)
        with pytest.raises(SourceError, match=told):
            fetched(source(service, tmp_path))
        service.repair()


def test_a_redirect_is_followed(served, tmp_path):
    service, mirror = served(Archive({DAY: small_day()})), served(Archive({DAY: small_day()}))
    service.break_("sensor_94", redirected(f"{mirror.url}/{DAY}/{DAY}_bme280_sensor_94.csv"))
    assert fetched(source(service, tmp_path)).height == 4
    assert mirror.paths() == [f"/{DAY}/{DAY}_bme280_sensor_94.csv"]


def test_a_day_through_the_platform_and_again_when_it_is_published_again(served, platform_of):
    service = served(Archive({DAY: small_day()}))
    platform = platform_of(
        f"  sensor_community: {{base_url: '{service.url}', start: 2026-06-21, use_cache: true, aggregation_span: P1D}}"
    )
    now = datetime(2026, 6, 30, tzinfo=UTC)
    assert platform.config.sources["sensor_community"].window_lag == timedelta(hours=9)
    assert collect(platform, platform.source("sensor_community"), WINDOW, now).rows == 4
    assert not needs_collecting(platform, "sensor_community", WINDOW)
    ingest(platform, platform.source("sensor_community"), WINDOW)
    assert build(platform, platform.dataset("sensor_community"), WINDOW, now).revision.facts.rows == 4
    for format in ("odb", "pygeoapi"):
        assert (
            export(
                platform, platform.dataset("sensor_community"), platform.config.window_exporters[format], WINDOW
            ).report.stations
            >= 2
        )

    changed = f"{DAY}_dht22_sensor_93.csv"
    service.days[DAY] |= file(DAY, "dht22", 93, [f"{PLACE}T13:02:47;11.10;68.90", f"{PLACE}T23:59:00;9.10;70.0"])
    service.changed[changed] = "2026-06-23 04:00"
    platform.sources["sensor_community"]._listed.clear()
    assert needs_collecting(platform, "sensor_community", WINDOW)
    service.seen.clear()
    assert collect(platform, platform.source("sensor_community"), WINDOW, now).rows == 5
    assert service.paths("_sensor_") == [f"/{DAY}/{changed}"]
    ingest(platform, platform.source("sensor_community"), WINDOW)
    assert build(platform, platform.dataset("sensor_community"), WINDOW, now).revision.revision.number == 2


def test_a_day_that_is_published_again_is_seen_by_the_automation_for_some_days(served, platform_of, monkeypatch):
    service = served(Archive({DAY: small_day()}))
    platform = platform_of(f"  sensor_community: {{base_url: '{service.url}', start: 2026-06-21}}")
    clock = [datetime(2026, 6, 22, 10, tzinfo=UTC)]
    monkeypatch.setattr(type(platform), "now", lambda self: clock[0])
    repository = build_definitions(WatchedPlatform(platform)).get_repository_def()
    sensor = repository.get_sensor_def("sensor_community__changes")
    cursor = [None]

    def tick(later):
        clock[0] += later
        service.seen.clear()
        platform.sources["sensor_community"]._listed.clear()
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(instance=instance, cursor=cursor[0], repository_def=repository)
            cursor[0] = sensor.evaluate_tick(context).cursor
        noted = {one.window: one.token for one in platform.ledger.attempts.open("collect", "sensor_community")}
        platform.ledger.attempts.settle("collect", "sensor_community", noted, platform.now())
        return [window.key for window in noted]

    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    assert tick(minute) == []
    assert service.paths() == []  # what was never collected is for the clock
    collect(platform, platform.source("sensor_community"), WINDOW, clock[0])
    assert tick(minute) == []
    service.days[DAY] |= file(DAY, "dht22", 95, [f"{PLACE}T13:02:47;11.10;68.90"])
    assert tick(minute) == []
    assert service.paths() == []  # it was looked at within the hour
    service.break_("^/", status(500), times=9)
    assert tick(hour) == []
    service.repair()
    assert tick(hour) == ["20260621T000000"]
    assert tick(minute) == []
    assert tick(hour) == ["20260621T000000"]  # the run failed, or never came
    assert collect(platform, platform.source("sensor_community"), WINDOW, clock[0]).changed
    assert tick(hour) == []
    assert tick(timedelta(days=3)) == []
    assert service.paths() == []
    assert json.loads(json.loads(cursor[0])["source"]) == {}


# Months in one piece


def served_month(served, days=("2026-05-30", "2026-05-31"), made="2026-06-02 03:00"):
    """An archive with two days of May, and the zips of May."""
    service = served(Archive({day: synthetic_day(date.fromisoformat(day), 8, 40) for day in days}))
    for type in ("bme280", "sds011"):
        files = {name: body for day in days for name, body in service.days[day].items() if type in name}
        name = f"2026-05_{type}"
        service.months[f"/csv_per_month/2026-05/{name}.zip"] = month_zip(f"{name}.csv", files)
        service.changed[f"{name}.zip"] = made
    return service


def day_of(text):
    start = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return Window(start, start + timedelta(days=1))


def sorted_rows(feed, day):
    return fetched(feed, day_of(day)).sort("station_id", "timestamp")


def test_a_month_in_bulk_gives_the_rows_of_its_days_and_is_fetched_once(served, tmp_path):
    service = served_month(served)
    # Of one sensor May's zip knows nothing, one is inside, and one was moved from the inside to the outside.
    late = file("2026-05-30", "sds011", 2001, ["9;48.1;9.1;2026-05-30T01:00:00;1;;;2;;"])
    inside = "2026-05-30_bme280_sensor_1002"
    moved = "2026-05-30_bme280_sensor_1004"
    files = service.days["2026-05-30"] | late
    files[f"{inside}_indoor.csv"] = files.pop(f"{inside}.csv")
    files[f"{moved}_indoor.csv"] = files[f"{moved}.csv"].partition(b"\n")[0] + b"\n"
    service.days["2026-05-30"] = files
    days = ("2026-05-30", "2026-05-31")
    one_by_one = [sorted_rows(source(service, tmp_path / "files"), day) for day in days]
    service.seen.clear()
    bulk = [sorted_rows(source(service, tmp_path / "bulk", bulk=True), day) for day in days]
    assert [rows.height for rows in bulk] == [7 * 40 + 1, 8 * 40]
    assert all(mine.equals(theirs) for mine, theirs in zip(bulk, one_by_one, strict=True))
    assert sorted(service.paths("_sensor_")) == [f"/2026-05-30/{moved}.csv", f"/2026-05-30/{next(iter(late))}"]
    assert len(service.paths(r"\.zip")) == 2
    assert not list((tmp_path / "bulk").rglob("*.parquet"))
    assert not list((tmp_path / "bulk").rglob("*.zip*"))


def test_a_month_that_is_not_over_comes_day_by_day(served, tmp_path):
    service = served_month(served, made="2026-05-31 03:00")
    assert fetched(source(service, tmp_path, bulk=True), day_of("2026-05-30")).height == 8 * 40
    assert service.paths(r"\.zip") == []


def test_a_zip_that_breaks_off_is_gone_on_with(served, tmp_path):
    service = served_month(served)
    service.break_("bme280.zip", truncated, times=2)
    with pytest.raises(SourceError, match=r"2026-05_bme280.zip: the answer broke off"):
        fetched(source(service, tmp_path, bulk=True), day_of("2026-05-30"))
    assert fetched(source(service, tmp_path, bulk=True), day_of("2026-05-30")).height == 8 * 40
    size = len(service.months["/csv_per_month/2026-05/2026-05_bme280.zip"])
    here = [0, size // 2, size // 2 + (size - size // 2) // 2]
    asked = [request.headers.get("range", "bytes=0-") for request in service.seen if "bme280.zip" in request.path]
    assert asked == [f"bytes={begin}-" for begin in here]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda zipped: zipped[: len(zipped) // 2], "not a zip file"),
        (lambda zipped: zipped[:200] + bytes(50) + zipped[250:], "2026-05_bme280.zip: cannot be read"),
        (lambda zipped: month_zip("other.txt", {"a": b"x\n"}), "it holds 0 CSV files, not one"),
        (lambda zipped: month_zip("other.csv", {"a": b"id;x\n1;2\n"}), "is no sensors' CSV, but begins with b'id;x'"),
    ],
)
def test_a_damaged_month_fails_with_its_place_and_is_fetched_anew(served, tmp_path, damage, told):
    service = served_month(served)
    place = "/csv_per_month/2026-05/2026-05_bme280.zip"
    whole = service.months[place]
    service.months[place] = damage(whole)
    with pytest.raises(SourceError, match=re.escape(told)) as failure:
        fetched(source(service, tmp_path, bulk=True), day_of("2026-05-30"))
    assert f"{service.url}{place}" in str(failure.value)
    service.months[place] = whole
    assert fetched(source(service, tmp_path, bulk=True), day_of("2026-05-30")).height == 8 * 40


# The live document

LIVE = Window(datetime(2026, 6, 21, 11, 55, tzinfo=UTC), datetime(2026, 6, 21, 12, tzinfo=UTC))
NEXT = Window(LIVE.end, LIVE.end + timedelta(minutes=5))


def live_source(service, folder):
    config = live.LiveConfig(base_url=f"{service.url}/static/v2/data.json", data_path=folder, max_retries=1)
    return live.Live("live", config)


def at(clock, id, sensor=7, **values):
    return record(id, sensor, f"{DAY} {clock}", **(values or {"temperature": "20.00"}))


def test_a_record_is_taken_once_and_never_lost(served, tmp_path):
    service = served(LiveDocument([at("11:56:00", 1), at("11:58:00", 2)]))
    assert fetched(live_source(service, tmp_path), LIVE)["timestamp"].to_list() == [
        f"{DAY} 11:56:00",
        f"{DAY} 11:58:00",
    ]
    service.records = [at("11:58:00", 2), at("11:59:59", 3), at("12:01:00", 4), at("12:02:00", 5)]
    new = fetched(live_source(service, tmp_path), NEXT)
    assert new["timestamp"].to_list() == [f"{DAY} {clock}" for clock in ("11:59:59", "12:01:00", "12:02:00")]
    service.records = []
    again = fetched(live_source(service, tmp_path), NEXT)  # its raw file was lost, or could not be written
    assert again.equals(new)


@pytest.mark.parametrize("fault", [truncated, html, empty, status(500), lambda reply: Reply(reply.body[:-9])])
def test_a_document_with_a_fault_counts_nothing_as_seen(served, tmp_path, fault):
    service = served(LiveDocument([at("11:56:00", i) for i in range(7000)]))
    service.break_("data.json", fault, times=2)
    feed = live_source(service, tmp_path)
    with pytest.raises(SourceError, match=r"data.json"):
        fetched(feed, LIVE)
    service.repair()
    assert fetched(feed, LIVE).height == 7000


def test_a_station_that_is_forgotten_is_not_kept_in_the_journal(served, tmp_path):
    service = served(LiveDocument([at("11:56:00", 1), at("11:58:00", 2, sensor=8)]))
    key, mark = b"key", mark_of(b"key", "forgotten", "live", "SC7")
    feed = live_source(service, tmp_path)
    feed.forgotten = lambda: Forgotten("live", key, frozenset({mark}))
    assert fetched(feed, LIVE)["station_id"].to_list() == ["SC8"]
    assert fetched(live_source(served(LiveDocument([])), tmp_path), LIVE)["station_id"].to_list() == ["SC8"]


def test_others_write_into_the_journal_while_the_service_lets_one_wait(served, tmp_path):
    class Slow(LiveDocument):
        meanwhile = None

        def answer(self, request):
            if self.meanwhile is None:
                self.meanwhile = 0
                self.meanwhile = fetched(live_source(self, tmp_path), NEXT).height
            return super().answer(request)

    service = served(Slow([at("11:56:00", 1), at("12:01:00", 2)]))
    assert fetched(live_source(service, tmp_path), LIVE).height == 0  # the other has them
    assert service.meanwhile == 2


def test_a_window_that_the_document_says_nothing_of_is_a_gap(served, tmp_path):
    service = served(LiveDocument([at("12:01:00", 1), at("12:04:00", 2)]))
    feed = live_source(service, tmp_path)
    with pytest.raises(SourceError, match=r"says nothing of 2026-06-21 11:55-12:00: it holds 2026-06-21 12:01:00 to"):
        fetched(feed, LIVE)
    assert fetched(feed, NEXT).height == 2
    service.records = []
    with pytest.raises(SourceError, match="it holds no record"):
        fetched(feed, Window(NEXT.end, NEXT.end + timedelta(minutes=5)))


def test_what_the_live_document_calls_otherwise(served, tmp_path):
    odd = at(
        "11:56:00", 1, temperature="nan", pressure_at_sealevel="101325.00", lat="1", noise_LAeq="50", signal="-70 dBm"
    )
    inside = record(2, 8, f"{DAY} 11:57:00", indoor=1, temperature="25")
    feed = live_source(served(LiveDocument([odd, inside])), tmp_path)
    row = fetched(feed, LIVE)
    assert row.select("pressure_sealevel", "temperature", "station_height", "sensor_type", "indoor").rows() == [
        ("101325.00", "nan", "38.7", "DHT22", "false")
    ]
    assert feed.problems() == [
        "1 values a document of 'noise_LAeq', which is not known, are left out",
        "1 values a document of 'signal', which is not known, are left out",
    ]


def test_the_real_excerpt_comes_out_record_for_record(served, tmp_path, real_data):
    place = real_data / "sensor_community" / "live_data_v2_excerpt.json"
    records = json.loads(place.read_text())
    feed = live_source(served(LiveDocument(records)), tmp_path)
    start = datetime(2019, 4, 25, 1, 50, tzinfo=UTC)
    rows = fetched(feed, Window(start, start + timedelta(minutes=5)))
    expected = [
        (f"SC{r['sensor']['id']}", r["timestamp"], v["value_type"], v["value"])
        for r in records
        for v in r["sensordatavalues"]
        if v["value_type"] in rows.columns
    ]
    found = rows.unpivot(on=["P1", "P2", "temperature", "humidity", "pressure"], index=["station_id", "timestamp"])
    assert sorted(found.drop_nulls("value").rows()) == sorted(expected)
    assert rows.height == len(records)
