"""What the tests of the Restream client share: its service on the loopback interface, and waits that take no time."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))  # its loopback service

from restream_service import TOKEN, RestreamService

from ionbeam_client.datastore import constants, http


@pytest.fixture
def service(monkeypatch):
    """The service, and the environment of somebody who uses it."""
    with RestreamService() as service:
        monkeypatch.setenv("RESTREAM_HOST", service.url)
        monkeypatch.setenv("TALLY_AUTH_TOKEN", TOKEN)
        for other in ("RESTREAM_AUTH_TOKEN", "RESTREAM_CLIENT_ID", "RESTREAM_CLIENT_SECRET"):
            monkeypatch.delenv(other, raising=False)
        yield service


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """How long would be waited between tries, of which there are as many as ever; nobody waits."""
    noted, pause = [], http._pause

    def none(state):
        noted.append(pause(state))
        return 0.0

    monkeypatch.setattr(http, "_pause", none)
    monkeypatch.setattr(constants, "FIRST_PAUSE", 0.0)  # of streams that broke
    return noted
