"""The fixtures of the ArchFX client's tests: the vendor's package, and a service to talk to."""

from __future__ import annotations

import pytest
from archfx_oracle import Vendor, vendors_python
from archfx_service import Service


@pytest.fixture(scope="session")
def vendor():
    """Calls functions of `vendor_worker` where the vendor's package is."""
    found = Vendor(vendors_python())
    yield found
    found.process.stdin.close()
    found.process.wait(timeout=10)


@pytest.fixture
def service():
    """A service on loopback, new for each test."""
    with Service() as found:
        yield found
