"""A live `ionbeam dev`: windows appear by automation, and a backfill that is launched through the API finishes."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servers import free_port

NETWORK = """
state_path: state
automation: {{interval: 5, lookback: PT1H}}
sources:
  scheduler: {{windows: [{{source_name: ioncannon, window_size: PT10M}}]}}
  ioncannon: {{num_stations: 10, start: {start}, aggregation_span: PT1H}}
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
STAGES = ("raw", "observations", "dataset", "odb", "pygeoapi")


class Server:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: object) -> dict:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def materialised(self, stage: str) -> set[str]:
        node = self.ask(MATERIALISED, path=["ioncannon", stage])["assetNodeOrError"]
        return {made["partition"] for made in node["assetMaterializations"]}


def wait_for(what: Callable[[], object], seconds: float, why: str) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (urllib.error.URLError, ConnectionError, KeyError, TypeError):
            pass
        time.sleep(1)
    raise AssertionError(f"{why} within {seconds} s")


@pytest.fixture
def dev(tmp_path) -> Iterator[Server]:
    day = datetime.now(UTC) - timedelta(days=2)
    (tmp_path / "network.yaml").write_text(NETWORK.format(start=f"{day:%Y-%m-%d}"))
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster")}
    port = free_port()
    command = [str(Path(sys.executable).with_name("ionbeam")), "--config", "network.yaml", "dev", "--port", str(port)]
    with (tmp_path / "dev.log").open("w") as log:
        # a session of its own: a server started in the background would not hear an interrupt
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield Server(port)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def test_windows_appear_by_automation_and_a_backfill_of_a_day_finishes(dev, tmp_path):
    wait_for(lambda: dev.ask("{ version }"), 60, "the server did not answer")
    automatic = wait_for(lambda: dev.materialised("observations"), 120, "automation collected nothing")
    assert len(automatic) >= 5

    day = (datetime.now(UTC) - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    wanted = [f"{day + timedelta(minutes=10 * number):%Y%m%dT%H%M%S}" for number in range(144)]
    selection = [{"path": ["ioncannon", stage]} for stage in STAGES]
    launched = dev.ask(LAUNCH, params={"assetSelection": selection, "partitionNames": wanted})
    backfill = launched["launchPartitionBackfill"]["backfillId"]

    def status() -> str:
        return dev.ask(STATUS, id=backfill)["partitionBackfillOrError"]["status"]

    wait_for(lambda: status().startswith("COMPLETED"), 240, f"the backfill is {status()}; it did not finish")
    assert status() == "COMPLETED_SUCCESS"
    hours = {key for key in wanted if key.endswith("0000")}
    assert dev.materialised("raw") >= set(wanted)
    for stage in ("dataset", "odb", "pygeoapi"):
        assert dev.materialised(stage) >= hours
    assert len(list((tmp_path / "data-projections" / "odb").rglob(f"*_{day:%Y%m%d}T*.odb"))) == 24
