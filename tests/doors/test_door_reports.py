"""Reports of devices at the HTTP door: every reading counts once, however, and however often, it comes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgpack
import polars as pl
import pytest
from door_samples import FLEET, HOUR, OTHER, TEMPERATURE, TOKEN, bring_up_to_date, opened, points
from fleet import DyingDoor
from oracles import python_with

from ionbeam_client.archfx.api.connection import Api
from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from ionbeam_client.archfx.reports.report import ArchFXDataPoint
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.doors.http.flush import Flush
from ionbeam_dagster.doors.http.journal import Journal
from ionbeam_dagster.doors.http.memory import Memory, door_folder
from ionbeam_dagster.doors.http.reports import BadReport, Once, read_report
from ionbeam_dagster.doors.http.status import door_status

sys.path.append(str(Path(__file__).parents[1] / "client_archfx"))
THEN = window_of(datetime.now(UTC) - 3 * HOUR, HOUR).start


def report(numbers, device=7, streamer=0x100, first=THEN):
    readings = [
        ArchFXDataPoint(first + timedelta(seconds=number), 0x5001, float(number), reading_id=number)
        for number in numbers
    ]
    return ArchFXFlexibleDictionaryReport.FromReadings(device, readings, streamer=streamer)


def logged_in(url):
    api = Api(url)
    assert not api.login(email="fleet@example.com", password="wrong-password")
    assert api.login(email="fleet@example.com", password=TOKEN)
    return api


def test_readings_count_once_twice_out_of_order_and_overlapping(platform_of):
    platform = platform_of(FLEET)
    with opened(platform) as (door, url):
        api = logged_in(url)
        assert report(range(11, 21)).upload(api) == 10
        assert report(range(1, 6)).upload(api) == 5  # out of order
        assert report(range(11, 21)).upload(api) == 0  # again
        door.flush.run()
        assert report(range(3, 14)).upload(api) == 5  # overlapping, with what is taken in, too
        assert report([8, 8, 9, 30]).upload(api) == 1
        assert report(range(1, 6), streamer=0x101).upload(api) == 5  # another sequence
        assert report([0, 0]).upload(api) == report([0, 0]).upload(api) == 2  # no number at all
        assert api.streamer("t--0000-0000-0000-0007--0100").get()["last_id"] == 30
        assert api.refresh_token()
        api.logout()
        door.flush.run()
        [rows] = [sum(raw.rows for raw in sent.values()) for sent in [sent_to(platform)]]
    bring_up_to_date(platform)
    values = points(platform, window_of(THEN, HOUR))[TEMPERATURE].sort().to_list()
    assert values == [0.0, *map(float, range(1, 21)), 30.0] and rows == 21 + 5 + 1


def test_a_device_that_counts_anew_loses_nothing_and_is_told(platform_of, caplog):
    platform = platform_of(FLEET)
    later = THEN + timedelta(minutes=30)
    with opened(platform) as (door, url):
        api = logged_in(url)
        assert report([*range(1, 15), *range(16, 21)]).upload(api) == 19
        door.flush.run()
        assert report(range(5, 11), first=later).upload(api) == 6  # the board was replaced; its first report is late
        assert report(range(1, 8), first=later).upload(api) == 4
        assert report([0, 15]).upload(api) == 2  # of before, later still
        assert report(range(1, 11), first=later).upload(api) == report(range(1, 21)).upload(api) == 0  # both again
        assert api.streamer("t--0000-0000-0000-0007--0100").get()["last_id"] == 10
    [said] = [one.getMessage() for one in caplog.records if "anew" in one.getMessage()]
    assert "garden: its counter began anew: d--0000-0000-0000-0007, streamer 0x100, seen at" in said
    with opened(platform) as (door, url):  # from the journal, and from memory
        api = logged_in(url)
        assert report(range(1, 11), first=later).upload(api) == report(range(1, 21)).upload(api) == 0
        door.flush.run()
        assert report([11], first=later).upload(api) == 1
        assert report([3], first=later + timedelta(minutes=20)).upload(api) == 1  # and again
        door.flush.run()
    assert said.split("seen")[0] in "\n".join(door_status(platform))
    bring_up_to_date(platform)
    values = points(platform, window_of(THEN, HOUR))[TEMPERATURE].sort().to_list()
    assert values == sorted([*map(float, range(21)), *map(float, range(1, 12)), 3.0])


def test_a_portion_that_waits_keeps_its_readings_though_the_device_counted_anew_meanwhile(platform_of):
    platform = platform_of(FLEET)
    folder = door_folder(platform)
    journal, memory = Journal(folder / "journal"), Memory(folder)
    once, flush = Once(journal, memory), Flush(platform, journal, memory)
    for first in (THEN, THEN + timedelta(minutes=30)):
        assert once.take("garden", read_report(report(range(1, 6), first=first).encode())) == 5
        journal.rotate()
    waits = journal.closed()[0]
    away = waits.rename(waits.with_suffix(".away"))
    assert flush.catch_up() == 5
    away.rename(waits)
    assert flush.catch_up() == 5
    journal.close()
    bring_up_to_date(platform)
    assert points(platform, window_of(THEN, HOUR)).height == 10


def sent_to(platform):
    waits = platform.ledger.waiting("garden")
    return {raw.path: raw for window in waits for raw in platform.ledger.sent("garden", window)}


def test_what_readings_have_beside_their_value_is_counted_and_told(platform_of):
    platform = platform_of(FLEET)
    readings = [
        ArchFXDataPoint(THEN, 0x5001, 1.0, {"unit": "degC"} if number % 2 else {}, {}, number)
        for number in range(1, 12)
    ]
    with opened(platform) as (_, url):
        api = logged_in(url)
        for _ in range(2):  # what comes again is not counted again
            ArchFXFlexibleDictionaryReport.FromReadings(7, readings, streamer=0x100).upload(api)
        assert report(range(20, 25)).upload(api) == 5
    assert door_status(platform)[-1] == "garden: of 6 readings the value alone was taken, not their extra_data or data"


def test_a_crash_between_the_journal_and_the_answer_doubles_nothing(platform_of, monkeypatch):
    platform = platform_of(FLEET)
    with opened(platform) as (door, url):
        api = logged_in(url)

        def dies(*_):
            raise RuntimeError("the answer never came")

        with monkeypatch.context() as patch:
            patch.setattr("ionbeam_dagster.doors.http.app._json", dies)
            with pytest.raises(Exception, match=r"500|answer"):
                report(range(1, 11)).upload(api)
        assert report(range(1, 11)).upload(api) == 0
        # What a crash of the machine may double: the journal has it twice, and no memory knows.
        again = read_report(report(range(5, 15)).encode())
        door.application._once._counters.clear()
        assert door.application._once.take("garden", again) == 10
        door.flush.run()
    bring_up_to_date(platform)
    assert points(platform, window_of(THEN, HOUR))[TEMPERATURE].sort().to_list() == list(map(float, range(1, 15)))


EVENT = {"stream": 0x5001, "dev_seqid": 1, "timestamp": "2026-11-30T05:00:00+00:00", "value": 1.0, "extra_data": {},
         "data": None}  # fmt: skip
HEAD = {"format": "v200", "device": 7, "streamer_index": 0x100, "streamer_selector": 1, "seqid": 1, "lowest_id": 1,
        "highest_id": 1, "sent_timestamp": None}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": float("nan")}, "reading 1: its value is no finite number"),
        ({"value": "warm"}, "reading 1: value is 'warm'"),
        ({"timestamp": "+1000000-01-01T00:00:00Z"}, "reading 1: its time is none"),
        ({"timestamp": "2300-01-01T00:00:00Z"}, "reading 1: its time is none"),
        ({"timestamp": 5}, "reading 1: timestamp is '5'"),
        ({"dev_seqid": -1}, "reading 1: dev_seqid is out of range"),
        ({"dev_seqid": 2.5}, "reading 1: dev_seqid is '2.5'"),
        ({"dev_seqid": True}, "reading 1: dev_seqid is 'True'"),
        ({"stream": 1 << 40}, "reading 1: stream is out of range"),
        ({"value": None}, "reading 1: value is 'None'"),
        ({"value": [1.0]}, "reading 1: value is '[1.0]'"),
    ],
)
def test_a_reading_that_cannot_be_is_named_and_nothing_of_its_report_taken(change, reason):
    raw = msgpack.packb({**HEAD, "events": [EVENT, {**EVENT, **change}]})
    with pytest.raises(BadReport, match=re.escape(reason)):
        read_report(raw)


def test_the_parts_of_a_readings_id_are_tags():
    [line] = read_report(report([1], device=0x1_0000_0007, streamer=0x101).encode()).lines
    head, _, moment = line.rpartition(" ")
    assert head == "report,device=d--0000-0001-0000-0007,streamer=0x101,variable=0000-5001 0000-5001=1.0"
    assert int(moment) == (int(THEN.timestamp()) + 1) * 10**9


def test_reports_that_are_none_are_refused(platform_of):
    deep = b"\x91" * 100_000
    with opened(platform_of(FLEET)) as (door, url):
        headers = {"Authorization": f"jwt {TOKEN}"}
        said = [5, {"events": 3}, {**HEAD, "events": [3]}, {**HEAD, "device": "x", "events": []}]
        good = report([1]).encode()
        bodies = [
            b"",
            b"x",
            deep,
            good[:-1],
            good + b"x",
            good + good,
            b"\xdd\xff\xff\xff\xff",
            *map(msgpack.packb, said),
        ]
        for body in bodies:
            answer = httpx.post(f"{url}/api/v1/streamer/report/", headers=headers, files={"file": ("report.mp", body)})
            assert answer.status_code == 400 and "nothing of it was taken" in answer.json()["detail"]
        assert httpx.post(f"{url}/api/v1/streamer/report/", headers=headers, content=b"x").status_code == 400
        other = {"Authorization": "jwt other-token"}
        raw = report([1]).encode()
        for head in ({}, other):
            answer = httpx.post(f"{url}/api/v1/streamer/report/", headers=head, files={"file": ("report.mp", raw)})
            assert answer.status_code == 401
        assert door.journal.lines == 0


def test_a_report_of_another_tenant_is_anothers(platform_of):
    valley = FLEET.split("\n", 2)[2].replace("garden:", "valley:").replace(TOKEN, OTHER)
    with opened(platform_of(FLEET + valley)) as (_, url):
        garden, theirs = logged_in(url), Api(url)
        theirs.set_token(OTHER)
        assert report(range(1, 11)).upload(garden) == 10
        streamer = "t--0000-0000-0000-0007--0100"
        assert theirs.streamer(streamer).get()["last_id"] == 0  # nothing of theirs
        assert report(range(6, 21)).upload(theirs) == 15  # and none of ours is taken for one of theirs
        assert report(range(1, 16)).upload(garden) == 5
        assert [api.streamer(streamer).get()["last_id"] for api in (garden, theirs)] == [15, 20]


VENDORS = """
import sys, logging
from datetime import datetime, timezone
from archfx_cloud.api.connection import Api
from archfx_cloud.reports.report import ArchFXDataPoint
from archfx_cloud.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from io import BytesIO

api = Api(sys.argv[1])
assert api.login(email="fleet@example.com", password=sys.argv[2])
numbers = [int(one) for one in sys.argv[4:]]
times = [datetime.fromtimestamp(float(sys.argv[3]) + n, timezone.utc) for n in numbers]
readings = [ArchFXDataPoint(timestamp=t, stream="5001", value=n, reading_id=n) for t, n in zip(times, numbers)]
report = ArchFXFlexibleDictionaryReport.FromReadings(device="d--0007", data=readings, report_id=1, streamer=0x100,
                                                     sent_timestamp="2026-11-30T05:00:00Z")
answer = api.streamer().report.upload_fp(fp=("report.mp", BytesIO(report.encode())), timestamp="2026-11-30T05:00:00Z")
print(answer["count"])
api.logout()
"""


@pytest.fixture
def vendor_python():
    """The interpreter of an environment that has the vendor's client."""
    return python_with("archfx-cloud==0.17.0", "archfx_cloud.reports.report")


@pytest.fixture
def vendor_sends(tmp_path, vendor_python):
    """Lets the vendor's client log in and upload readings; gives the ended process."""
    program = tmp_path / "vendors.py"
    program.write_text(VENDORS)

    def send(url, *numbers):
        command = [vendor_python, program, url, TOKEN, str(THEN.timestamp()), *map(str, numbers)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    return send


def counted(done):
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.soak
def test_the_vendors_own_client_reports_to_the_door(platform_of, vendor_sends):
    platform = platform_of(FLEET)
    with opened(platform) as (door, url):
        assert counted(vendor_sends(url, *range(1, 11))) == 10
        assert counted(vendor_sends(url, *range(1, 11))) == 0
        assert counted(vendor_sends(url, 20, 21)) == 2 and counted(vendor_sends(url, *range(8, 21))) == 9
        door.flush.run()
    bring_up_to_date(platform)
    rows = points(platform, window_of(THEN, HOUR))
    assert rows[TEMPERATURE].sort().to_list() == list(map(float, range(1, 22)))
    assert set(rows["station_id"]) == {"d--0000-0000-0000-0007"} and isinstance(rows, pl.DataFrame)


WRONG = """
import sys
from io import BytesIO
import msgpack
from archfx_cloud.api.connection import Api
from archfx_cloud.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from archfx_cloud.reports.report import ArchFXDataPoint

def outcome(raw):
    file = ("report.mp", BytesIO(raw))
    try:
        return api.streamer().report.upload_fp(fp=file, timestamp="2026-11-30T05:00:00Z")["count"]
    except Exception as error:
        return type(error).__name__

def with_reading(**changes):
    said = msgpack.unpackb(good)
    said["events"][1].update(changes)
    return msgpack.packb(said)

readings = [ArchFXDataPoint(timestamp=sys.argv[3], stream="5001", value=n, reading_id=n) for n in (1, 2, 3)]
good = ArchFXFlexibleDictionaryReport.FromReadings(device="d--0007", data=readings, report_id=1, streamer=0x100,
                                                   sent_timestamp="2026-11-30T05:00:00Z").encode()
api = Api(sys.argv[1])
print(api.login(email="fleet@example.com", password="of-somebody-else"))
api.login(email="fleet@example.com", password=sys.argv[2])
print(outcome(good[:-3]), outcome(good + b"x"), outcome(b"\\x91" * 100_000), outcome(b"\\xdd" + b"\\xff" * 4))
print(outcome(with_reading(value=float("nan"))), outcome(with_reading(timestamp="+1000000-01-01T00:00:00Z")),
      outcome(with_reading(dev_seqid=-1)), outcome(with_reading(dev_seqid=2**64 - 1, stream=2**40)))
print(outcome(good))  # the door's disk fails
print(outcome(good), outcome(good))
api.set_token("has-expired-by-now")
print(outcome(good))
"""


@pytest.mark.soak
def test_the_vendors_client_hears_of_what_the_door_does_not_take(platform_of, vendor_python, tmp_path, monkeypatch):
    """Each by the kind of error that its programs look for, and nothing of it is counted."""
    (tmp_path / "wrong.py").write_text(WRONG)
    faults = [OSError(28, "No space left on device")]

    def sync(descriptor):
        if faults:
            raise faults.pop()

    with opened(platform_of(FLEET)) as (door, url):
        monkeypatch.setattr("ionbeam_dagster.doors.http.journal.os.fdatasync", sync)
        command = [vendor_python, tmp_path / "wrong.py", url, TOKEN, THEN.isoformat()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert door.journal.lines == 3
    refused = "HttpClientError"
    assert done.stdout.split("\n")[:-1] == [
        "False", " ".join([refused] * 4), " ".join([refused] * 4), "HttpServerError", "3 0", refused
    ]  # fmt: skip


@pytest.mark.soak
def test_a_door_that_is_killed_before_it_answers_the_vendors_client_counts_each_reading_once(
    platform_of, vendor_sends, tmp_path, monkeypatch
):
    platform = platform_of(FLEET, automation="{enabled: false}")
    monkeypatch.setenv("DIES_BEFORE", "0")
    with DyingDoor(tmp_path, deaths=1, dies=1.0) as door:
        assert vendor_sends(door.url, *range(1, 11)).returncode != 0
        assert door.process.wait(20) == -signal.SIGKILL
        door.revive()
        assert counted(vendor_sends(door.url, *range(1, 11))) == 0  # it was durable
        assert counted(vendor_sends(door.url, *range(6, 16))) == 5
    with opened(platform) as (again, _):
        again.flush.run()
    bring_up_to_date(platform)
    rows = points(platform, window_of(THEN, HOUR))
    assert rows[TEMPERATURE].sort().to_list() == list(map(float, range(1, 16)))
