"""Messages a second into the journal of `netatmo_mqtt`, from a real Mosquitto as Debian configures it.

``python benchmarks/mqtt.py`` publishes 200,000 messages of E-SOH's size with QoS 1, as fast as the broker takes them,
and counts what is journaled, synced and acknowledged in a second (the broker lets 20 be unacknowledged at once). The
named alternative, in the same run, is paho's usual loop in a thread with a file written, synced and acknowledged in
each callback. Then the journal is sorted into hours. Needs mosquitto (make servers).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import paho.mqtt.client as paho
from measure import peak_megabytes
from paho.mqtt.enums import CallbackAPIVersion

from ionbeam_dagster.sources.netatmo.journal import Journal, Writer
from ionbeam_dagster.sources.netatmo.subscriber import Broker, Subscriber

TOPIC = "raw-obs/no/netatmo/temperature"
OBSERVED = datetime.now(UTC) - timedelta(hours=3)


def message(number: int) -> bytes:
    moment = OBSERVED + timedelta(seconds=number // 100)
    return json.dumps(
        {
            "id": f"{number:08d}",
            "version": "v4.0",
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": {"lat": "59.9", "lon": 10.7}},
            "properties": {
                "platform": f"0-578-5-{number % 100:06d}",
                "datetime": moment.isoformat(),
                "pubtime": moment.isoformat(),
                "level": "2.0",
                "function": "point",
                "period": "PT0S",
                "naming_authority": "com.netatmo",
                "license": "http://spdx.org/licenses/CC-BY-4.0(CC-BY-4.0)",
                "content": {
                    "encoding": "utf-8",
                    "standard_name": "air_temperature",
                    "unit": "degC",
                    "size": 4,
                    "value": "21.5",
                },
            },
            "links": [{"href": "https://data.met.no/dataset/" + "x" * 40}],
        }
    ).encode()


def publish(port: int, first: int, count: int) -> None:
    """As fast as the broker takes them: packets with QoS 1, its answers read and dropped."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06bench" + b"x")
    connection.recv(4)
    answers = count * 4

    def drop() -> None:
        left = answers
        while left > 0 and (got := len(connection.recv(1 << 16))):
            left -= got

    reader = threading.Thread(target=drop)
    reader.start()
    topic = struct.pack(">H", len(TOPIC)) + TOPIC.encode()
    packets = []
    for number in range(first, first + count):
        content = topic + struct.pack(">H", number % 65535 + 1) + message(number)
        packets.append(b"\x32" + _length(len(content)) + content)
        if len(packets) == 200 or number == first + count - 1:
            connection.sendall(b"".join(packets))
            packets.clear()
    reader.join()
    connection.close()


def _length(number: int) -> bytes:
    found = b""
    while True:
        number, digit = divmod(number, 128)
        found += bytes([digit | (128 if number else 0)])
        if not number:
            return found


def ours(port: int, folder: Path, wanted: int, ready: Callable[[], None]) -> float:
    subscriber = Subscriber(Broker("127.0.0.1", port, "ours", ("raw-obs/#",)), Writer(Journal(folder)))
    thread = threading.Thread(target=subscriber.run)
    thread.start()
    time.sleep(0.5)
    ready()
    seconds = _until(lambda: subscriber.counts.journaled, wanted)
    subscriber.stop()
    thread.join()
    return seconds


def each_by_itself(port: int, folder: Path, wanted: int, ready: Callable[[], None]) -> float:
    client = paho.Client(CallbackAPIVersion.VERSION2, "theirs", clean_session=False, manual_ack=True)
    counted = [0]
    with (folder / "messages").open("ab") as file:

        def taken(client: paho.Client, _: object, got: paho.MQTTMessage) -> None:
            file.write(got.payload + b"\n")
            file.flush()
            os.fdatasync(file.fileno())
            client.ack(got.mid, got.qos)
            counted[0] += 1

        client.on_message = taken
        client.connect("127.0.0.1", port)
        client.subscribe("raw-obs/#", qos=1)
        client.loop_start()
        time.sleep(0.5)
        ready()
        seconds = _until(lambda: counted[0], wanted)
        client.loop_stop()
    return seconds


def _until(count: Callable[[], int], wanted: int) -> float:
    """Seconds from the first message to the last."""
    while not count():
        time.sleep(0.001)
    began, first = time.perf_counter(), count()
    while count() < wanted:
        time.sleep(0.005)
    return (time.perf_counter() - began) * wanted / (wanted - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--publish", nargs=3, type=int, metavar=("PORT", "FIRST", "COUNT"))
    given = parser.parse_args()
    if given.publish:
        publish(*given.publish)
        return
    found = {}
    for name, way, wanted in (("ours", ours, given.messages), ("each by itself", each_by_itself, given.messages // 10)):
        with TemporaryDirectory() as folder:
            port = 21_000 + os.getpid() % 5_000
            settings = f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n"
            (Path(folder) / "mosquitto.conf").write_text(settings)
            log = (Path(folder) / "log").open("wb")
            broker = subprocess.Popen(
                ["mosquitto", "-c", f"{folder}/mosquitto.conf"], stdout=log, stderr=log,
                env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
            )  # fmt: skip
            time.sleep(0.5)
            publishers = []

            def ready(port: int = port, wanted: int = wanted, publishers: list = publishers) -> None:
                command = [sys.executable, __file__, "--publish", str(port), "0", str(wanted)]
                publishers.append(subprocess.Popen(command))

            try:
                seconds = way(port, Path(folder), wanted, ready)
                found[name] = wanted / seconds
                print(f"  {name:<16}{wanted:>9,} messages  {wanted / seconds:>9,.0f} messages/s", flush=True)
                if way is ours:
                    began = time.perf_counter()
                    journal = Journal(Path(folder))
                    count = journal.sort()
                    seconds = time.perf_counter() - began
                    assert count == wanted and not journal.refused()
                    print(f"  sorted into hours{count:>8,} messages  {count / seconds:>9,.0f} messages/s")
                    print(f"  peak memory {peak_megabytes():.0f} MB")
            finally:
                for process in [*publishers, broker]:
                    process.kill()
                    process.wait()
    print(f"MQTT: ours journals {found['ours'] / found['each by itself']:.1f} times as many as one sync each")


if __name__ == "__main__":
    main()
