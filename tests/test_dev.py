"""A live `ionbeam dev`, asked through the API of its UI: late data of yesterday make a new revision, whose page says
why; windows appear by automation, and a day that is backfilled is there as a whole."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aio_pika
import pytest
from servers import free_port

from ionbeam_client import wire
from ionbeam_client.models import DataSetAvailableEvent
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.pipeline.recovery import open_platform

TOWN = """
state_path: state
broker: {{url: '{broker}'}}
automation: {{interval: 5}}
sources:
  town:
    type: files
    path: town.csv
    time: time
    latitude: 52.1
    longitude: 5.2
    constants: {{station_id: town}}
    start: {start}
    end: {end}
    aggregation_span: PT1H
    settle: PT0S
    exports: [odb, pygeoapi]
    variables: [{{column: T, standard_name: air_temperature, unit: degC, level: 2.0, method: point, period: PT0S}}]
"""
CROWD = """
state_path: state
automation: {{interval: 5, lookback: PT1H}}
sources:
  scheduler: {{windows: [{{source_name: ioncannon, window_size: PT10M}}]}}
  ioncannon: {{num_stations: 10, start: {start}, aggregation_span: PT1H}}
"""
MINUTES = """
state_path: state
automation: {{interval: 5, lookback: PT10M}}
sources:
  scheduler: {{windows: [{{source_name: ioncannon, window_size: PT1M}}]}}
  ioncannon: {{num_stations: 10, start: {start}, aggregation_span: PT1M, exports: [pygeoapi]}}
"""
LAUNCH = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"""
MATERIALISED = """
query($path: [String!]!) {
  assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
    assetMaterializations { partition } } }
}"""
PAGE = """
query($path: [String!]!, $partition: [String!]) {
  assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
    assetMaterializations(partitions: $partition) { metadataEntries {
      label ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue } } } } }
}"""
STAGES = ("raw", "observations", "dataset", "odb", "pygeoapi")


class Server:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: object) -> dict:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def pages(self, *path: str, partition: str) -> list[dict[str, object]]:
        """The metadata of each materialisation of a partition, the newest first, as its page shows them."""
        node = self.ask(PAGE, path=path, partition=[partition])["assetNodeOrError"]
        return [
            {entry["label"]: entry.get("text", entry.get("intValue")) for entry in made["metadataEntries"]}
            for made in node["assetMaterializations"]
        ]

    def materialised(self, stage: str) -> set[str]:
        node = self.ask(MATERIALISED, path=["ioncannon", stage])["assetNodeOrError"]
        return {made["partition"] for made in node["assetMaterializations"]}


def wait_for(what: Callable[[], object], seconds: float, why: str) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (OSError, KeyError, TypeError, IndexError):  # it is starting, or has nothing to tell yet
            pass
        time.sleep(1)  # each question costs the server some of the processor that it waits for
    raise AssertionError(f"{why} within {seconds} s")


def yesterday_noon() -> datetime:
    return (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)


def measured(folder: Path, minutes: range) -> None:
    """Put measurements of yesterday noon into the town's file, which must not be seen half-written."""
    rows = [
        f"{yesterday_noon() + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ},{20 + minute / 10}" for minute in minutes
    ]
    (folder / "town.new").write_text("\n".join(["time,T", *rows]) + "\n")
    (folder / "town.new").replace(folder / "town.csv")


def announced(url: str, queue: str) -> list[dict]:
    """What the platform told since the last time; the first time the queue is bound, and nothing was told."""

    async def get() -> list[dict]:
        connection = await aio_pika.connect(url)
        async with connection, connection.channel() as channel:
            bound = await channel.declare_queue(queue, auto_delete=False)
            exchange = await channel.declare_exchange(wire.DATASET_EXCHANGE, "fanout", durable=True)
            await bound.bind(exchange)
            found = []
            while (message := await bound.get(fail=False, no_ack=True)) is not None:
                found.append(wire.decode(DataSetAvailableEvent, message.body).message.model_dump(mode="json"))
            return found

    return asyncio.run(get())


def day_before_yesterday() -> datetime:
    return (datetime.now(UTC) - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)


@contextmanager
def dev(folder: Path, network: str) -> Iterator[Server]:
    """A platform in `folder`, as `ionbeam dev` serves it; it answers."""
    (folder / "network.yaml").write_text(network)
    environment = {**os.environ, "DAGSTER_HOME": str(folder / "dagster")}
    port = free_port()
    command = [str(Path(sys.executable).with_name("ionbeam")), "--config", "network.yaml", "dev", "--port", str(port)]
    server = Server(port)
    with (folder / "dev.log").open("w") as log:
        # a session of its own: a server started in the background would not hear an interrupt
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_for(lambda: process.poll() is not None or server.ask("{ version }"), 300, "the server did not answer")
            assert process.poll() is None, (folder / "dev.log").read_text()[-2000:]
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                with suppress(ProcessLookupError):  # the runs that it launched are processes of their own
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.timeout(1200)  # each wait is much longer than it takes on a machine that has nothing else to do
def test_late_data_of_yesterday_make_a_revision_that_is_exported_and_announced_and_says_why(tmp_path, rabbitmq):
    announced(rabbitmq.url, "told")
    noon = f"{yesterday_noon():%Y%m%dT%H%M%S}"
    measured(tmp_path, range(0, 40, 10))
    morning, evening = (f"{yesterday_noon() + timedelta(hours=hours):%Y-%m-%dT%H:%MZ}" for hours in (-2, 3))
    with dev(tmp_path, TOWN.format(start=morning, end=evening, broker=rabbitmq.url)) as server:

        def exported(number: int) -> bool:
            return all(
                server.pages("town", format, partition=noon)[0]["revision"] == number for format in ("odb", "pygeoapi")
            )

        wait_for(lambda: exported(1), 300, "yesterday noon was not exported")
        measured(tmp_path, range(0, 60, 10))
        wait_for(lambda: exported(2), 300, "the late data were not exported")
        second, first = server.pages("town", "dataset", partition=noon)
        told: list[dict] = []

        def told_of_both() -> bool:
            told.extend(event for event in announced(rabbitmq.url, "told") if event["metadata"]["name"] == "town")
            return len(told) >= 2

        wait_for(told_of_both, 120, "the revisions were not announced")
    assert "ended with" not in (tmp_path / "dev.log").read_text(), "no process fails where all begin in a new folder"
    assert (first["revision"], second["revision"]) == (1, 2)
    assert "1 ingestion arrived after revision 1: town" in second["why this revision"]
    assert "with 6 rows; 1 of revision 1 was replaced" in second["why this revision"]
    assert [(event["revision"], event["previous_revision"]) for event in told] == [(1, None), (2, 1)]


@pytest.mark.soak
def test_windows_appear_by_automation_and_a_day_that_is_backfilled_is_there_as_a_whole(tmp_path):
    """Dagster's daemon looks at a backfill twice a minute, so that this takes minutes on any machine."""
    day = day_before_yesterday()
    wanted = [f"{day + timedelta(minutes=10 * number):%Y%m%dT%H%M%S}" for number in range(144)]
    hours = {key for key in wanted if key.endswith("0000")}
    with dev(tmp_path, CROWD.format(start=f"{day:%Y-%m-%d}")) as server:
        wait_for(lambda: [server.materialised("raw")], 120, "the code server did not answer")
        selection = [{"path": ["ioncannon", stage]} for stage in STAGES]
        launched = server.ask(LAUNCH, params={"assetSelection": selection, "partitionNames": wanted})
        backfill = launched["launchPartitionBackfill"]["backfillId"]

        def status() -> str:
            return server.ask(STATUS, id=backfill)["partitionBackfillOrError"]["status"]

        wait_for(lambda: status().startswith("COMPLETED"), 900, f"the backfill is {status()}; it did not finish")
        assert status() == "COMPLETED_SUCCESS"
        assert server.materialised("raw") >= set(wanted)
        for stage in ("dataset", "odb", "pygeoapi"):
            assert server.materialised(stage) >= hours
        recent = {f"{datetime.now(UTC) - timedelta(hours=back):%Y%m%d}" for back in (0, 1)}

        def collected() -> bool:
            return sum(key[:8] in recent for key in server.materialised("observations")) >= 5

        wait_for(collected, 300, "automation did not collect the last hour")
    assert len(list((tmp_path / "data-projections" / "odb" / "ioncannon").glob(f"*_{day:%Y%m%d}T*.odb"))) == 24


def _process(folder: Path, program: str) -> int:
    """The process of `ionbeam dev` in `folder` that runs a program."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            mine = f"DAGSTER_HOME={folder / 'dagster'}".encode() in (place / "environ").read_bytes()
            if (
                mine
                and program in command
                and f"{sys.executable} -B -c" not in command
                and "dev" not in command.split()
            ):
                return int(place.name)
    raise AssertionError(f"nothing runs {program}")


def _started_again(folder: Path, program: str, before: int) -> None:
    def other() -> bool:
        with suppress(AssertionError):
            return _process(folder, program) != before
        return False

    wait_for(other, 60, f"{program} was not started again")


def _goes_on(server: Server, after: str) -> None:
    """A window is exported that had not ended yet."""
    now = f"{datetime.now(UTC):%Y%m%dT%H%M00}"
    wait_for(lambda: max(server.materialised("pygeoapi")) >= now, 130, f"after {after} no window was exported")


@pytest.mark.soak
def test_work_goes_on_within_a_minute_whatever_process_is_killed_or_stopped(tmp_path):
    with dev(tmp_path, MINUTES.format(start=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:00Z}")) as server:
        wait_for(lambda: server.materialised("pygeoapi"), 200, "nothing was exported")
        for program in ("api grpc", "ionbeam worker", "dagster-webserver", "dagster-daemon run"):
            for how in (signal.SIGKILL, signal.SIGSTOP):
                before = _process(tmp_path, program)
                os.kill(before, how)
                _started_again(tmp_path, program, before)
                _goes_on(server, f"{program}, {how.name}")
        made = sorted(server.materialised("pygeoapi"))
    first, last = (datetime.strptime(key, "%Y%m%dT%H%M%S") for key in (made[0], made[-1]))
    assert len(made) == (last - first) // timedelta(minutes=1) + 1, "every minute is there"


TERMINATE = """
mutation($id: String!) { terminateRun(runId: $id) { __typename ... on TerminateRunFailure { message } } }"""
GOING_ON = "{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results { runId canTerminate } } } }"
STATUS_OF_RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
SILENT = """
state_path: state
automation: {{interval: 5}}
sources:
  netatmo: {{base_url: "http://127.0.0.1:{port}", username: a, password: b, start: {start}, deadline: PT1H,
    timeout_seconds: 600}}
"""


class _Silent(BaseHTTPRequestHandler):
    """Accepts, and never answers."""

    def do_GET(self) -> None:
        time.sleep(600)

    do_POST = do_GET


@pytest.mark.soak
def test_a_run_that_a_person_terminates_ends_and_its_window_stays_due(tmp_path, monkeypatch):
    silent = ThreadingHTTPServer(("127.0.0.1", 0), _Silent)
    silent.daemon_threads = True
    threading.Thread(target=silent.serve_forever, daemon=True).start()
    start = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:00:00Z}"
    with dev(tmp_path, SILENT.format(port=silent.server_port, start=start)) as server:
        [run] = wait_for(lambda: server.ask(GOING_ON)["runsOrError"]["results"], 200, "no run began")
        assert run["canTerminate"]
        monkeypatch.chdir(tmp_path)
        platform = open_platform(IonbeamConfig.load(Path("network.yaml")))
        assert run["runId"] in platform.ledger.leases.held().values()
        told = server.ask(TERMINATE, id=run["runId"])["terminateRun"]
        assert told["__typename"] == "TerminateRunSuccess", told
        wait_for(
            lambda: server.ask(STATUS_OF_RUN, id=run["runId"])["runOrError"]["status"] == "CANCELED",
            60, "the run did not end",
        )  # fmt: skip
        wait_for(lambda: run["runId"] not in platform.ledger.leases.held().values(), 60, "it holds what it held")
        assert platform.ledger.attempts.open("collect", "netatmo")
    silent.shutdown()
