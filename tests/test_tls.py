"""TLS with an authority of one's own, and certificates of clients, towards each server that the platform uses."""

from __future__ import annotations

import threading
import time

import pytest
from certificates import Authority, spoken_with_tls

from ionbeam_dagster.config.wis2 import Wis2Broker
from ionbeam_dagster.doors.amqp.bridge import BrokerAway, bridge_of
from ionbeam_dagster.doors.amqp.queues import queues, takes_messages, time_of_broker
from ionbeam_dagster.errors import ConfigError, IonbeamError
from ionbeam_dagster.health.clocks import _time_of_web
from ionbeam_dagster.sources.netatmo.mqtt import NetatmoMqtt, NetatmoMqttConfig
from ionbeam_dagster.stores.files import Files, S3Settings
from ionbeam_dagster.stores.ledger.redis_server import time_of_redis
from ionbeam_dagster.stores.settings import InfluxDBSettings, RedisSettings
from ionbeam_dagster.stores.timeseries.influxdb.bucket import OpenBucket
from ionbeam_dagster.tls import TlsSettings
from ionbeam_dagster.wis2.broker import Publisher


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority):
    """The settings that let a client in."""
    ours = authority.certificate("client")
    return {"ca_file": authority.file, "cert_file": ours.file, "key_file": ours.key}


def ask_redis(server, place, files, folder, platform_of):
    time_of_redis(RedisSettings(redis_url=f"rediss://{place}/0", **files).address)


def ask_influxdb(server, place, files, folder, platform_of):
    url = f"https://{place}"
    given = InfluxDBSettings(
        influxdb_url=url, influxdb_org=server.org, influxdb_token=server.token, influxdb_bucket="first", **files
    )
    with OpenBucket(url, server.org, "first", server.token, 1.0, given) as bucket:
        assert bucket.is_sound(None)
    _time_of_web(f"{url}/ping", given)


def ask_s3(server, place, files, folder, platform_of):
    keys = {"access_key": server.access_key, "secret_key": server.secret_key, "region": server.region}
    Files(folder, S3Settings(endpoint=f"https://{place}", ca_file=files.get("ca_file"), **keys)).exists("s3://none/one")


def ask_rabbitmq(server, place, files, folder, platform_of):
    queues(amqps(platform_of, place, files))


def amqps(platform_of, place, files):
    url, named = f"amqps://guest:guest@{place}/", "".join(f", {key}: {file}" for key, file in files.items())
    return platform_of("  my_source: {kind: external}", broker=f"{{url: '{url}'{named}}}")


def ask_mosquitto(server, place, files, folder, platform_of):
    host, _, port = place.partition(":")
    subscriber = NetatmoMqtt(
        "mqtt", NetatmoMqttConfig(host=host, port=int(port), data_path=str(folder), **files)
    ).subscriber()
    thread = threading.Thread(target=subscriber.run)
    thread.start()
    until = time.monotonic() + 20
    while not (subscriber.counts.connections or subscriber.counts.last_error) and time.monotonic() < until:
        time.sleep(0.05)
    subscriber.stop()
    thread.join(20)
    if subscriber.counts.last_error:
        raise IonbeamError(subscriber.counts.last_error)
    assert subscriber.counts.connections


def publish_to_mosquitto(server, place, files, folder, platform_of):
    with Publisher(Wis2Broker(url=f"mqtts://{place}", **files)) as publisher:
        assert publisher.publish([("origin/a/wis2/de-example-test/metadata", b"{}")]) == [""]


ASKED = {
    "redis": (ask_redis, lambda server: int(server.url.rpartition(":")[2].partition("/")[0])),
    "influxdb": (ask_influxdb, lambda server: int(server.url.rpartition(":")[2])),
    "s3": (ask_s3, lambda server: int(server.endpoint.rpartition(":")[2])),
    "rabbitmq": (ask_rabbitmq, lambda server: server.port),
    "mosquitto": (ask_mosquitto, lambda server: server.port),
    "wis2": (publish_to_mosquitto, lambda server: server.port),
}


@pytest.mark.parametrize("name", ASKED)
def test_each_server_is_spoken_to_with_certificates_of_ones_own_and_what_is_wrong_is_said(
    name, request, authority, files, tmp_path, platform_of
):
    server = request.getfixturevalue("mosquitto" if name == "wis2" else name)
    ask, port_of = ASKED[name]
    port, right = port_of(server), authority.certificate("localhost")
    own_asked_for = None if name == "s3" else authority
    with spoken_with_tls(port, right, own_asked_for) as place:
        ask(server, f"localhost:{place}", files, tmp_path / "right", platform_of)
    others, trusting = Authority(tmp_path / "others"), {"ca_file": authority.file}
    theirs = others.certificate("client")
    faults = [
        (right, None, "localhost", {"ca_file": others.file}, "not trusted"),
        (authority.certificate("localhost", days=-1), None, "localhost", trusting, "has expired"),
        (right, None, "127.0.0.1", trusting, "another host's"),
    ]
    if name != "s3":
        strange = trusting | {"cert_file": theirs.file, "key_file": theirs.key}
        faults += [(right, authority, "localhost", given, "certificate of ours") for given in (trusting, strange)]
    for number, (served, clients, host, given, told) in enumerate(faults):
        with spoken_with_tls(port, served, clients) as place, pytest.raises(IonbeamError) as failure:
            ask(server, f"{host}:{place}", given, tmp_path / str(number), platform_of)
        assert told in str(failure.value), failure.value


def test_the_bridge_and_what_looks_after_the_broker_speak_tls(platform_of, rabbitmq, authority, files, caplog):
    with spoken_with_tls(rabbitmq.port, authority.certificate("localhost"), authority) as place:
        platform = amqps(platform_of, f"localhost:{place}", files)
        assert bridge_of(platform).take_in(2).refused == []
        assert queues(platform) and takes_messages(platform) and time_of_broker(platform.config.sections.broker)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ionbeam_dagster.doors.amqp.bridge.CONNECT_TIMEOUT", 2)
            with pytest.raises(BrokerAway, match=r"not trusted \(.*broker\.ca_file names who signed it"):
                bridge_of(amqps(platform_of, f"localhost:{place}", {})).take_in(2)
        assert "broker.ca_file names who signed it" in caplog.text and "tls_" not in caplog.text


def test_certificates_that_can_not_be_used_are_named(tmp_path, authority):
    with pytest.raises(ConfigError, match=r"ca_file .*none.pem cannot be used \(.*No such file"):
        TlsSettings(ca_file=tmp_path / "none.pem").context()
    with pytest.raises(ConfigError, match=r"cert_file .* and key_file .* cannot be used"):
        TlsSettings(cert_file=authority.file, key_file=authority.file).context()
    locked = authority.encrypted(authority.certificate("client"))
    with pytest.raises(ConfigError, match=r"key_file .* cannot be used \(.*has a passphrase; name one without"):
        TlsSettings(cert_file=locked.file, key_file=locked.key).context()
    with pytest.raises(ValueError, match="belong together"):
        TlsSettings(cert_file=authority.file)
    with pytest.raises(ValueError, match="begin it with rediss://"):
        RedisSettings(redis_url="redis://localhost/0", ca_file=authority.file)
