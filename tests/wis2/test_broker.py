"""The broker's answers: who may publish, over what, and what is said of one that does not take a message."""

import socket
import socketserver
import threading
from contextlib import suppress

import pytest
from backends import start_mosquitto

from ionbeam_dagster.config.wis2 import Wis2Broker
from ionbeam_dagster.wis2.broker import NotTold, Publisher

MESSAGE = ("origin/a/wis2/de-example-test/metadata", b"{}")


def asked(**keys):
    with Publisher(Wis2Broker(**keys)) as publisher:
        return publisher.publish([MESSAGE, MESSAGE])


def test_a_user_publishes_over_tls_and_others_are_told_why_not(mosquitto_with_tls):
    server, certificate = mosquitto_with_tls
    known = {"url": f"mqtts://localhost:{server.port}", "username": "someone", "password": "very-secret"}
    assert asked(**known, ca_file=certificate) == ["", ""]
    with pytest.raises(NotTold, match=r"does not let us in \(Not authorized\); correct wis2.broker.username"):
        asked(**known | {"password": "wrong"}, ca_file=certificate)
    with pytest.raises(NotTold, match=r"does not answer \(.*certificate.*wis2.broker.ca_file"):
        asked(**known)


class _OfMqtt3(socketserver.StreamRequestHandler):
    """Before a real broker, one that knows no MQTT 5: it refuses that as MQTT 3.1.1 has it, and passes on all else."""

    def handle(self):
        connect = self.connection.recv(4096)
        self.server.versions.append(connect[8])
        if connect[8] == 5:
            self.connection.sendall(b"\x20\x02\x00\x01")
            return
        with socket.create_connection(("127.0.0.1", self.server.broker)) as broker:
            broker.sendall(connect)
            back = threading.Thread(target=_passed_on, args=(broker, self.connection), daemon=True)
            back.start()
            _passed_on(self.connection, broker)
            back.join(5)


def _passed_on(source, target):
    with suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_broker_that_speaks_mqtt_3_alone_is_spoken_to_so(mosquitto):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _OfMqtt3) as server:
        server.broker, server.versions, server.daemon_threads = mosquitto.port, [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert asked(url=f"mqtt://127.0.0.1:{server.server_address[1]}") == ["", ""]
        server.shutdown()
        assert server.versions == [5, 4]


@pytest.fixture
def refusing(tmp_path):
    """Start a broker to which nobody may publish; without a limit of its queues, it hangs up after the first that it
    refuses."""
    started = []

    def start(*lines):
        (tmp_path / "acl").write_text("topic read #\n")
        server = start_mosquitto(tmp_path, "allow_anonymous true", f"acl_file {tmp_path / 'acl'}", *lines)
        started.append(server)
        return f"mqtt://127.0.0.1:{server.port}"

    yield start
    for server in started:
        server.process.stop()


def test_a_topic_that_is_not_allowed_is_refused_with_the_reason(refusing):
    assert asked(url=refusing("max_queued_messages 1000")) == ["refused: Not authorized"] * 2


def test_what_was_answered_before_the_connection_was_lost_is_known(refusing):
    refused, lost = asked(url=refusing())
    assert refused == "refused: Not authorized" and lost.startswith("the connection was lost (")


def test_a_broker_that_goes_away_is_told(mosquitto):
    with Publisher(Wis2Broker(url=f"mqtt://127.0.0.1:{mosquitto.port}")) as publisher:
        mosquitto.process.stop()
        with pytest.raises(NotTold, match="the connection was lost"):
            publisher.publish([MESSAGE])


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"url": "amqp://broker"}, "is not the address of an MQTT broker; right would be mqtts://broker.example:8883"),
        ({"url": "mqtts://user:secret@broker"}, "holds a user, whom others would be told"),
        ({"url": "mqtts://broker/topic"}, "has more than a host and a port"),
        ({"url": "mqtts://broker:99999"}, "is not the address of an MQTT broker"),
        ({"url": "mqtt://broker", "username": "me"}, "the password would be sent in the clear"),
        ({"url": "mqtt://broker", "ca_file": "authority.pem"}, "ca_file and cert_file would not be used"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_what_would_be_right(keys, fault):
    with pytest.raises(ValueError, match=fault):
        Wis2Broker(**keys)
