"""The connection to the MQTT broker: what arrives is in the journal before the broker hears that it has arrived.

Belongs here: the session, reconnecting, acknowledging. Does not belong here: files (journal.py), or windows (mqtt.py).
One thread: it reads what is there, commits it as one group, acknowledges the group, and reads on. What the broker may
send ahead of that is bounded by TCP, so memory is.
"""

from __future__ import annotations

import logging
import random
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from pydantic import SecretStr

from ionbeam_client.certificates import certificate_fault, perhaps_ours
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.netatmo.journal import Writer
from ionbeam_dagster.tls import TlsSettings

GROUP = 2000  # messages that are committed at once
KEEPALIVE = 60
NOTED_EVERY = 10.0  # seconds between two notes that we listen
LONGEST_PAUSE = 60.0
_REFUSALS = {4: "user name or password are wrong", 5: "this user is not allowed to connect"}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and who we are there. The session lives under `client_id`, so it must stay the same. Without
    `tls` the connection is in the clear."""

    host: str
    port: int
    client_id: str
    topics: tuple[str, ...]
    username: str = ""
    password: SecretStr | None = None
    tls: TlsSettings | None = None


@dataclass(slots=True)
class Counts:
    """What happened so far."""

    journaled: int = 0
    connections: int = 0
    lost_sessions: int = 0
    last_error: str = ""


class Subscriber:
    """Takes messages into the journal until it is told to stop."""

    def __init__(self, broker: Broker, writer: Writer, on_rotated: Callable[[], object] = lambda: None) -> None:
        self._broker, self._writer, self._on_rotated = broker, writer, on_rotated
        self._stopped = threading.Event()
        self._taken: list[tuple[int, int]] = []
        self._refused = self._denied = ""
        self._noted = 0.0
        self.counts = Counts()

    @property
    def taken(self) -> int:
        """How many messages are in the journal by it."""
        return self.counts.journaled

    def stop(self) -> None:
        """End `run` in good order, from another thread or a signal."""
        self._stopped.set()

    def run(self) -> None:
        """Take messages in for ever; while the broker is away, try again with growing pauses.

        Raises SourceError when the broker refuses us, or the journal cannot be written: nothing that was not
        acknowledged is lost then.
        """
        client = self._client()
        pause = 0.5
        try:
            while not self._stopped.is_set():
                began = time.monotonic()
                connections = self.counts.connections
                try:
                    self._connected(client)
                    self._tell_of_the_end(connections)
                except OSError as error:
                    why = certificate_fault(error, "ca_file", "cert_file") or str(error)
                    self.counts.last_error = why
                    _LOG.warning("no connection to %s: %s", self._address, why)
                self._rotate(force=True)
                if self._refused:
                    raise SourceError(f"{self._address}: {self._refused}")
                pause = 0.5 if time.monotonic() - began > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)
                self._stopped.wait(pause * random.uniform(0.5, 1))
        finally:
            client.disconnect()
            self._rotate(force=True)

    @property
    def _address(self) -> str:
        return f"MQTT broker {self._broker.host}:{self._broker.port}"

    def _client(self) -> mqtt.Client:
        broker = self._broker
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, broker.client_id, clean_session=False, protocol=mqtt.MQTTv311, manual_ack=True
        )
        if broker.username:
            client.username_pw_set(broker.username, broker.password.get_secret_value() if broker.password else None)
        if broker.tls is not None:
            client.tls_set_context(broker.tls.context())
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_socket_register_write = lambda *_: None  # acknowledgements are sent when their group is complete
        return client

    def _on_connect(self, client: mqtt.Client, _: object, flags: mqtt.ConnectFlags, code: object, __: object) -> None:
        if getattr(code, "is_failure", False):
            number = {0x86: 4, 0x87: 5}.get(getattr(code, "value", 0), 0)
            self._refused = f"{_REFUSALS[number]}; correct username and password" if number else ""
            self._denied = str(code)
            return
        self.counts.connections += 1
        self._writer.listens(flags.session_present)
        self._noted = time.monotonic()
        if not flags.session_present and self.counts.connections > 1:
            self.counts.lost_sessions += 1
            _LOG.warning("%s kept no session: messages of the meantime may be lost", self._address)
        client.subscribe([(topic, 1) for topic in self._broker.topics])
        _LOG.info("connected to %s as %s", self._address, self._broker.client_id)

    def _on_subscribe(self, _: mqtt.Client, __: object, ___: int, codes: Sequence[object], ____: object) -> None:
        if any(getattr(code, "is_failure", False) for code in codes):
            self._refused = f"may not subscribe to {', '.join(self._broker.topics)}; correct topics, or get permission"

    def _on_message(self, _: mqtt.Client, __: object, message: mqtt.MQTTMessage) -> None:
        self._writer.add(message.topic, bytes(message.payload))
        self._taken.append((message.mid, message.qos))

    def _connected(self, client: mqtt.Client) -> None:
        """Serve one connection until it ends."""
        self._taken.clear()
        self._denied = ""
        client.connect(self._broker.host, self._broker.port, KEEPALIVE)
        while not self._stopped.is_set():
            connection = client.socket()
            if connection is None:
                return
            waiting = [connection] if client.want_write() else []
            pending = getattr(connection, "pending", lambda: 0)()
            readable, writable, _ = select.select([connection], waiting, [], 0 if pending else 0.2)
            if writable and client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            if (readable or pending) and not self._read(client):
                return
            if client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS or self._refused:
                return
            self._rotate()
            if client.is_connected() and time.monotonic() - self._noted > NOTED_EVERY:
                self._writer.listens(same_session=True)
                self._noted = time.monotonic()

    def _tell_of_the_end(self, connections_before: int) -> None:
        if self._refused or self._stopped.is_set():
            return
        why = "the connection was lost"
        if self.counts.connections == connections_before:
            why = f"it does not let us in ({self._denied or 'it closed the connection'})"
            if self._broker.tls is not None and not self._denied:
                why += perhaps_ours(ConnectionError(why), "cert_file")
        self.counts.last_error = why
        _LOG.warning("%s: %s; it is tried again", self._address, why)

    def _read(self, client: mqtt.Client) -> bool:
        """Take what is there, a group at most; returns whether the connection still stands."""
        code, before = MQTTErrorCode.MQTT_ERR_SUCCESS, -1
        while code == MQTTErrorCode.MQTT_ERR_SUCCESS and before < len(self._taken) < GROUP:
            before = len(self._taken)
            code = client.loop_read()
        self._commit(client)
        return code == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _commit(self, client: mqtt.Client) -> None:
        try:
            self.counts.journaled += self._writer.commit()
        except OSError as error:
            raise SourceError(
                f"the journal cannot be written ({error}); make room or give permission, and start again: the broker "
                "keeps what was not acknowledged"
            ) from error
        _acknowledge(client, self._taken)
        self._taken.clear()

    def _rotate(self, force: bool = False) -> None:
        if self._writer.rotate(force):
            self._on_rotated()


def _acknowledge(client: mqtt.Client, taken: Sequence[tuple[int, int]]) -> None:
    for number, quality in taken:
        client.ack(number, quality)
    if client.want_write():
        client.loop_write()
