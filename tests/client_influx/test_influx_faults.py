"""What servers, disks, people and clocks do to a station's log; nothing is lost, and everything is told."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from influx_faults import T0, Answer, Bucket, configuration, ids_in_log, of, program

from ionbeam_client.influx import EHTInfluxDBClient, LogError, NotDeliveredError, RefusedRowsError, log, targets
from ionbeam_client.influx.state import State


def row(number: int, **more) -> dict:
    return {"measurement": "m", "fields": {"id": number, **more}, "time": T0 + number}


def line(number: int) -> str:
    return f"m id={number}i {T0 + number}"


def refused(folder: Path) -> list[dict]:
    place = folder / "log.jsonl.refused.jsonl"
    return [json.loads(text) for text in place.read_text().splitlines()] if place.exists() else []


def bad_is(number: int, answer):
    """A server that answers `answer(lines, place)` as long as the line of that number is among the lines."""
    return lambda lines: answer(lines, lines.index(line(number))) if line(number) in lines else None


REFUSALS = {
    "with a line number": lambda lines, place: Answer(400, {"code": "invalid", "message": "bad", "line": place + 1}),
    "with the line": lambda lines, place: Answer(
        400, {"code": "invalid", "message": f"unable to parse '{lines[place]}': it's bad\nunable to parse 'else': no"}
    ),
    "with a number in words": lambda lines, place: Answer(
        400, {"code": "invalid", "message": f"line {place + 1}: bad"}
    ),
    "with data": lambda lines, place: Answer(
        400, {"error": "partial write", "data": [{"line_number": place + 1, "error_message": "bad"}]}
    ),
    "without a line": lambda lines, place: Answer(400, {"code": "invalid", "message": "something is bad"}),
    "with a wrong line number": lambda lines, place: Answer(400, {"code": "invalid", "message": "bad", "line": 99999}),
    "partly": lambda lines, place: Answer(
        422, {"code": "unprocessable entity", "message": "partial write: bad dropped=1"}
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_bad_row_is_refused_and_takes_none_along(faulty, client, tmp_path, kind):
    server = faulty(bad_is(37, REFUSALS[kind]))
    with pytest.raises(RefusedRowsError, match="bad"):
        client(of(server)).write_api().write(record=[row(n) for n in range(100)]).get(30)
    assert Counter(server.lines) == {line(n): 1 for n in range(100) if n != 37}
    (one,) = refused(tmp_path)
    assert one["fields"] == {"id": 37}
    assert "bad" in one["refused"]["reason"]
    if "wrong" not in kind and kind not in ("without a line", "partly"):
        assert server.requests == [100, 99]
    else:
        assert len(server.requests) <= 16


def test_all_rows_of_a_part_that_were_dropped_are_refused_at_once(faulty, client, tmp_path):
    conflict = (
        'partial write: field type conflict: input field "id" on measurement "m" is type integer, already exists as '
    )
    server = faulty(lambda lines: Answer(422, {"message": f"{conflict}type float dropped={len(lines)}"}))
    with pytest.raises(RefusedRowsError, match=r'500 refusals.*is integer, but float.*\{"m": \{"id": "float"\}\}'):
        client(of(server)).write_api().write(record=[row(n) for n in range(500)]).get(30)
    assert server.requests == [500]
    assert len(refused(tmp_path)) == 500


def test_integer_against_float_on_a_real_server_and_the_remedy(bucket, client, tmp_path):
    server: Bucket = bucket()
    server.write(f"m x=0.5 {T0}")
    api = client(server).write_api()
    with pytest.raises(
        RefusedRowsError, match=r"20 refusals.*'x' of measurement 'm' is integer, but float on the server"
    ):
        api.write(record=[row(n, x=n) if n % 5 == 0 else row(n, x=n / 2) for n in range(100)]).get(30)
    assert sum(point[2] == "x" for point in server.points()) == 81
    (tmp_path / "log.jsonl.schema.json").write_text('{"m": {"x": "float"}}')
    api.write(record=[row(n, x=n) for n in range(100, 110)]).get(30)
    assert sum(point[2] == "x" for point in server.points()) == 91
    assert {one["fields"]["x"] % 5 for one in refused(tmp_path)} == {0}


def test_too_large_a_body_is_sent_in_parts(faulty, client, tmp_path):
    server = faulty(lambda lines: Answer(413, "<html>too large</html>") if len("\n".join(lines)) > 2000 else None)
    with pytest.raises(RefusedRowsError, match=r"413.*too large"):
        client(of(server)).write_api().write(
            record=[
                {"measurement": "m", "fields": {"s": "x" * (3000 if n == 7 else 50)}, "time": n} for n in range(200)
            ]
        ).get(30)
    assert Counter(int(one.split()[-1]) for one in server.lines) == {n: 1 for n in range(200) if n != 7}
    assert len(refused(tmp_path)) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(401, {"code": "unauthorized", "message": "unauthorized access"}), "401 the token is not valid: unauth"),
        (Answer(403, {"code": "forbidden", "message": "x"}), "403 the token may not write into this bucket"),
        (Answer(404, {"code": "not found", "message": 'bucket "it_test" not found'}), "404 there is no such bucket"),
        (Answer(400, "<html>Bad Request</html>"), "400: <html>Bad"),
        (Answer(429, "", (("Retry-After", "0.2"),)), "429"),
        (Answer(503, "", (("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),)), "503"),
        (Answer(500, "", (("Retry-After", "never"),)), "500"),
        (Answer(307, "", (("Location", "http://elsewhere"),)), "307"),
        (Answer(503, hang_up=True), "no answer"),
        (Answer(204, hang_up=True, done=True), "no answer"),
        (Answer(204, delay=1.0, done=True), "no answer within 0.3 s"),
    ],
)  # fmt: skip
def test_what_is_not_the_rows_fault_is_tried_again(faulty, client, tmp_path, answer, says):
    server = faulty()
    server.plan = lambda lines: answer if len(server.requests) <= 2 else None
    told = []
    one = client(
        of(server), timeout=0.3 if answer.delay else 20, on_error=lambda target, error: told.append(str(error))
    )
    begun = time.monotonic()
    one.write_api().write(record=[row(n) for n in range(20)]).get(30)
    if answer.headers == (("Retry-After", "0.2"),):
        assert time.monotonic() - begun >= 0.4
    assert set(server.lines) == {line(n) for n in range(20)}
    assert len(told) == 1
    assert says in told[0]
    assert not refused(tmp_path)
    assert one.status()[0].error is None


def test_with_a_deadline_it_is_given_up_and_what_is_behind_goes_on(faulty, client, tmp_path):
    server = faulty(lambda lines: Answer(503) if line(0) in lines else None)
    one = client(of(server), retry_deadline=0.3, batch_rows=10)
    with pytest.raises(RefusedRowsError, match=r"10 refusals.*given up after 0.3 s: 503"):
        one.write_api().write(record=[row(n) for n in range(30)]).get(30)
    assert Counter(server.lines) == {line(n): 1 for n in range(10, 30)}
    assert len(refused(tmp_path)) == 10


# -- the disk ----------------------------------------------------------------------------------------------------------

FULL = """
import json, resource, signal
from eht_influx_client import EHTInfluxDBClient, LogError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
client = EHTInfluxDBClient(**json.loads(sys.argv[1]))
api = client.write_api()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        api.write(record=[{"measurement": "m", "fields": {"id": written + n}, "time": 1 + n} for n in range(50)])
        written += 50
except LogError as error:
    print(written, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
api.write(record={"measurement": "m", "fields": {"id": written}, "time": 1})
client.close()
"""


def test_a_full_disk_is_told_and_leaves_no_half_row(faulty, tmp_path):
    server = faulty()
    keys = json.dumps({key: str(value) for key, value in configuration(tmp_path, of(server)).items()})
    done = subprocess.run(program(FULL, keys), check=True, capture_output=True, text=True)
    written = int(done.stdout.split()[0])
    assert "log.jsonl: nothing was logged: File too large" in done.stdout
    assert ids_in_log(tmp_path) == dict.fromkeys(range(written + 1), 1)
    assert len({text.split()[1] for text in server.lines}) == written + 1


@pytest.fixture
def small_disk(tmp_path, request):
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", folder], check=True))
    return folder


@pytest.mark.parametrize("csvlogfile", [None, "log.csv"])
def test_what_is_on_a_full_disk_is_sent_all_the_same(faulty, small_disk, csvlogfile):
    server = faulty(lambda lines: Answer(503))
    told = []
    keys = configuration(small_disk, of(server), close_timeout=1)
    keys |= {"csvlogfile": small_disk / csvlogfile} if csvlogfile else {}
    one = EHTInfluxDBClient(on_error=lambda target, error: told.append(str(error)), **keys)
    api, written = one.write_api(), 0
    try:
        with pytest.raises(LogError, match=r"the disk is full but for 512 KiB, which sending needs; free space there"):
            while True:
                api.write(record=[row(written + n) for n in range(100)])
                written += 100
        assert written > 2_000
        server.plan = lambda lines: None
        one.flush(1 if csvlogfile else 30)  # the CSV log has no room
        wait_for(lambda: one.status()[0].waiting_bytes == 0)
        assert set(server.lines) == {line(n) for n in range(written)}
        assert not [reason for reason in told if "rollback" in reason]
    finally:
        one.close()


def test_trying_again_and_again_takes_no_room(tmp_path):
    """What a full disk leaves to the cursors has to do for as long as nobody frees space."""
    state = State(tmp_path / "cursors.sqlite")
    file = targets.RecordedFile(tmp_path / "log.csv", state)
    for number in range(2_000):
        file.prepare()
        if number % 4 == 0:
            with state.change() as connection:
                state.advance(connection, "a server", log.Position(1, number), 1, [], float(number))
    assert sum(path.stat().st_size for path in tmp_path.glob("cursors.sqlite*")) < log._ROOM / 2
    state.close()


def test_a_file_system_that_does_not_tell_its_room_is_no_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(log.os, "statvfs", lambda path: os.statvfs_result([0] * 10))
    log.leave_room(tmp_path, 1 << 30)


def wait_for(done, seconds=30):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_line_that_was_torn_is_closed_and_passed_over(faulty, client, tmp_path):
    server = faulty()
    first = client(of(server), csvlogfile=tmp_path / "log.csv")
    first.write_api().write(record=row(1)).get(30)
    first.close()
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"timestamp":16176725')
    again = client(of(server), csvlogfile=tmp_path / "log.csv")
    with pytest.raises(RefusedRowsError, match="not a whole JSON object"):
        delivery = again.write_api().write(record=row(2))
        delivery._after = delivery._after._replace(offset=0)
        delivery.get(30)
    assert server.lines == [line(1), line(2)]
    again.close()
    assert [text.split(",")[2] for text in (tmp_path / "log.csv").read_text().splitlines() if text[0].isdigit()] == [
        "1",
        "2",
    ]
    (one,) = refused(tmp_path)
    assert one["text"] == '{"timestamp":16176725'


def test_files_beside_the_log_are_cut_to_what_was_committed(faulty, client, tmp_path):
    """A crash after a file was written, and before that was remembered, leaves rows that are written again."""
    server = faulty(lambda lines: Answer(400, {"code": "invalid", "line": 1, "message": "bad"}))
    keys = {"csvlogfile": tmp_path / "log.csv"}
    first = client(of(server), **keys)
    first.write_api().write(record=row(1))
    first.close()
    for name in ("log.csv", "log.jsonl.refused.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write("16176725")
    again = client(of(server), **keys)
    again.write_api().write(record=row(2))
    again.close()
    assert [one["fields"]["id"] for one in refused(tmp_path)] == [1, 2]
    rows = [text for text in (tmp_path / "log.csv").read_text().splitlines() if text[0].isdigit()]
    assert rows == [f"{T0 + 1},m,1", f"{T0 + 2},m,2"]


def test_a_crash_at_the_very_first_rows_doubles_none(faulty, client, tmp_path, monkeypatch):
    """The files are written, but what says so is not committed: as after a kill between the two."""
    server = faulty(lambda lines: Answer(400, {"code": "invalid", "line": 1, "message": "bad"}))
    real, crashed = State.advance, set()

    def crash_once(self, connection, target, *rest):
        if target not in crashed:
            crashed.add(target)
            raise OSError("crash")
        real(self, connection, target, *rest)

    monkeypatch.setattr(State, "advance", crash_once)
    one = client(of(server), csvlogfile=tmp_path / "log.csv")
    one.write_api().write(record=row(1))
    assert one.flush(20)
    one.close()
    assert len(crashed) == 2
    assert [one["fields"]["id"] for one in refused(tmp_path)] == [1]
    assert (tmp_path / "log.csv").read_text().count(f"{T0 + 1},m,1") == 1
    assert not list(tmp_path.glob("*.000001"))


def test_a_csv_file_that_is_not_ours_is_put_aside(faulty, client, tmp_path):
    (tmp_path / "log.csv").write_text("theirs")
    one = client(of(faulty()), csvlogfile=tmp_path / "log.csv")
    one.write_api().write(record=row(1))
    one.close()
    assert (tmp_path / "log.csv.aside.000001").read_text() == "theirs"
    assert (tmp_path / "log.csv").read_text().startswith("#datatype")


def test_an_old_log_that_is_put_back_loses_nothing(faulty, client, tmp_path):
    server = faulty()
    api, place = client(of(server)).write_api(), tmp_path / "log.jsonl"
    api.write(record=row(0)).get(30)
    place.rename(tmp_path / "old")
    api.write(record=row(1)).get(30)
    (tmp_path / "old").rename(place)
    api.write(record=row(2)).get(30)
    assert set(server.lines) == {line(n) for n in range(3)}


def test_a_state_folder_that_is_removed_while_it_is_used_loses_nothing(faulty, client, tmp_path):
    server = faulty()
    one = client(of(server))
    api = one.write_api()
    api.write(record=row(0)).get(30)
    subprocess.run(["rm", "-r", tmp_path / "log.jsonl.state"], check=True)
    api.write(record=row(1))
    one.close()
    client(of(server)).write_api().write(record=row(2)).get(30)
    assert set(server.lines) == {line(n) for n in range(3)}


@pytest.mark.parametrize("rudely", ["removed", "renamed", "renamed, and a new one made", "cut", "compressed"])
def test_a_log_that_somebody_else_handles(faulty, client, tmp_path, caplog, rudely):
    """The server is away meanwhile; what was logged before is delivered nevertheless, in order."""
    server = faulty(lambda lines: Answer(503))
    one = client(of(server))
    api, place = one.write_api(), tmp_path / "log.jsonl"
    api.write(record=[row(n) for n in range(50)])
    if rudely == "removed":
        place.unlink()
    elif rudely == "cut":
        place.write_bytes(b"")
    else:
        place.rename(tmp_path / "elsewhere.1")
        if rudely == "compressed":
            subprocess.run(["gzip", "-f", tmp_path / "elsewhere.1"], check=True)
        if "new" in rudely:
            place.touch()
    server.plan = lambda lines: Answer(503) if line(50) not in lines and rudely == "cut" else None
    delivery = api.write(record=[row(n) for n in range(50, 100)])
    if rudely == "cut":
        server.plan = lambda lines: None
    delivery.get(30)
    assert ("cut by somebody" if rudely == "cut" else "renamed or removed by somebody else") in caplog.text
    if rudely != "cut":  # then nothing can bring the rows back, but what was read before
        assert server.lines == [line(n) for n in range(100)]
    assert server.lines[-50:] == [line(n) for n in range(50, 100)]
    assert len(place.read_bytes().splitlines()) == 50


@pytest.mark.parametrize("again", [False, True])
def test_rows_that_were_cut_are_told_under_the_server_that_lacks_them(faulty, client, tmp_path, caplog, again):
    """One server has all rows, the other is away, and has one request's worth in its hands; or a new program begins."""
    there, away = faulty(), faulty(lambda lines: Answer(503))
    keys = {"batch_rows": 10, "csvlogfile": tmp_path / "log.csv", "close_timeout": 0.2}
    one = client(of(there), of(away), **keys)
    one.write_api().write(record=[row(n) for n in range(50)])
    until = time.monotonic() + 30
    while [status.delivered for status in one.status()] != [50, 0, 50]:
        assert time.monotonic() < until
        time.sleep(0.05)
    if again:
        one.close()
    size = (tmp_path / "log.jsonl").stat().st_size
    (tmp_path / "log.jsonl").write_bytes(b"")
    if again:
        one = client(of(there), of(away), **keys)
    one.write_api().write(record=row(50))
    away.plan = lambda lines: None
    assert one.flush(30)
    assert there.lines == [line(n) for n in range(51)]
    assert away.lines == ([line(50)] if again else [line(n) for n in (*range(10), 50)])
    lost = size if again else size * 4 // 5
    told = [record.getMessage() for record in caplog.records if "were sent here" in record.getMessage()]
    (message,) = told
    assert message.startswith(f"{away.url}/")
    assert abs(int(message.partition("its last ")[2].partition(" bytes")[0].replace(",", "")) - lost) < 100


def test_rows_that_come_while_it_is_looked_for_a_cut_are_none(faulty, client, tmp_path, caplog, monkeypatch):
    """Rows are appended, and sent to one server, between the two looks of the other; then somebody cuts indeed."""
    there, away = faulty(), faulty(lambda lines: Answer(503))
    one = client(of(there), of(away), batch_rows=10, close_timeout=0.2)
    api = one.write_api()
    real, looks = log.Log.lengths, []

    def lengths(self, segment):
        found = real(self, segment)
        if threading.current_thread().name.startswith(f"to {away.url}") and not looks:
            looks.append(segment)
            api.write(record=row(0))
            until = time.monotonic() + 30
            while one.status()[0].delivered < 1 and time.monotonic() < until:
                time.sleep(0.02)
        return found

    monkeypatch.setattr(log.Log, "lengths", lengths)
    until = time.monotonic() + 30
    while one.status()[1].error is None and time.monotonic() < until:
        time.sleep(0.02)
    api.write(record=[row(n) for n in range(1, 20)])
    assert looks and "cut by somebody" not in caplog.text
    while one.status()[0].delivered < 20 and time.monotonic() < until:
        time.sleep(0.02)
    (tmp_path / "log.jsonl").write_bytes(b"")
    away.plan = lambda lines: None
    api.write(record=row(20))
    assert one.flush(30)
    assert len([1 for record in caplog.records if "were sent here" in record.getMessage()]) == 1


@pytest.mark.parametrize("keep_days", [None, 0])
def test_own_rotation_keeps_what_is_not_delivered_and_forgets_old_files(faulty, client, tmp_path, caplog, keep_days):
    caplog.set_level(logging.INFO)
    server = faulty(lambda lines: Answer(503))
    one = client(
        of(server), csvlogfile=tmp_path / "log.csv", rotate_megabytes=0.002, keep_days=keep_days, batch_rows=20
    )
    api = one.write_api()
    for n in range(200):
        api.write(record=row(n))
    kept = sorted(tmp_path.glob("log.jsonl.0*"))
    assert len(kept) >= 5
    assert ids_in_log(tmp_path) == dict.fromkeys(range(200), 1)
    server.plan = lambda lines: None
    api.write(record=row(200)).get(30)
    while (tmp_path / "log.jsonl").stat().st_size != 0:  # the newest file is empty, just after a rotation
        api.write(record=row(200))
    assert one.flush(10)
    one.close()
    assert set(server.lines) == {line(n) for n in range(201)}
    assert len(list((tmp_path / "log.jsonl.state").glob("*.jsonl"))) <= 2
    if keep_days == 0:
        assert len(list(tmp_path.glob("log.jsonl.0*"))) <= 2
        assert len(list(tmp_path.glob("log.csv.0*"))) <= 2
        assert "older than keep_days" in caplog.text
        return
    assert set(tmp_path.glob("log.jsonl.0*")) >= set(kept)
    csv = [text for place in sorted(tmp_path.glob("log.csv*")) for text in place.read_text().splitlines()]
    assert {text for text in csv if text[0].isdigit()} == {f"{T0 + n},m,{n}" for n in range(201)}
    assert len([text for text in csv if text[0].isdigit()]) == len(server.lines)
    assert len(list(tmp_path.glob("log.csv.0*"))) >= 2


def test_a_network_file_system_is_refused(faulty, tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "22 1 0:20 / / rw - ext4 /dev/sda rw\n"
        f"23 22 0:21 / {str(tmp_path)[:-1]} rw - ext4 x rw\n"
        f"24 22 0:22 / {str(tmp_path).replace(' ', chr(92) + '040')} rw,relatime shared:1 - nfs4 server:/x rw\n"
    )
    monkeypatch.setattr(log, "_MOUNTS", mounts)
    with pytest.raises(LogError, match=r"network file system \(nfs4\).*name a file on a disk of this machine"):
        EHTInfluxDBClient(**configuration(tmp_path, of(faulty())))
    assert log.file_system_of(Path("/elsewhere/log")) == "ext4"


def test_a_folder_that_cannot_be_written(faulty, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"log.jsonl: the log cannot be opened"):
        EHTInfluxDBClient(**configuration(tmp_path / "file", of(faulty())))


def test_a_clock_that_is_set_back_changes_nothing(faulty, client, monkeypatch):
    server = faulty()
    server.plan = lambda lines: Answer(503) if len(server.requests) < 3 else None
    one = client(of(server))
    api, now = one.write_api(), time.time()
    api.write(record=[row(n) for n in range(10)])
    monkeypatch.setattr(time, "time", lambda: now - 10 * 365 * 86_400)
    api.write(record=[row(n) for n in range(10, 20)]).get(30)
    assert set(server.lines) == {line(n) for n in range(20)}


def test_a_forked_child_appends_and_never_sends(faulty, client, tmp_path):
    server = faulty(lambda lines: Answer(503))
    one = client(of(server))
    api = one.write_api()
    api.write(record=row(0))
    child = os.fork()
    if child == 0:
        try:
            delivery = api.write(record=row(1))
            with pytest.raises(NotDeliveredError):
                delivery.get(0.1)
            one.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    server.plan = lambda lines: None
    api.write(record=row(2)).get(30)
    assert Counter(server.lines) == {line(n): 1 for n in range(3)}
    assert ids_in_log(tmp_path) == {0: 1, 1: 1, 2: 1}


def test_a_schema_that_is_no_schema_is_told_and_waited_for(faulty, client, tmp_path):
    told = []
    one = client(of(faulty()), on_error=lambda target, error: told.append(str(error)))
    (tmp_path / "log.jsonl.schema.json").write_text('{"m": {"x": "number"}}')
    delivery = one.write_api().write(record=row(1))
    with pytest.raises(NotDeliveredError):
        delivery.get(0.3)
    assert re.search(r"schema.json: it has to be JSON such as .*correct it", told[0])
    (tmp_path / "log.jsonl.schema.json").write_text("{}")
    delivery.get(30)


def test_a_program_that_only_opens_and_closes_delivers_what_waits(faulty, client, tmp_path):
    server = faulty(lambda lines: Answer(503))
    first = client(of(server), close_timeout=0.1)
    first.write_api().write(record=[row(n) for n in range(10)])
    first.close()
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"torn')
    server.plan = lambda lines: None
    client(of(server)).close()
    assert Counter(server.lines) == {line(n): 1 for n in range(10)}


def test_an_on_error_that_fails_stops_nothing(faulty, client, caplog):
    server = faulty(bad_is(1, REFUSALS["with the line"]))
    one = client(of(server), on_error=lambda target, error: 1 / 0)
    with pytest.raises(RefusedRowsError):
        one.write_api().write(record=[row(1), row(2)]).get(30)
    assert server.lines == [line(2)]
    one.close()
    assert "on_error failed" in caplog.text


def test_a_lost_state_sends_all_again_and_changes_nothing_on_the_server(bucket, client, tmp_path):
    server: Bucket = bucket()
    first = client(server)
    first.write_api().write(record=[row(n) for n in range(10)]).get(30)
    first.close()
    subprocess.run(["rm", "-r", tmp_path / "log.jsonl.state"], check=True)
    client(server).write_api().write(record=row(10)).get(30)
    assert len(server.points()) == 11


@pytest.mark.parametrize("damage", ["no database", "cut", "a page", "its journal"])
def test_damaged_cursors_are_put_aside_and_the_log_is_sent_again(faulty, client, tmp_path, caplog, damage):
    server = faulty()
    first = client(of(server))
    first.write_api().write(record=[row(n) for n in range(10)]).get(30)
    first.close()
    place = tmp_path / "log.jsonl.state" / "cursors.sqlite"
    whole = place.read_bytes()
    if damage == "its journal":
        place.with_name("cursors.sqlite-wal").write_bytes(b"\xff" * 5000)
    else:
        page = whole[:4096] + b"\xff" * (len(whole) - 4096)
        place.write_bytes({"no database": b"\xff" * 5000, "cut": whole[:5000], "a page": page}[damage])
    client(of(server)).write_api().write(record=row(10)).get(30)
    assert set(server.lines) == {line(n) for n in range(11)}
    told = [record.getMessage() for record in caplog.records if "was damaged" in record.getMessage()]
    assert len(told) == (damage != "its journal")  # which SQLite passes over by itself
    assert all(str(place) in text and "cursors.sqlite.damaged" in text for text in told)
    assert place.with_name("cursors.sqlite.damaged").exists() == bool(told)


@pytest.mark.parametrize("damage", ["noticed", "put aside", "removed"])
def test_cursors_damaged_meanwhile_begin_anew(bucket, client, tmp_path, damage):
    server: Bucket = bucket()
    one = client(server, csvlogfile=str(tmp_path / "log.csv"), errorlogfile=str(tmp_path / "errors.log"))
    api = one.write_api()
    api.write(record=[row(n) for n in range(10)]).get(30)
    wait_for(lambda: not any(each.waiting_bytes for each in one.status()))
    place = tmp_path / "log.jsonl.state" / "cursors.sqlite"
    if damage == "removed":
        place.unlink()
    else:
        with closing(sqlite3.connect(place, isolation_level=None)) as other:  # what the program remembers is outdated
            other.execute("UPDATE targets SET delivered = delivered")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with place.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (place.stat().st_size - 4096))
    if damage == "put aside":
        state = State(place)
        assert state.target(one.status()[0].target).position is None
        state.close()
    api.write(record=[row(n) for n in range(10, 20)]).get(30)
    wait_for(lambda: not any(each.waiting_bytes for each in one.status()))
    one.close()
    assert len(server.points()) == 20
    assert (tmp_path / "log.csv").read_text().count(",m,") == 20
    assert place.with_name("cursors.sqlite.damaged").exists() == (damage != "removed")
    assert [each.error for each in one.status()] == [None, None]
    told = (tmp_path / "errors.log").read_text()
    assert told.count("how far it is was lost") == 2  # for the server, and the CSV log
    again = State(place)
    assert {again.target(each.target).position for each in one.status()} == {one._log.end()}
    again.close()
