"""What a client bears as it is: TLS of one's own, connections that an operator closes, a process that was stopped, and
handlers that take longer than the broker waits for an acknowledgement."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from certificates import Authority
from client_samples import END, METADATA, SCHEMA, START, event, rows
from servers import RabbitMQ, free_port, why_no_rabbitmq

from ionbeam_client import IonbeamClient, IonbeamClientConfig, wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.transport import Outgoing

IN_USE = ("server.pem", "server.key")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, authority):
    """A broker that asks its clients for certificates, and where it speaks TLS."""
    if reason := why_no_rabbitmq():
        pytest.skip(reason)
    folder, port = tmp_path_factory.mktemp("rabbitmq"), free_port()
    certificate, key = (folder / name for name in IN_USE)
    served = authority.certificate("localhost")
    shutil.copy(served.file, certificate)
    shutil.copy(served.key, key)
    server = RabbitMQ(
        folder, f"listeners.ssl.1 = 127.0.0.1:{port}", f"ssl_options.cacertfile = {authority.file}",
        f"ssl_options.certfile = {certificate}", f"ssl_options.keyfile = {key}", "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true", "consumer_timeout = 10000",
    )  # fmt: skip
    server.start()
    server.ctl("await_startup")  # it listens without TLS first
    yield server, port, folder
    server.close()


def connects(caplog, url, **tls):
    """Whether a client comes in, and what is said of it."""

    async def run():
        transport = AmqpTransport(IonbeamClientConfig(amqp_url=url, **tls))
        await transport.open()
        for _ in range(200):
            if transport.is_connected or caplog.text:
                break
            await asyncio.sleep(0.05)
        came_in = transport.is_connected
        await transport.close()
        return came_in

    caplog.clear()
    return asyncio.run(run()), caplog.text


def test_tls_with_an_authority_and_certificates_of_ones_own(guarded, authority, caplog, tmp_path):
    server, port, folder = guarded
    mine, others = authority.certificate("client"), Authority(tmp_path / "others")
    url, own = f"amqps://guest:guest@localhost:{port}/", {"tls_cert_file": mine.file, "tls_key_file": mine.key}
    trusting = {**own, "tls_ca_file": authority.file}
    assert connects(caplog, url, **trusting)[0]
    for address, given, said in (
        (url, {**own, "tls_ca_file": others.file}, "its certificate is not trusted (self"),
        (url.replace("localhost", "127.0.0.1"), trusting, "certificate is not valid for '127.0.0.1'"),
        (
            url,
            {"tls_ca_file": authority.file},
            "certificate of ours that it trusts",
        ),
    ):
        came_in, told = connects(caplog, address, **given)
        assert not came_in and said in told, told
    old = authority.certificate("localhost", days=-1)
    for name, file in zip(IN_USE, (old.file, old.key), strict=True):
        shutil.copy(file, folder / name)
    server.ctl("eval", "ssl:clear_pem_cache().")
    came_in, told = connects(caplog, url, **trusting)
    assert not came_in and "its certificate has expired" in told, told


async def ingest(client, *numbers):
    for number in numbers:
        await client.ingest(rows(number), METADATA, START, END)


def test_connections_that_an_operator_closes_are_opened_again(guarded, tmp_path):
    server, _, _ = guarded
    handled = []

    async def run():
        transport = AmqpTransport(IonbeamClientConfig(amqp_url=server.url))
        await transport.open()
        async with IonbeamClient(IonbeamClientConfig(amqp_url=server.url, state_path=tmp_path)) as client:
            client.register_export_handler("closed", lambda event, stream: handled.append(event.revision))
            assert await client.wait_until_connected(30)
            for number in (1, 2, 3):
                await ingest(client, number)
                await asyncio.to_thread(server.ctl, "close_all_connections", "an operator says so")
                await ingest(client, 10 + number)
                assert await client.flush(30)
                message = event(number)
                body = wire.with_rows(message, SCHEMA, rows(3).to_batches())
                await asyncio.wait_for(transport.connected(), 30)
                await transport.broadcast(wire.DATASET_EXCHANGE, Outgoing(str(message.id), body, wire.ARROW))
                for _ in range(400):
                    if handled == list(range(1, number + 1)):
                        break
                    await asyncio.sleep(0.05)
        await transport.close()

    asyncio.run(run())
    assert handled == [1, 2, 3]


STOPPED = """
import asyncio, sys
from pathlib import Path
from client_samples import END, METADATA, START, rows
from ionbeam_client import IonbeamClient, IonbeamClientConfig

async def main(url, folder):
    async with IonbeamClient(IonbeamClientConfig(amqp_url=url, state_path=folder, heartbeat=1)) as client:
        client.register_export_handler("stopped", lambda event, stream: None)
        await client.wait_until_connected(30)
        for number in range(1, 40):
            await client.ingest(rows(number), METADATA, START, END)
            await asyncio.sleep(0.1)
            (folder / "begun").touch()
        assert await client.flush(60)

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


def test_a_process_that_was_stopped_for_longer_than_its_heartbeat_goes_on(guarded, tmp_path):
    server, _, _ = guarded
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", STOPPED, server.url, tmp_path], env=environment)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        process.send_signal(signal.SIGCONT)
        assert process.wait(90) == 0, "all was sent"
    finally:
        process.kill()


@pytest.mark.soak
def test_a_handler_may_take_longer_than_the_broker_waits_for_an_acknowledgement(guarded, tmp_path, caplog):
    """The broker looks once a minute for messages that nobody acknowledged within `consumer_timeout`."""
    server, _, _ = guarded
    handled = []

    async def handle(event, stream):
        await asyncio.sleep(150)
        handled.append(event.revision)

    async def run():
        async with IonbeamClient(IonbeamClientConfig(amqp_url=server.url, state_path=tmp_path)) as client:
            client.register_export_handler("slow", handle)
            assert await client.wait_until_connected(30)
            transport = AmqpTransport(IonbeamClientConfig(amqp_url=server.url))
            await transport.open()
            await asyncio.wait_for(transport.connected(), 30)
            message = event(1)
            body = wire.with_rows(message, SCHEMA, rows(3).to_batches())
            await transport.broadcast(wire.DATASET_EXCHANGE, Outgoing(str(message.id), body, wire.ARROW))
            await transport.close()
            for _ in range(1_700):
                if handled:
                    break
                await asyncio.sleep(0.1)

    asyncio.run(run())
    assert handled == [1] and "lost the connection" not in caplog.text
