"""The platform as a Dagster resource.

Belongs here: the thin shell through which assets, conditions and sensors reach the platform. Does not belong here: the
platform itself (pipeline), which knows nothing of Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import dagster as dg

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.orchestration.heartbeats import beating
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform

Watcher = Callable[[str, Window, str | None], None]
"""Is told the asset (``<name>/<stage>``), the window that was just done, and why it failed, if it did."""


@cache
def _opened(config_path: str) -> Platform:
    return open_platform(IonbeamConfig.load(Path(config_path)))


class PlatformResource(dg.ConfigurableResource["PlatformResource"]):
    """The platform of one configuration file, opened once in a process, when it is first used."""

    config_path: str
    may_end_process: ClassVar[bool] = True
    """Whether a step that hangs may take its process with it, which is that of its run."""

    @property
    def platform(self) -> Platform:
        return _opened(self.config_path)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[PlatformResource]:
        """The resource of a run, whose heart beats as long as it goes on."""
        if context.run is None:
            yield self
            return
        with beating(self.platform, context.run.run_id, f"run of {context.run.job_name}"):
            yield self

    def on_window(self, asset: str, window: Window, failure: str | None) -> None:
        """Nobody watches a run that Dagster launched: its events tell."""


@dataclass(frozen=True)
class WatchedPlatform:
    """Stands in for `PlatformResource` where runs are made in this process and somebody watches them go on.

    Such runs wait for no pool: a slot that a killed run left taken would hold them up for ever.
    """

    platform: Platform
    on_window: Watcher = lambda asset, window, failure: None
    may_end_process: bool = False
