"""The commands of a station: configuration, status, replay, export and verify, on a real influxd."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from backends import Missing, _installed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from influx_faults import T0, Answer, Bucket, of

from ionbeam_client.influx import EHTInfluxDBClient
from ionbeam_client.influx.cli import main
from ionbeam_client.influx.config import make_config, read_config_file
from ionbeam_client.influx.rows import RESERVED

LOG = {"csvlogfile": "log.csv", "jsonlogfile": "log.jsonl", "close_timeout": 30, "retry_wait_max": 0.05}


@pytest.fixture
def station(tmp_path, monkeypatch):
    """Writes an INI file for servers; the test runs in its folder."""
    monkeypatch.chdir(tmp_path)

    def write(*servers, **keys) -> None:
        lines = ["[eht_influx]", *(f"{key}: {value}" for key, value in (LOG | keys).items())]
        for number, server in enumerate(servers, 1):
            end = "" if number == 1 else number
            lines += [
                f"{key}{end}: {value}" for key, value in zip(("url", "org", "bucket", "token"), server, strict=True)
            ]
        (tmp_path / "influx_config.ini").write_text("\n".join(lines) + "\n")

    return write


@pytest.fixture
def influx(tmp_path):
    """Runs InfluxDB's own command against a bucket."""
    try:
        binary = _installed("influx")
    except Missing as missing:
        pytest.skip(missing.reason)

    def run(bucket: Bucket, command: str, *arguments: object) -> str:
        where = ["--host", bucket.url, "-o", bucket.org, "-t", bucket.token, "--configs-path", tmp_path / "configs"]
        done = subprocess.run([binary, command, *where, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def many(count: int) -> list[dict]:
    """Rows of several measurements, with every type and with names and texts that need care."""
    rows = []
    for n in range(count):
        fields = {"id": n, "f": n / 4, "whole": float(n), "b": n % 2 == 0, "s": f'te"xt\\ {n},= ä', "empty": ""}
        if n % 3 == 0:
            fields |= {"u": 2**63 + n, "line\tbreak": "a\nb"}
        rows.append(
            {"measurement": f"m {n % 2}", "tags": {"sta=tion": f"K,p {n % 5}", "q": '"x"'} if n % 7 else {},
             "fields": fields, "time": T0 + n * 1_000_003, "field_types": {"u": "uint"}}
        )  # fmt: skip
    return rows


def write(rows) -> None:
    with EHTInfluxDBClient.from_config_file("influx_config.ini") as client:
        client.write_api().write(record=rows).get(60)


def values(bucket: Bucket) -> dict:
    return bucket.points()


def test_print_config_prints_what_can_be_read(capsys, tmp_path):
    """The first of the three tests that the package of the specification has."""
    assert main(["print-config"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (tmp_path / "influx_config.ini").write_text(out)
    assert len(make_config(read_config_file(tmp_path / "influx_config.ini")).servers) == 2
    command = [sys.executable, "-m", "ionbeam_client.influx.cli", "print-config"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == out


def test_check_says_what_is_good_and_what_is_bad(bucket, faulty, station, capsys):
    server: Bucket = bucket()
    station(server)
    assert main(["check"]) == 0
    assert "takes rows" in capsys.readouterr().out
    station(server._replace(token="wrong"), server._replace(bucket="other_test"), of(faulty(lambda lines: Answer(503))))
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "401 the token is not valid" in out
    assert "404 there is no such bucket" in out
    assert "503" in out
    assert main(["--config", "nothing.ini", "check"]) == 1
    assert "there is no such file" in capsys.readouterr().err


def test_status_tells_how_it_stands(faulty, station, capsys):
    server = faulty(lambda lines: Answer(503) if len(lines) > 1 else Answer(400, {"code": "invalid", "message": "bad"}))
    station(of(server), close_timeout=0.5)
    with EHTInfluxDBClient.from_config_file("influx_config.ini") as client:
        client.write_api().write(record="m f=1 1")
        client.flush(20)
        client.write_api().write(record="m f=1 1\nm f=2 2")
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "delivered 0 rows, refused 1" in out
    assert "FAILS since" in out
    assert "503" in out
    assert "delivered 3 rows, refused 0, 0 bytes wait" in out  # the CSV log


def test_influx_write_takes_the_csv_log_and_query_gives_it_back(bucket, station, influx):
    """And what `influx query --raw` prints, `influx write` takes, and so does ours."""
    one, two, three, four = (bucket() for _ in range(4))
    station(one)
    rows = many(200)
    for row in rows:
        del row["fields"]["empty"]  # in the answer to a query it cannot be told from no value
    write(rows)
    influx(two, "write", "-b", two.bucket, "-f", "log.csv")
    sort = {"env": os.environ | {"LC_ALL": "C"}, "check": True, "capture_output": True, "text": True}
    ordered = [line for line in subprocess.run(["sort", "log.csv"], **sort).stdout.splitlines() if line[0].isdigit()]
    assert [int(line.split(",")[0]) for line in ordered] == [row["time"] for row in rows if row["time"]]
    assert values(two) == values(one)
    with open("raw.csv", "w") as file:  # noqa: PTH123
        file.write(influx(one, "query", "--raw", f'from(bucket: "{one.bucket}") |> range(start: 0)'))
    influx(three, "write", "-b", three.bucket, "-f", "raw.csv")
    station(four)
    assert main(["replay", "raw.csv"]) == 0
    assert values(three) == values(four) == values(one)


def test_every_log_can_be_replayed(bucket, station, capsys):
    one, two, three, four = (bucket() for _ in range(4))
    station(one)
    write(many(300))
    expected = values(one)
    station(two)
    assert main(["replay", "log.jsonl"]) == 0
    assert "300 rows delivered, 0 refused" in capsys.readouterr().out
    assert values(two) == expected
    station(three)
    assert main(["replay", "log.csv"]) == 0
    assert values(three) == expected
    station(four)
    with open("log.jsonl", "rb") as file, gzip.open("log.jsonl.000001.gz", "wb") as packed:  # noqa: PTH123
        packed.write(file.read())
    assert (
        main(["replay", "log.jsonl.000001.gz", "--from", str(T0 + 100 * 1_000_003), "--to", str(T0 + 200 * 1_000_003)])
        == 0
    )
    assert "100 rows delivered" in capsys.readouterr().out
    assert len({key[3] for key in values(four)}) == 100


def test_the_file_of_the_specification_and_line_protocol(bucket, station, capsys, tmp_path):
    server: Bucket = bucket()
    station(server)
    (tmp_path / "foo.csv").write_text(
        "#datatype measurement,tag,long,dateTime:number\nmeasurement,station,pps_offset,timestamp\n"
        "pps,KP,0,1617672549204824064\npps,KP,x,1617672549204824064\npps,KP,1,\n"
    )
    assert main(["replay", "foo.csv"]) == 1
    assert "1 rows delivered, 2 refused" in capsys.readouterr().out
    reasons = [
        json.loads(line)["refused"]["reason"] for line in (tmp_path / "foo.csv.refused.jsonl").read_text().splitlines()
    ]
    assert "foo.csv, line 4: column 'pps_offset': 'x'" in reasons[0]
    assert reasons[1] == "it has no time"
    (tmp_path / "some.lp").write_text('# comment\nm s="a\nb",u=5u 1617672549204824065\n\nm f=1 1617672549204824066\n')
    assert main(["replay", "some.lp"]) == 0
    assert values(server) == {
        ("pps", (("station", "KP"),), "pps_offset", "2021-04-06T01:29:09.204824064Z"): ("long", "0"),
        ("m", (), "s", "2021-04-06T01:29:09.204824065Z"): ("string", "a\nb"),
        ("m", (), "u", "2021-04-06T01:29:09.204824065Z"): ("unsignedLong", "5"),
        ("m", (), "f", "2021-04-06T01:29:09.204824066Z"): ("double", "1"),
    }


def test_refused_rows_can_be_corrected_and_sent(bucket, station, tmp_path, capsys):
    server: Bucket = bucket()
    station(server)
    server.write(f"m x=0.5 {T0}")
    with EHTInfluxDBClient.from_config_file("influx_config.ini") as client:
        client.write_api().write(record=[f"m x={n}i {T0 + n}" for n in range(1, 20)])
    (tmp_path / "log.jsonl.schema.json").write_text('{"m": {"x": "float"}}')
    assert main(["replay", "log.jsonl.refused.jsonl"]) == 0
    assert len(values(server)) == 20
    assert main(["verify"]) == 0


def test_a_replay_that_is_interrupted_goes_on(faulty, station, capsys, tmp_path):
    server = faulty()
    server.plan = lambda lines: Answer(503) if len(server.lines) >= 1000 else None
    station(of(server), batch_rows=100)
    (tmp_path / "many.jsonl").write_text(
        "".join(f'{{"timestamp":{n},"measurement":"m","tags":{{}},"fields":{{"f":{n}}}}}\n' for n in range(2500))
    )
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert main(["replay", "many.jsonl"]) == 1
    out, err = capsys.readouterr()
    assert "1000 rows delivered, 0 refused" in out
    assert "interrupted; the same command goes on" in out
    assert "503; trying again" in err
    server.plan = lambda lines: None
    assert main(["replay", "many.jsonl"]) == 0
    assert "1500 rows delivered, 0 refused (and 1000 rows of the file before)" in capsys.readouterr().out
    assert Counter(server.lines) == {f"m f={n}i {n}": 1 for n in range(2500)}
    assert main(["replay", "many.jsonl", "--target", "2"]) == 1
    assert "from 1 on" in capsys.readouterr().err


def test_what_a_server_has_comes_out_and_goes_in_with_its_types(bucket, station, capsys, tmp_path):
    one, two = bucket(), bucket()
    station(one)
    write(many(500))
    assert main(["export", "out.jsonl"]) == 0
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert lines == sorted(lines)
    assert len(lines) == 500
    assert json.loads((tmp_path / "out.jsonl.schema.json").read_text()) == {
        "m 0": {"u": "unsigned"},
        "m 1": {"u": "unsigned"},
    }
    station(two)
    assert main(["replay", "out.jsonl"]) == 0
    assert values(two) == values(one)
    assert main(["verify", "out.jsonl"]) == 0
    begin, end = "2021-04-06T01:29:09.1Z", "2021-04-06T01:29:09.2Z"
    assert main(["export", "part.jsonl", "--from", begin, "--to", end, "--target", "1"]) == 0
    assert len((tmp_path / "part.jsonl").read_bytes().splitlines()) == 100
    capsys.readouterr()
    station(two._replace(token="wrong"))
    assert main(["export", "out.jsonl"]) == 1
    assert "401" in capsys.readouterr().err


def measured(*command: str) -> int:
    """Run a command; gives its peak memory in KiB."""
    text = f"""
        from pathlib import Path
        from ionbeam_client.influx.cli import main
        assert main({list(command)}) == 0
        print(next(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def all_of(bucket: Bucket, measurement: str) -> str:
    """Every point of a measurement in the order of time, under a header that names the type."""
    return bucket.query(
        f'from(bucket: "{bucket.bucket}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "{measurement}") '
        '|> drop(columns: ["_start", "_stop"]) |> group() |> sort(columns: ["_time"])'
    )


@pytest.mark.soak
def test_a_million_points_come_out_and_go_in_in_the_same_memory(bucket, station, tmp_path):
    one, two = bucket(), bucket()
    kinds = [lambda n: f"{n}i", lambda n: f"{2**63 + n}u", lambda n: repr(n / 7), lambda n: str(n % 2 == 0).lower(),
             lambda n: f'"te\\"xt {n}"']  # fmt: skip
    for begin in range(0, 1_000_000, 10_000):
        one.write(
            "\n".join(
                f"m{n % 5},s=a{n % 50} f={kinds[n % 5](n)} {T0 + n * 10**8}" for n in range(begin, begin + 10_000)
            )
        )
    station(one)
    peaks = {"export a tenth": measured("export", "part.jsonl", "--to", str(T0 + 10**13))}
    peaks["export"] = measured("export", "out.jsonl")
    assert sum(1 for _ in (tmp_path / "out.jsonl").open()) == 1_000_000
    station(two)
    peaks["replay a tenth"] = measured("replay", "part.jsonl")
    peaks["replay"] = measured("replay", "out.jsonl")
    peaks["verify"] = measured("verify", "out.jsonl")
    print(peaks)
    for number in range(5):
        told = all_of(one, f"m{number}")
        assert told.count("\n") > 200_000 and told == all_of(two, f"m{number}")
    assert peaks["export"] < 1.3 * peaks["export a tenth"]
    assert peaks["replay"] < 1.3 * peaks["replay a tenth"]


def test_an_export_that_is_interrupted_goes_on(bucket, station, capsys, tmp_path, monkeypatch):
    from ionbeam_client.influx import export

    monkeypatch.setattr(export, "VALUES", 100)
    server: Bucket = bucket()
    station(server)
    server.write("\n".join(f"m id={n}i {T0 + n * 10**9}" for n in range(1000)))
    real, calls = export.read, []

    def read(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise OSError("power cut")
        return real(*arguments)

    monkeypatch.setattr(export, "read", read)
    assert main(["export", "out.jsonl"]) == 1
    with (tmp_path / "out.jsonl.part").open("ab") as file:
        file.write(b'{"timest')
    assert main(["export", "other.jsonl", "--from", "0"]) == 0
    assert main(["export", "out.jsonl", "--from", "0"]) == 1
    assert "is of another export" in capsys.readouterr().err
    assert main(["export", "out.jsonl"]) == 0
    assert "going on at" in capsys.readouterr().err
    found = [json.loads(line)["fields"]["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == list(range(1000))
    assert not list(tmp_path.glob("out.jsonl.*"))


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("log.jsonl", "jsonlogfile"),
        ("link.jsonl", "jsonlogfile"),
        ("log.jsonl.000001", "jsonlogfile"),
        ("log.jsonl.000001.gz", "jsonlogfile"),
        ("log.jsonl.schema.json", "jsonlogfile"),
        ("log.csv", "csvlogfile"),
        ("log.csv.000001", "csvlogfile"),
        ("other", "errorlogfile"),  # whose part is that file
        ("log.jsonl.refused.jsonl", "refusedlogfile"),
        ("log.jsonl.state/00000001.jsonl", "jsonlogfile"),
        ("influx_config.ini", "configuration"),
    ],
)
def test_an_export_does_not_take_the_place_of_the_stations_own_files(faulty, station, capsys, tmp_path, out, what):
    server = faulty()
    station(of(server), errorlogfile="other.part")
    write(["m f=1 1"])
    (tmp_path / "link.jsonl").symlink_to("log.jsonl")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    asked = len(server.requests)
    assert main(["export", out]) == 1
    error = capsys.readouterr().err
    assert out in error
    assert what in error
    assert "give the export a file of its own" in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(server.requests) == asked


def test_refused_rows_of_a_replay_do_not_go_into_another_of_the_stations_files(faulty, station, capsys, tmp_path):
    server = faulty()
    station(of(server), csvlogfile="some.lp.refused.jsonl")
    (tmp_path / "some.lp").write_text("m f=1 1\n")
    assert main(["replay", "some.lp"]) == 1
    assert "some.lp.refused.jsonl: this is csvlogfile" in capsys.readouterr().err
    assert server.lines == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("replay .", ".: this is a folder; name a file in it"),
        ("export .", ".: this is a folder; name a file in it"),
        ("verify .", ".: this is a folder; name a file in it"),
        ("replay nope.jsonl", "nope.jsonl: there is no such file"),
        ("verify nope.jsonl", "nope.jsonl: there is no such file"),
        ("export nowhere/o.jsonl", "nowhere/o.jsonl: there is no folder nowhere; make it first"),
        ("replay some.lp --from 2 --to 1", "--from is not before --to"),
        ("export o.jsonl --from 2 --to 1", "--from is not before --to"),
        ("--config binary.ini check", "binary.ini: this is no text in UTF-8"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(station, capsys, tmp_path, command, says):
    station(("http://127.0.0.1:1", "eht", "b_test", "t"))
    (tmp_path / "some.lp").write_text("m f=1 1\n")
    (tmp_path / "binary.ini").write_bytes(b"\xff\xfe")
    assert main(command.split()) == 1
    assert says in capsys.readouterr().err


def test_check_tells_which_file_cannot_be_written(faulty, station, capsys, tmp_path):
    (tmp_path / "folder").mkdir()
    keys = {"csvlogfile": "/proc/x.csv", "errorlogfile": "folder", "refusedlogfile": "new/refused.jsonl"}
    station(of(faulty()), **keys)
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "BAD:  csvlogfile /proc/x.csv cannot be written: " in out
    assert "BAD:  errorlogfile " in out
    assert out.count("BAD") == 2
    assert not list((tmp_path / "new").iterdir())


def test_the_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("eht-influx-client ")


def test_verify_finds_what_is_missing_and_what_is_other(bucket, station, capsys):
    server: Bucket = bucket()
    station(server)
    write([f"m f={n}.5 {T0 + n}" for n in range(100)])
    assert main(["verify"]) == 0
    server.write(f"m f=0 {T0 + 5}")
    assert main(["verify"]) == 0
    assert "100 values, 0 missing, 1 other" in capsys.readouterr().out
    body = {"start": "2021-04-06T01:29:09.00000001Z", "stop": "2021-04-06T01:29:09.00000003Z"}
    server._ask(f"/api/v2/delete?org={server.org}&bucket={server.bucket}", body)
    until = time.monotonic() + 10
    while main(["verify"]) == 0 and time.monotonic() < until:
        time.sleep(0.1)
    out = capsys.readouterr().out
    assert "m f at 2021-04-06T01:29:09.00000001Z is not on the server" in out.replace("000000010Z", "00000001Z")


def test_verify_tells_an_unsigned_number_from_another(bucket, station, capsys):
    server: Bucket = bucket()
    station(server)
    write(["m f=5u 1", "m f=6u 2"])
    other = bucket()
    other.write("m f=5i 1\nm f=6i 2")
    station(other)
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "2 values, 0 missing, 2 other" in out
    assert "m f at 1970-01-01T00:00:00.000000001Z is 5u in the file and 5 on the server" in out


def test_verify_asks_the_servers_that_can_be_asked(bucket, faulty, station, tmp_path, capsys):
    """A door of Ionbeam takes rows, and cannot be asked for them. The INI file may be named before or behind."""
    server = bucket()
    door = faulty(lambda lines: Answer(404, {"message": "no such page"}) if '"query"' in lines[0] else None)
    station(of(door), server)
    write([f"m f={n}.5 {T0 + n}" for n in range(10)])
    (tmp_path / "influx_config.ini").rename(tmp_path / "other.ini")
    assert main(["verify", "--config", "other.ini"]) == 1
    out, err = capsys.readouterr()
    assert "10 values, 0 missing, 0 other" in out
    assert err == f"{door.url}/eht/it_test: cannot be asked what it has: 404 no such page\n"
    assert main(["--config", "other.ini", "verify", "--target", "2"]) == 0


def rows_of(count: int, begin: int = 1) -> bytes:
    return b"".join(
        b'{"timestamp":%d,"measurement":"m","tags":{},"fields":{"f":%d}}\n' % (n, n * n % 7919)
        for n in range(begin, begin + count)
    )


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.lp.gz", "log.csv.gz"])
def test_a_packed_file_that_breaks_off_is_delivered_as_far_as_it_is_whole(faulty, station, tmp_path, capsys, name):
    server = faulty()
    station(of(server), batch_rows=300)
    data = rows_of(5000)
    if "jsonl" not in name:
        data = b"".join(b"m f=%di %d\n" % (n * n % 7919, n) for n in range(1, 5001))
    if "csv" in name:
        rows = b"".join(b"m,%d,%d\n" % (n * n % 7919, n) for n in range(1, 5001))
        data = b"#datatype measurement,long,dateTime:number\nm,f,time\n" + rows
    packed = gzip.compress(data)
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    assert main(["replay", name]) == 1
    out = capsys.readouterr().out
    count = len(server.lines)
    assert 1000 < count < 4000
    assert server.lines == [f"m f={n * n % 7919}i {n}" for n in range(1, count + 1)]
    assert f"{count} rows delivered, 0 refused" in out
    assert f"{name}: after row {count} it is broken off or damaged: " in out
    (tmp_path / name).write_bytes(packed)
    assert main(["replay", name]) == 0
    assert f"{5000 - count} rows delivered, 0 refused (and {count} rows" in capsys.readouterr().out
    assert len(server.lines) == 5000


def test_what_is_not_what_its_name_says_is_told_with_its_name(faulty, station, tmp_path, capsys):
    server = faulty()
    station(of(server))
    whole = gzip.compress(rows_of(5000))
    damaged = bytearray(whole)
    damaged[len(whole) // 2 :] = b"\xff" * (len(whole) - len(whole) // 2)
    for name, data, says in [
        ("plain.jsonl.gz", rows_of(2), "plain.jsonl.gz: it cannot be unpacked, in spite of its name: Not a gzipped"),
        ("head.jsonl.gz", whole[:5], "head.jsonl.gz: it cannot be unpacked"),
        ("first.jsonl.gz", gzip.compress(rows_of(1))[:-20], "first.jsonl.gz: "),
        ("damaged.jsonl.gz", bytes(damaged), "damaged.jsonl.gz: after row "),
        ("x.txt", b"hi", "x.txt: there is no row in it; it was read as annotated CSV. What a file is is told by its"),
        ("x.csv", b"hi\n", "x.csv: there is no row in it; it was read as annotated CSV"),
        ("x.lp", b"# nothing\n", "x.lp: there is no row in it; it was read as line protocol"),
    ]:
        (tmp_path / name).write_bytes(data)
        for command in ("replay",) if "damaged" in name else ("replay", "verify"):
            assert main([command, name]) == 1, name
            told = capsys.readouterr()
            assert says in told.out + told.err
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert main(["replay", "empty.jsonl"]) == 0


def test_rows_that_cannot_be_read_are_refused_for_the_true_reason(faulty, station, tmp_path, capsys):
    server = faulty()
    station(of(server))
    mark = b"\xef\xbb\xbf"
    odd = b'{"timestamp":3,"measurement":"m","tags":{},"fields":{"f":%s}}\n'
    (tmp_path / "a.jsonl").write_bytes(mark + rows_of(2) + odd % b"1e999" + odd % b'"\xff"' + odd[:20] + b"\n")
    (tmp_path / "b.lp").write_bytes(mark + b'm f=1 1\nm f="\xff" 2\n')
    (tmp_path / "c.csv").write_bytes(
        mark + b"#datatype measurement,string,dateTime:number\nm,f,time\nm,a,1\nm,\xff,2\n"
    )
    reasons = {}
    for name, sent in [("a.jsonl", 2), ("b.lp", 1), ("c.csv", 1)]:
        assert main(["replay", name]) == 1
        assert f"{sent} rows delivered" in capsys.readouterr().out
        kept = (tmp_path / f"{name}.refused.jsonl").read_text().splitlines()
        reasons[name] = [json.loads(line)["refused"]["reason"] for line in kept]
    infinite, bytes_of_another_encoding, torn = reasons["a.jsonl"]
    assert infinite.startswith("it is not JSON: number is infinity")
    assert "utf-8" in bytes_of_another_encoding.lower()
    assert torn == "it is not a whole JSON object: its writer was killed, or it was edited"
    assert "not UTF-8" in reasons["b.lp"][0] and "not UTF-8" in reasons["c.csv"][0]
    assert [line.split()[0] for line in server.lines] == ["m"] * 4


def test_times_of_the_command_line_are_utc(faulty, station, tmp_path, capsys):
    server = faulty()
    station(of(server))
    (tmp_path / "some.lp").write_text("".join(f"m f=1 {T0 + n * 10**9}\n" for n in range(-5, 5)))
    assert main(["replay", "some.lp", "--from", "2021-04-06T01:29:09", "--to", "2021-04-07"]) == 0
    assert len(server.lines) == 5
    for wrong, says in [("soon", "not an ISO 8601 time"), (str(10**30), "outside of what InfluxDB stores")]:
        with pytest.raises(SystemExit):
            main(["replay", "some.lp", "--from", wrong])
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "print-config"])
def test_who_reads_only_the_beginning_is_not_complained_of(station, command):
    station(("http://127.0.0.1:1", "eht", "b_test", "t"))
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ionbeam_client.influx.cli", command], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.stderr, done.returncode) == ("", 1)


def test_verify_counts_lines_that_cannot_be_read(bucket, station, tmp_path, capsys):
    server = bucket()
    station(server)
    server.write(f"m f=1 {T0}")
    (tmp_path / "some.lp").write_bytes(b'm f=1 %d\nnonsense 5\nm f="\xff" 2\n' % T0)
    assert main(["verify", "some.lp"]) == 0
    assert "1 values, 0 missing, 0 other, 2 unreadable rows" in capsys.readouterr().out
    (tmp_path / "some.lp.gz").write_bytes(gzip.compress(b"m f=1 %d\n" % T0)[:-4])
    assert main(["verify", "some.lp.gz"]) == 1
    out = capsys.readouterr().out
    assert "1 values, 0 missing, 0 other, 0 unreadable rows" in out
    assert "some.lp.gz: after row 1 it is broken off" in out


names = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\\"), min_size=1, max_size=6)
fields = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\x00"), max_size=8),
)  # fmt: skip
keys = names.filter(lambda name: name.strip() and name not in RESERVED)
some_rows = st.lists(
    st.fixed_dictionaries(
        {
            "measurement": names.filter(lambda name: not name.startswith("#") and name.strip()),
            "tags": st.dictionaries(keys, names, max_size=2),
            "fields": st.dictionaries(keys, fields, min_size=1, max_size=3),
            "time": st.integers(-(10**18), 10**18),
        }
    ),
    max_size=8,
)


@given(some_rows)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_the_csv_log_is_the_json_log(influx_dryrun, rows):
    """In lines: what `influx write` would send of the one is what we send of the other."""
    from ionbeam_client.influx import fast_lines, lines, records, targets
    from ionbeam_client.influx.rows import How

    encoded = records.encode(rows, How())
    raw = b"".join(encoded.data).splitlines()
    appended = []
    file = SimpleNamespace(path=".", append=lambda connection, data: appended.append(data))
    csv_log = targets.CsvLog(file)
    if not raw:
        return
    rows = [json.loads(line) for line in raw]
    csv_log.append(None, rows, {})
    for row in rows:  # an empty text under a name with | is told, and not in the CSV log
        row["fields"] = {name: value for name, value in row["fields"].items() if value != "" or "|" not in name}
    ours, _ = fast_lines.Converter({}).convert([json.dumps(row).encode() for row in rows if row["fields"]])
    theirs = lines.split_lines(influx_dryrun(b"".join(appended)))
    assert sorted(map(repr, map(lines.row_of, theirs))) == sorted(repr(lines.row_of(line.decode())) for line in ours)


@pytest.fixture(scope="session")
def influx_dryrun(tmp_path_factory):
    try:
        binary = _installed("influx")
    except Missing as missing:
        pytest.skip(missing.reason)
    place = tmp_path_factory.mktemp("dryrun") / "log.csv"

    def convert(data: bytes) -> str:
        place.write_bytes(data)
        done = subprocess.run([binary, "write", "dryrun", "-f", place], capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    return convert
