"""Lines a second that the HTTP door accepts and makes durable, and takes in; on one processor.

``python benchmarks/door.py`` gives a door of this process 600,000 lines in bodies of 5,000, as InfluxDB's clients send
them, and then has the journal taken in as raw partitions. The named alternative, in the same run, is what one writes
first: line-protocol-parser on every line, a row appended to a list, json.dumps into a file and fsync for each body.
Then a hundred clients at once over real HTTP, reports of devices, and an attack over real HTTP: gzip bombs, hostile
bodies, and more slow uploads than there are places, with an honest client beside them; by who has no token before all
else, and with a stolen one at last. Every figure is given by the processor, which other programs on the machine hardly
change, and by the clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from line_protocol_parser import parse_line
from measure import forget_peak, peak_megabytes
from numpy.random import default_rng
from werkzeug.test import Client

from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from ionbeam_client.archfx.reports.report import ArchFXDataPoint
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.doors.http.reports import read_report
from ionbeam_dagster.doors.http.sequences import Seen
from ionbeam_dagster.doors.http.serving import OpenDoor
from ionbeam_dagster.pipeline.recovery import open_platform

BODIES, LINES = 120, 5_000
TOKEN = "benchmark-token"
HEADERS = {"Authorization": f"Token {TOKEN}"}
THEN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
BLOCK = f"""
sources:
  garden:
    kind: door
    token: {TOKEN}
    aggregation_span: PT1H
    latitude: 52.1
    longitude: 5.2
    variables:
      - {{measurement: weather, field: temperature, standard_name: air_temperature, cf_unit: degC, level: 2.0}}
      - {{measurement: weather, field: humidity, standard_name: relative_humidity, cf_unit: percent, level: 2.0}}
      - {{measurement: weather, field: pressure, standard_name: air_pressure, cf_unit: hPa}}
"""


def body(number: int) -> bytes:
    first = int(THEN.timestamp()) * 10**9 + number * 10**9
    return "\n".join(
        f"weather,station=s{i % 1000},model=x temperature={i % 30}.25,humidity={i % 100}i,pressure=1013.2 {first + i}"
        for i in range(LINES)
    ).encode()


class Timed:
    """What is done in its block, `count` times: how often a second of the processor, and by the clock."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> Timed:
        self._begun, self._clock = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.rate = self._count / (time.process_time() - self._begun)
        self.by_clock = self._count / (time.perf_counter() - self._clock)

    def __str__(self) -> str:
        return f"{self.rate:>12,.0f} {self.by_clock:>14,.0f}"


def plain_way(folder: Path) -> Timed:
    with Timed((BODIES // 6) * LINES) as found, (folder / "plain.jsonl").open("wb") as file:
        for number in range(BODIES // 6):
            rows = [parse_line(line) for line in body(number).decode().split("\n")]
            file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
    return found


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        (folder / "config.yaml").write_text(BLOCK)
        of_strangers(folder)
        door = OpenDoor(open_platform(IonbeamConfig.load(folder / "config.yaml")), "127.0.0.1", 0, 3_600.0)
        client = Client(door.application)
        bodies = [body(number) for number in range(20)]  # made before the clock runs, and given again and again
        plain = plain_way(folder)
        peaks = []

        with Timed(BODIES * LINES) as accepted:
            for number in range(BODIES):
                assert client.post("/api/v2/write", data=bodies[number % 20], headers=HEADERS).status_code == 204
                if number in (20, BODIES - 1):
                    peaks.append(peak_megabytes())
        with Timed(BODIES * LINES) as taken:
            door.flush.run()
        both = 1 / (1 / accepted.rate + 1 / taken.rate)
        print(f"{'lines a second':44}of the processor  by the clock")
        print(f"{'line by line, json.dumps, fsync a body':44}{plain}")
        print(f"{'door: accepted and durable':44}{accepted}   ratio {accepted.rate / plain.rate:.1f}")
        print(f"{'door: taken in as raw partitions':44}{taken}")
        print(f"{'door: both':44}{both:>12,.0f}{'':15}   ratio {both / plain.rate:.1f}")
        print(f"peak memory: {peaks[0]:.0f} MiB after 100,000 lines, {peaks[1]:.0f} after 600,000, "
              f"{peak_megabytes():.0f} with the journal taken in")  # fmt: skip
        reports(client)
        thread = Thread(target=door.run)
        thread.start()
        at_once(door)
        under_attack(door, TOKEN, "with a token")
        door.stop()
        thread.join()


def at_once(door: OpenDoor) -> None:
    small = b"\n".join(body(1).split(b"\n")[:50])

    def writes(_: int) -> None:
        connection = HTTPConnection("127.0.0.1", door.port, timeout=60)
        for _ in range(20):
            connection.request("POST", "/api/v2/write", small, HEADERS)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 204
        connection.close()

    with Timed(2_000) as found, ThreadPoolExecutor(100) as pool:
        list(pool.map(writes, range(100)))
    print(f"{'100 clients at once: requests of 50 lines':44}{found}   clients included")


ATTACK = """
import gzip, random, socket, sys, time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

port, token = int(sys.argv[1]), sys.argv[2]
words = {"Authorization": f"Token {token}"}
bomb = gzip.compress(b"weather,station=roof temperature=50\\n" * 3_000_000)[:9_000_000]
line = b"weather,station=roof temperature=50"

def slow(_):
    one = socket.create_connection(("127.0.0.1", port), 30)
    one.sendall(b"POST /api/v2/write HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Token " + token.encode()
                + b"\\r\\nContent-Length: 9000000\\r\\n\\r\\n" + b"x" * 60_000)
    return one

def hostile(number):
    made = random.Random(number)
    body = bytearray(line * made.randrange(1, 30))
    for _ in range(10):
        body[made.randrange(len(body))] = made.randrange(256)
    return bytes(body), {}

def posted(requests):
    for body, more in requests:
        try:
            one = HTTPConnection("127.0.0.1", port, timeout=60)
            one.request("POST", "/api/v2/write", body, words | more)
            one.getresponse().read()
            one.close()
        except (OSError, HTTPException):
            pass

with ThreadPoolExecutor(40) as pool:
    held = list(pool.map(slow, range(1_200)))
    print("begun", flush=True)
    jobs = [[hostile(number) for number in range(first, first + 250)] for first in range(0, 10_000, 250)]
    jobs += [[(bomb, {"Content-Encoding": "gzip"})] * 10 for _ in range(10)]
    random.Random(7).shuffle(jobs)
    list(pool.map(posted, jobs))
"""


def of_strangers(folder: Path) -> None:
    door = OpenDoor(open_platform(IonbeamConfig.load(folder / "config.yaml")), "127.0.0.1", 0, 3_600.0)
    thread = Thread(target=door.run)
    thread.start()
    under_attack(door, "a-wrong-token", "without a token")
    door.stop()
    thread.join()
    forget_peak()


def under_attack(door: OpenDoor, token: str, whose: str) -> None:
    forget_peak()
    before, waited = peak_megabytes(), []
    command = [sys.executable, "-c", ATTACK, str(door.port), token]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as attack:
        assert attack.stdout is not None and attack.stdout.readline() == b"begun\n"
        while attack.poll() is None:
            begun = time.perf_counter()
            connection = HTTPConnection("127.0.0.1", door.port, timeout=60)
            connection.request("POST", "/api/v2/write", b"weather,station=roof temperature=50", HEADERS)
            assert connection.getresponse().status == 204
            connection.close()
            waited.append(time.perf_counter() - begun)
            time.sleep(0.05)
    assert attack.returncode == 0
    waited.sort()
    print(f"under attack {whose}: peak memory {before:.0f} MiB before, {peak_megabytes():.0f} after; an honest write "
          f"took {waited[len(waited) // 2]:.2f} s, at most {waited[-1]:.2f} s")  # fmt: skip


def reports(client: Client) -> None:
    readings = [ArchFXDataPoint(THEN, 0x5001, float(i), reading_id=i) for i in range(1, 100_001)]
    raw = ArchFXFlexibleDictionaryReport.FromReadings(7, readings).encode()
    with Timed(len(readings)) as read:
        read_report(raw)
    with Timed(2 * len(readings)) as accepted:
        for answered in (100_000, 0):  # and once more, of which nothing is new
            data = {"file": (BytesIO(raw), "report.mp")}
            answer = client.post("/api/v1/streamer/report/", data=data, headers=HEADERS)
            assert answer.json == {"count": answered}
    print(f"{f'readings of a report of {len(raw) / 1e6:.0f} MB: read':44}{read}")
    print(f"{'  accepted and durable':44}{accepted}")
    random = default_rng(7)
    seen = Seen().with_(random.permutation(1_000_000)[:999_000].astype("u8") + 1)
    print(f"a million sequence numbers with {len(seen.first) - 1:,} gaps: {len(seen.to_bytes()):,} bytes")


if __name__ == "__main__":
    main()
