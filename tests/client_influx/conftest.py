"""What the tests of the InfluxDB client share: real buckets, faulty servers, clients that are closed."""

from __future__ import annotations

import pytest
from influx_faults import Bucket, Faulty, configuration

from ionbeam_client.influx import EHTInfluxDBClient


@pytest.fixture
def bucket(influxdb, request):
    """Makes empty buckets of the real influxd."""
    made = iter(range(100))
    return lambda: Bucket.made(influxdb, f"{request.node.name[:60]}_{next(made)}_test")


@pytest.fixture
def faulty():
    """Makes servers with faults on demand."""
    servers = []

    def make(*arguments, **keywords) -> Faulty:
        servers.append(Faulty(*arguments, **keywords))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def client(tmp_path):
    """Makes clients with a log in the test's folder."""
    clients = []

    def make(*servers, **keys) -> EHTInfluxDBClient:
        on_error = keys.pop("on_error", None)
        clients.append(EHTInfluxDBClient(on_error=on_error, **configuration(tmp_path, *servers, **keys)))
        return clients[-1]

    yield make
    for one in clients:
        one.close()
