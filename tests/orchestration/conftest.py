"""Platforms for the tests of orchestration: real stores and a real Dagster instance, and a source that does as told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import dagster as dg
import pytest
from told import Told, ToldChanges


@pytest.fixture
def platform_with(platform_of, monkeypatch):
    """Make a platform with the sources `told` (by the clock) or `told_changes`; see conftest.platform_of."""
    types = {"told": Told, "told_changes": ToldChanges}
    points = {name: SimpleNamespace(load=lambda kind=kind: kind) for name, kind in types.items()}
    monkeypatch.setattr("ionbeam_dagster.config.resolving.installed_sources", lambda: points)
    monkeypatch.setattr("ionbeam_dagster.orchestration.assets.RETRY_DELAY", 0.01)
    return platform_of


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
