"""The client installed by itself, as its users have it: what comes along, its import, its first program."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from servers import at_port_5672

from ionbeam_client import IonbeamClientConfig, wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.models import IngestDataCommand

ROOT = Path(__file__).parents[2]
NEEDED = {
    "aio-pika", "aiormq", "annotated-types", "idna", "ionbeam-client", "multidict", "pamqp", "propcache", "pyarrow",
    "pydantic", "pydantic-core", "typing-extensions", "typing-inspection", "yarl",
}  # fmt: skip


@pytest.mark.soak
def test_the_client_alone_is_small_and_its_first_program_sends(rabbitmq, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = str(venv / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, ROOT / "ionbeam_client"], check=True, cwd=tmp_path)
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True).stdout
    installed = {one["name"].lower().replace("_", "-") for one in json.loads(listed)} - {"pip", "setuptools"}
    print("installed:", ", ".join(sorted(installed)))
    assert installed <= NEEDED

    timed = (
        "import time; t = time.perf_counter(); from ionbeam_client import IonbeamClient; print(time.perf_counter() - t)"
    )
    times = [float(subprocess.run([python, "-c", timed], check=True, capture_output=True).stdout) for _ in range(3)]
    print(f"import: {min(times):.2f} s")

    program = re.findall(r"```python\n(.*?)```", (ROOT / "ionbeam_client" / "README.md").read_text(), re.DOTALL)[0]
    (tmp_path / "first.py").write_text(program)

    async def run() -> IngestDataCommand:
        async with at_port_5672(rabbitmq.url):
            environment = {**os.environ, "IONBEAM_STATE_PATH": str(tmp_path / "state")}
            said = await asyncio.create_subprocess_exec(
                python, "first.py", cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(said.communicate(), 60)
        transport = AmqpTransport(IonbeamClientConfig(amqp_url=rabbitmq.url))
        await transport.open()
        await transport.connected()
        found = []
        while (delivery := await transport.fetch(wire.INGESTION)) is not None:
            found.append(wire.decode(IngestDataCommand, delivery.body))
            await delivery.ack()
        await transport.close()
        assert output.decode().split()[:2] == [str(found[-1].message.id), "24"]
        return found[-1]

    decoded = asyncio.run(run())
    assert sum(batch.num_rows for batch in wire.batches(decoded.rows)) == 24
