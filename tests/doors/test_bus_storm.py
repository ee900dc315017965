"""The storm: everything is killed again and again, with a fixed seed, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import polars as pl
import pytest
from bus_samples import DAY, START, bridge_process, until, waiting
from servers import RabbitMQ, free_port, why_no_rabbitmq
from storm_client import HOURS, ROWS

from ionbeam_client import wire
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.doors.amqp.bridge import BrokerAway, bridge_of
from ionbeam_dagster.pipeline.platform import Platform

WINDOW = Window(START, START + DAY)


class Storm:
    """A broker, a client and a bridge, each of which can be killed and is started again."""

    def __init__(self, folder: Path, batches: int, pause: float) -> None:
        self.folder, self.batches, self.pause = folder, batches, pause
        (folder / "broker").mkdir()
        (folder / "client").mkdir()
        self.server = RabbitMQ(folder / "broker")
        self.server.start()
        self.killed: dict[str, int] = defaultdict(int)

    def start(self) -> None:
        self.bridge, self.client = bridge_process(self.folder), self._client()

    def kill(self, victim: str) -> None:
        self.killed[victim] += 1
        getattr(self, f"_kill_{victim}")()

    def close(self) -> None:
        for process in (self.client, self.bridge):
            process.kill()
            process.wait()
        self.server.close()

    @property
    def receipts(self) -> list[str]:
        place = self.folder / "client" / "receipts"
        return place.read_text().split() if place.exists() else []

    def handled(self) -> dict[str, list[tuple[int, int]]]:
        """The (revision, rows) that the client's handler got, by window, in order."""
        found = defaultdict(list)
        place = self.folder / "client" / "handled"
        for line in place.read_text().splitlines() if place.exists() else []:
            window, revision, count = line.split()
            found[window].append((int(revision), int(count)))
        return found

    def _client(self) -> subprocess.Popen:
        command = [sys.executable, Path(__file__).with_name("storm_client.py"), self.server.url]
        return subprocess.Popen([*command, self.folder / "client", str(self.batches), str(self.pause)])

    def _kill_broker(self) -> None:
        self.server.kill()
        self.server.start()

    def _kill_bridge(self) -> None:
        self.bridge.kill()
        self.bridge.wait()
        self.bridge = bridge_process(self.folder)

    def _kill_client(self) -> None:
        self.client.kill()
        self.client.wait()
        self.client = self._client()


def rage(storm: Storm, platform: Platform, seed: int, victims: list[str], pause: float, patience: float) -> None:
    """Kill `victims` in turn, shuffled, until the last batch is on its way; then wait for the calm."""
    chance = random.Random(seed)
    chance.shuffle(victims)
    for victim in victims:
        time.sleep(chance.uniform(0.1, pause))
        storm.kill(victim)
    until(lambda: len(storm.receipts) == storm.batches, patience)
    until(lambda: sum(len(platform.ledger.sent("my_source", hour)) for hour in _hours()) == storm.batches, patience)
    until(lambda: not platform.ledger.waiting("my_source") and not platform.ledger.due("example_weather"), patience)
    until(lambda: _latest(platform) == {at: told[-1][0] for at, told in storm.handled().items()}, patience)


def is_whole(storm: Storm, platform: Platform) -> None:
    """Every batch is in the datasets once, every revision was handled, in order, and nothing is parked."""
    taken = [raw.ingestion for hour in _hours() for raw in platform.ledger.sent("my_source", hour)]
    assert sorted(taken) == sorted(storm.receipts) and len(set(taken)) == storm.batches
    built = platform.ledger.revisions("example_weather", *ends_of_day())
    found = pl.concat(pl.read_parquet(one.path) for one in built)
    times = found.group_by("station_id").len()
    assert set(times["station_id"]) == {f"s{number}" for number in range(storm.batches)}
    assert times["len"].unique().to_list() == [ROWS]
    handled = storm.handled()
    for one in built:
        told = handled[one.revision.window.start.isoformat()]
        revisions = [revision for revision, _ in groupby(revision for revision, _ in told)]
        assert revisions == list(range(1, one.revision.number + 1)), one.revision.window
        assert told[-1][1] == one.facts.rows
    assert platform.ledger.refusals.newest(10) == []
    for queue in (wire.INGESTION, wire.exporter_queue("storm")):
        assert waiting(storm.server.url, queue.dead) == [] and waiting(storm.server.url, queue) == []


def _hours() -> list[Window]:
    return [Window(START + i * DAY / 24, START + (i + 1) * DAY / 24) for i in range(HOURS)]


def ends_of_day():
    return WINDOW.start, WINDOW.end


def _latest(platform: Platform) -> dict[str, int]:
    built = platform.ledger.revisions("example_weather", *ends_of_day())
    return {one.revision.window.start.isoformat(): one.revision.number for one in built}


def stormy(platform_of, folder: Path, batches: int, pause: float, **sections: str) -> tuple[Storm, Platform]:
    if reason := why_no_rabbitmq():
        pytest.skip(reason)
    storm = Storm(folder, batches, pause)
    platform = platform_of(
        "  scheduler: {windows: [{source_name: my_source, window_size: PT1H}]}\n"
        "  my_source: {kind: external, dataset: example_weather, start: 2024-01-01, aggregation_span: PT1H, "
        "exports: [pygeoapi]}",
        broker=f"{{url: '{storm.server.url}'}}", **sections,
    )  # fmt: skip
    storm.start()
    return storm, platform


@pytest.mark.soak
def test_broker_bridge_and_client_are_killed_and_every_batch_is_there_once(platform_of, tmp_path):
    storm, platform = stormy(platform_of, tmp_path, batches=40, pause=0.2)
    try:
        rage(storm, platform, seed=4, victims=["broker", "client", "bridge"], pause=3, patience=60)
        is_whole(storm, platform)
    finally:
        storm.close()


# -- at full size ------------------------------------------------------------------------------------------------------


class Dev:
    """`ionbeam dev` beside the bridge; its code server is killed, and the location reloaded as its supervisor would."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._log = (folder / "dev.log").open("w")
        command = [Path(sys.executable).with_name("ionbeam"), "--config", folder / "config.yaml", "dev", "--port"]
        environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
        self._process = subprocess.Popen(
            [*map(str, command), str(self._port)], cwd=folder, env=environment, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        until(self._reload, 120)

    def kill_code_server(self) -> None:
        for process in self._code_servers():
            os.kill(process, signal.SIGKILL)
        until(self._reload, 60)

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _code_servers(self) -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (place / "cmdline").read_bytes().split(b"\0")
                if os.getsid(int(place.name)) == self._process.pid and b"api" in command and b"grpc" in command:
                    found.append(int(place.name))
        return found

    def _reload(self) -> bool:
        reload = 'reloadRepositoryLocation(repositoryLocationName: "ionbeam_dagster.definitions")'
        query = f"mutation {{ {reload} {{ __typename }} }}"
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/graphql", body, {"content-type": "application/json"}
        )
        with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]["reloadRepositoryLocation"]["__typename"] == "WorkspaceLocationEntry"
        return False


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_the_storm_with_the_code_server_too(platform_of, tmp_path, seed):
    storm, platform = stormy(platform_of, tmp_path, batches=500, pause=0.1, automation="{interval: 5}")
    dev = Dev(tmp_path)
    storm._kill_code_server = dev.kill_code_server
    try:
        rage(storm, platform, seed, ["broker", "client", "bridge", "code_server"] * 5, pause=5, patience=600)
        is_whole(storm, platform)
    finally:
        dev.close()
        storm.close()


@pytest.mark.soak
def test_a_broker_that_was_away_for_long_and_one_that_forgot_what_was_acknowledged(platform_of, tmp_path):
    """What was ingested meanwhile comes; what comes again after its acknowledgement is known."""
    storm, platform = stormy(platform_of, tmp_path, batches=60, pause=0.0, automation="{enabled: false}")
    try:
        storm.bridge.kill()
        storm.bridge.wait()
        until(lambda: len(storm.receipts) == storm.batches, 60)
        storm.server.kill()
        with pytest.raises(BrokerAway):
            bridge_of(platform).take_in(1)
        time.sleep(15)  # longer than the client keeps trying at once
        storm.server.start()
        seen: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            turn = pool.submit(bridge_of(platform).take_in, 20)
            until(lambda: platform.ledger.commands.count() >= storm.batches / 2, 60)
            storm.server.kill()  # at once: RabbitMQ has not written the acknowledgements yet
            storm.server.start()
            taken = sum(turn.result().taken.values())
        until(lambda: _take_in(platform, seen), 120)
        taken += sum(seen)
        print(f"{taken} deliveries of {storm.batches} commands")
        assert taken > storm.batches, "nothing came again, so that nothing was tried"
        found = [raw.ingestion for hour in _hours() for raw in platform.ledger.sent("my_source", hour)]
        assert sorted(found) == sorted(storm.receipts)
        assert platform.ledger.commands.count() == storm.batches and platform.ledger.refusals.newest(1) == []
    finally:
        storm.close()


def _take_in(platform: Platform, seen: list[int]) -> bool:
    """Take in what is there; whether that was the last of the batches."""
    seen.append(sum(bridge_of(platform).take_in(10).taken.values()))
    return platform.ledger.commands.count() == 60 and not seen[-1]
