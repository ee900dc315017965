"""The connection to the MQTT broker of WIS2: what is published is known to have arrived, or not.

Belongs here: connecting, by MQTT 5 or 3.1.1, and the broker's answers. Does not belong here: what is published
(telling.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ionbeam_client.certificates import certificate_fault, perhaps_ours
from ionbeam_dagster.config.wis2 import Wis2Broker
from ionbeam_dagster.errors import IonbeamError

PATIENCE = 30.0
"""Seconds in which the broker has to answer anything at all."""
_KEEPALIVE = 60
_OTHER_VERSION = (1, 0x84)
_OF_THE_USER = (4, 5, 0x86, 0x87)


class NotTold(IonbeamError, ConnectionError):
    """The broker does not answer, or does not let us in; the message says which, why, and what to do."""


class Publisher:
    """A connection to the broker for as long as a block lasts. Entering it raises NotTold."""

    def __init__(self, settings: Wis2Broker) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._connected: Any = None
        self._answers: dict[int, str] = {}
        self._lost = ""

    def __enter__(self) -> Self:
        for version in (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311):
            self._client = self._opened(version)
            if not self._connected.is_failure:
                return self
            self._close()
            if self._connected.value not in _OTHER_VERSION:
                break
        is_user = self._connected.value in _OF_THE_USER
        remedy = "correct wis2.broker.username and password, or get this user permission"
        raise NotTold(
            f"{self._place} does not let us in ({self._connected}); {remedy if is_user else 'see in its log why'}"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> list[str]:
        """Publish messages, each with its topic, and wait until the broker has them; gives for each of them why the
        broker does not have it, "" where it does.

        Raises NotTold when the connection is lost, or nothing is answered any longer, before the first answer: some may
        have arrived all the same.
        """
        with self._changed:
            self._answers.clear()
        sent = [self._client.publish(topic, message, qos=1).mid for topic, message in messages]
        trouble = self._waited_for(set(sent))
        if trouble and not self._answers:
            raise NotTold(f"{self._place}: {trouble}; it is tried again")
        return [self._answers.get(number, trouble) for number in sent]

    def _waited_for(self, sent: set[int]) -> str:
        """Wait until all is answered, or nothing is to be expected any longer; why, then."""
        with self._changed:
            known, until = -1, 0.0
            while not sent <= self._answers.keys():
                if self._lost:
                    return f"the connection was lost ({self._lost})"
                if len(self._answers) != known:
                    known, until = len(self._answers), time.monotonic() + PATIENCE
                elif time.monotonic() > until:
                    return f"nothing was answered for {PATIENCE:.0f} seconds"
                self._changed.wait(0.5)
        return ""

    @property
    def _place(self) -> str:
        return f"MQTT broker {self._settings.host}:{self._settings.port}"

    def _opened(self, version: MQTTProtocolVersion) -> mqtt.Client:
        """A client that was answered, one way or another."""
        settings = self._settings
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
        if settings.username:
            client.username_pw_set(settings.username, settings.password.get_secret_value())
        if settings.encrypted:
            client.tls_set_context(settings.context("wis2.broker."))
        client.on_connect, client.on_publish, client.on_disconnect = self._answered, self._arrived, self._ended
        self._connected, self._lost = None, ""
        try:
            client.connect(settings.host, settings.port, _KEEPALIVE)
        except OSError as error:
            why = certificate_fault(error, "wis2.broker.ca_file", "wis2.broker.cert_file") or str(error)
            raise NotTold(f"{self._place} does not answer ({why}); start it, or correct wis2.broker") from error
        client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected is not None or self._lost, PATIENCE)
        if self._connected is None:
            client.loop_stop()
            why = "it closed the connection" if self._lost else f"no answer for {PATIENCE:.0f} seconds"
            if settings.encrypted:
                why += perhaps_ours(ConnectionError(why), "wis2.broker.cert_file")
            raise NotTold(f"{self._place} does not let us in ({why}); correct wis2.broker")
        return client

    def _close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _answered(self, _: mqtt.Client, __: object, ___: object, code: Any, ____: object) -> None:
        with self._changed:
            self._connected = code
            self._changed.notify_all()

    def _arrived(self, _: mqtt.Client, __: object, number: int, code: Any, ___: object) -> None:
        with self._changed:
            self._answers[number] = f"refused: {code}" if code.is_failure else ""
            self._changed.notify_all()

    def _ended(self, _: mqtt.Client, __: object, ___: object, code: Any, ____: object) -> None:
        with self._changed:
            self._lost = str(code)
            self._changed.notify_all()
