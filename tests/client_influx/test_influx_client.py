"""The client on a real influxd: what is promised to a station's program."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import random
import subprocess
import textwrap
import time
from collections import Counter
from enum import Enum

import influx_pooled as pooled
import pandas as pd
import pytest
from influx_faults import T0, Answer, Bucket, configuration, ids_in_log, of, program

from ionbeam_client.influx import (
    BATCHING,
    SYNCHRONOUS,
    EHTInfluxDBClient,
    InfluxError,
    NotDeliveredError,
    PointSettings,
    RecordError,
    RefusedRowsError,
    records,
    times,
)
from ionbeam_client.influx.rows import How

SPECIFIED = """
import pandas as pd
from eht_influx_client import EHTInfluxDBClient

df = pd.DataFrame([{'station': 'Kp', 'pps_offset': -3, 'timestamp': 1617672549204824064}])

client = EHTInfluxDBClient.from_config_file('influx_config.ini')
write_api = client.write_api()
write_api.write(record=df,
                data_frame_measurement_name='pps_offset',
                data_frame_tag_columns=['station'],
)
write_api.close()
client.close()
"""


def row(number: int, **more) -> dict:
    return {"measurement": "m", "tags": {"station": "Kp"}, "fields": {"id": number, **more}, "time": T0 + number}


def test_the_first_program_of_the_specification(bucket, tmp_path):
    server: Bucket = bucket()
    (tmp_path / "influx_config.ini").write_text(
        f'[eht_influx]\nurl: "{server.url}/"\norg: "{server.org}"\nbucket: "{server.bucket}"\ntoken: "{server.token}"\n'
        "jsonlogfile: ./eht.jsonl\ncsvlogfile: ./eht.csv\nclose_timeout: 30\n"
    )
    done = subprocess.run(program(SPECIFIED), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.points() == {
        ("pps_offset", (("station", "Kp"),), "pps_offset", "2021-04-06T01:29:09.204824064Z"): ("long", "-3")
    }
    assert (tmp_path / "eht.jsonl").read_text() == (
        '{"timestamp":1617672549204824064,"measurement":"pps_offset","tags":{"station":"Kp"},"fields":{"pps_offset":-3}}\n'
    )
    assert (tmp_path / "eht.csv").read_text().splitlines()[-1] == "1617672549204824064,pps_offset,Kp,-3"


def test_imports_load_nothing_heavy():
    loaded = subprocess.run(
        program(
            "from eht_influx_client import EHTInfluxDBClient, SYNCHRONOUS, ASYNCHRONOUS, BATCHING, PointSettings\n"
            "from eht_influx_client.timebin import TimeBin\n"
            "import ionbeam_client.influx.client as ours, ionbeam_client.influx.timebin as bins\n"
            "assert EHTInfluxDBClient is ours.EHTInfluxDBClient and TimeBin is bins.TimeBin\n"
            "print(*{name.partition('.')[0] for name in sys.modules})"
        ),
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert not {"pandas", "polars", "numpy", "pyarrow", "aio_pika", "httpx", "pydantic"} & set(loaded)


def test_synchronous_returns_when_the_rows_are_there_and_raises_what_was_refused(bucket, client):
    server: Bucket = bucket()
    write = client(server).write_api(SYNCHRONOUS).write
    assert write(record=row(1, f=1.5)) is None
    assert len(server.points()) == 2
    with pytest.raises(RefusedRowsError, match=r"1 refusals.*'f' .*integer, but float.*schema.json") as caught:
        write(record=[row(2, f=2.5), row(3, f=3)])
    assert len(caught.value.refusals) == 1
    assert Counter(point[2] for point in server.points()) == {"id": 2, "f": 2}


def test_what_a_write_gives_can_be_waited_for(bucket, client):
    server: Bucket = bucket()
    api = client(server).write_api(BATCHING, point_settings=PointSettings(site="Mauna Kea"))
    delivery = api.write(bucket=server.bucket, org=server.org, record=[row(n) for n in range(10)])
    assert delivery.rows == 10
    delivery.get(timeout=30)
    assert {tags for _, tags, *_ in server.points()} == {(("site", "Mauna Kea"), ("station", "Kp"))}
    assert api.write(record=[]).get() is None


def test_options_of_influxdbs_own_client(bucket, client):
    from influxdb_client.client import write_api as theirs

    server: Bucket = bucket()
    api = client(server).write_api(write_options=theirs.SYNCHRONOUS, point_settings=theirs.PointSettings(a="b"))
    api.write(server.bucket, server.org, "m f=1 1617672549", write_precision=theirs.WritePrecision.S)
    assert list(server.points()) == [("m", (("a", "b"),), "f", "2021-04-06T01:29:09Z")]


def test_another_bucket_or_a_wrong_unit_is_refused_before_anything_is_logged(faulty, client, tmp_path):
    api = client(of(faulty())).write_api()
    for keywords, says in [({"bucket": "other"}, "bucket is 'other'.*it_test"), ({"org": "o"}, "org is 'o'"),
                           ({"write_precision": "h"}, "one of ns, us, ms, s")]:  # fmt: skip
        with pytest.raises(RecordError, match=says):
            api.write(record=row(1), **keywords)
    with pytest.raises(ValueError, match="record 1: there is no time"):
        api.write(record=[row(1), {"measurement": "m", "fields": {"f": 1}}])
    assert (tmp_path / "log.jsonl").read_bytes() == b""


@pytest.mark.parametrize("order", ["api first", "client first"])
def test_closing_in_any_order_twice(bucket, client, order):
    server: Bucket = bucket()
    one = client(server)
    api = one.write_api()
    api.write(record=row(1))
    first, second = (api, one) if order == "api first" else (one, api)
    for each in (first, second, first, second):
        each.close()
    assert len(server.points()) == 1
    with pytest.raises(RecordError, match="closed; nothing was logged"):
        api.write(record=row(2))


def test_what_is_not_delivered_is_told_and_sent_by_the_next_program(faulty, tmp_path, caplog):
    server = faulty()
    server.close()
    keys = configuration(tmp_path, of(server), close_timeout=0.2)
    with EHTInfluxDBClient(**keys) as one:
        one.write_api().write(record=[row(n) for n in range(100)])
    assert "not everything is delivered" in caplog.text
    back = faulty(port=server.port)
    with EHTInfluxDBClient(**keys | {"close_timeout": 20}) as two:
        two.write_api().write(record=row(100))
    assert sorted(back.lines) == sorted(f"m,station=Kp id={n}i {T0 + n}" for n in range(101))


def test_one_server_that_is_away_does_not_hold_up_the_other(bucket, faulty, client):
    one, other = bucket(), faulty(lambda lines: Answer(503))
    made = client(one, of(other))
    delivery = made.write_api().write(record=[row(n) for n in range(1000)])
    until = time.monotonic() + 30
    while len(one.points()) < 1000 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(one.points()) == 1000
    with pytest.raises(NotDeliveredError, match=f"not yet on {other.url}"):
        delivery.get(timeout=0.1)
    waits = {status.target: status for status in made.status()}[f"{other.url}/eht/it_test"]
    assert waits.waiting_bytes > 0
    assert "503" in waits.error
    other.plan = lambda lines: None
    delivery.get(timeout=30)
    assert len(set(other.lines)) == 1000
    assert all(status.error is None and not status.waiting_bytes for status in made.status())


def test_errors_are_told_once_to_the_function_the_file_and_the_state(faulty, client, tmp_path):
    server = faulty()
    server.plan = lambda lines: Answer(503) if len(server.requests) < 5 else None
    told = []
    one = client(
        of(server), on_error=lambda target, error: told.append((target, error)), errorlogfile=tmp_path / "e.log"
    )
    one.write_api().write(record=row(1)).get(30)
    one.close()
    ((target, error),) = told
    assert target == f"{server.url}/eht/it_test"
    assert isinstance(error, NotDeliveredError)
    lines = (tmp_path / "e.log").read_text().splitlines()
    assert ["503" in lines[0], "takes rows again" in lines[1], len(lines)] == [True, True, 2]


def test_a_program_that_does_not_close_still_delivers(bucket, tmp_path):
    server: Bucket = bucket()
    text = f"""
        from eht_influx_client import EHTInfluxDBClient
        client = EHTInfluxDBClient(**{ {key: str(value) for key, value in configuration(tmp_path, server).items()} })
        client.write_api().write(record="m f=1 1617672549204824064")
    """
    subprocess.run(program(textwrap.dedent(text)), check=True)
    assert len(server.points()) == 1


def test_odd_names_and_texts_arrive_as_they_are(bucket, client):
    server: Bucket = bucket()
    rng = random.Random(11)

    def name(least: int = 1) -> str:
        return "".join(rng.choices(r"""ab ,=\"'#|{}[]:é€$%/&?""", k=rng.randint(least, 6)))

    given, expected = [], {}
    api = client(server).write_api()
    for number in range(600):
        row = {
            "measurement": name(), "tags": {name(): name() for _ in range(rng.randint(0, 2))},
            "fields": {name(): rng.choice([name(0), 0.1 * number, number, True])}, "time": T0 + number,
        }  # fmt: skip
        try:
            records.encode(row, How())
        except RecordError:
            continue  # a backslash, where line protocol cannot have it, or nothing but spaces
        given.append(row)
    assert len(given) > 300
    api.write(record=given).get(30)
    for row in given:
        tags = tuple(sorted(row["tags"].items(), key=lambda item: item[0].encode()))
        ((field, value),) = row["fields"].items()
        expected[row["measurement"], tags, field, times.to_rfc3339(row["time"])] = value
    kinds = {"double": float, "long": int, "boolean": lambda text: text == "true", "string": str}
    found = {
        (*key[:3], times.to_rfc3339(times.from_rfc3339(key[3]))): kinds[kind](text)
        for key, (kind, text) in server.points().items()
    }
    assert found == expected


# -- several processes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_that_writes_loses_nothing(bucket, client, tmp_path, method):
    server: Bucket = bucket()
    one = client(server, close_timeout=60)
    api = one.write_api()
    api.write(record=[row(n) for n in range(10)])
    pooled.api = api
    parts = [range(10 + 50 * part, 60 + 50 * part) for part in range(8)]
    with multiprocessing.get_context(method).Pool(4) as pool:
        if method == "fork":
            pool.map(pooled.write_inherited, parts)
        else:
            pool.map(pooled.write_given, [(api, part) for part in parts])
    api.write(record=[row(n) for n in range(410, 420)]).get(60)
    assert ids_in_log(tmp_path) == dict.fromkeys(range(420), 1)
    assert len(server.points()) == 420


def test_a_client_can_be_pickled(faulty, client):
    api = client(of(faulty())).write_api(SYNCHRONOUS, default_tags={"a": "b"})
    again = pickle.loads(pickle.dumps(api))
    assert again._default_tags == {"a": "b"}
    again._client.close()


WRITER = """
from eht_influx_client import EHTInfluxDBClient
import json
client = EHTInfluxDBClient(**json.loads(sys.argv[1]))
api = client.write_api()
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    api.write(record=f"m id={n}i {1617672549000000000 + n}")
print("written", flush=True)
if sys.argv[4] == "wait":
    sys.stdin.readline()
client.close()
"""


def test_two_programs_on_one_log_and_the_second_sends_when_the_first_is_killed(bucket, tmp_path):
    server: Bucket = bucket()
    keys = json.dumps({key: str(value) for key, value in configuration(tmp_path, server).items()})
    first = subprocess.Popen(program(WRITER, keys, 0, 200, "wait"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    second = subprocess.Popen(program(WRITER, keys, 200, 400, "wait"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() and second.stdout.readline()
    first.kill()
    first.communicate()
    third = subprocess.run(program(WRITER, keys, 400, 500, "end"), check=True, stdout=subprocess.PIPE)
    assert b"written" in third.stdout
    second.communicate(b"\n", timeout=60)
    assert ids_in_log(tmp_path) == dict.fromkeys(range(500), 1)
    assert len(server.points()) == 500


def test_frames_of_many_rows_arrive(bucket, client, tmp_path):
    server: Bucket = bucket()
    frame = pd.DataFrame({"timestamp": T0 + pd.RangeIndex(20_000) * 1000, "station": "Kp", "id": range(20_000)})
    one = client(server, csvlogfile=tmp_path / "log.csv")
    one.write_api().write(record=frame, data_frame_measurement_name="m", data_frame_tag_columns=["station"]).get(60)
    one.close()
    found = server.query(f'from(bucket: "{server.bucket}") |> range(start: 0) |> count()')
    assert ",20000," in found.replace("\r\n", ",")
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 20_002


def test_a_closed_client_tells_still_how_it_ended(faulty, client, tmp_path):
    server = faulty()
    one = client(of(server))
    receipt = one.write_api().write(record="m f=1 1")
    one.close()
    assert [(status.delivered, status.waiting_bytes) for status in one.status()] == [(1, 0)]
    receipt.get(1)
    assert one.flush(1)
    for place in (tmp_path / "log.jsonl.state").iterdir():
        place.unlink()
    with pytest.raises(InfluxError, match="cannot be read any more"):
        one.status()
    assert not (tmp_path / "log.jsonl.state" / "cursors.sqlite").exists()


def test_a_unit_that_is_doubtful_is_told(faulty, client, caplog):
    write = client(of(faulty())).write_api().write
    write(record=[f"m f=1 {T0 // 10**9}", f"m f=1 {T0}"])
    assert "1 rows have times within a month of 1970-01-01: is the unit right (write_precision is ns)" in caplog.text
    with pytest.raises(RecordError, match="it has to be one of ns, us, ms, s"):
        write(record="m f=1 1", write_precision="seconds")
    write(record=f"m f=1 {T0 // 10**9}", write_precision=Enum("WritePrecision", {"S": "s"}).S)
    assert caplog.text.count("within a month") == 1
