"""`ionbeam serve` in a process of its own, as people start it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import httpx
import yaml
from servers import free_port


def wait_for(url: str, process: subprocess.Popen[bytes], log: Callable[[], str]) -> None:
    """Until something answers at `url`."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(log())
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"it does not answer: {log()}")


_LOOKING = """
import sys
from ionbeam_dagster.cli import app
from ionbeam_dagster.edr import served
served.LOOKED_EVERY = float(sys.argv.pop(1))
app()
"""
"""What `ionbeam` does, with looks for new windows at other times."""


class Served:
    """`ionbeam serve` in a process of its own, on the windows of a configuration."""

    looked_every: float | None = None
    """Seconds from one look for new windows to the next, where they are not those of the service."""

    def __init__(self, yaml_file: Path, public: str | None = None) -> None:
        self.folder = yaml_file.parent
        self.yaml = yaml_file
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.public = public or self.url

    def __enter__(self) -> Self:
        ionbeam = [str(Path(sys.executable).with_name("ionbeam"))]
        if self.looked_every is not None:
            ionbeam = [sys.executable, "-c", _LOOKING, str(self.looked_every)]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*ionbeam, "serve", "--port", str(self.port), "--url", self.public],
                env={**os.environ, "IONBEAM_CONFIG_PATH": str(self.yaml)},
                stdout=log,
                stderr=log,
            )
        wait_for(self.url, self._process, self.log)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def log(self) -> str:
        return (self.folder / "log").read_text()


class Serving(Served):
    """Windows of datasets that a client would send."""

    def __init__(
        self, folder: Path, datasets: list[str], projections: Path | None = None, public: str | None = None
    ) -> None:
        super().__init__(folder / "ionbeam.yaml", public)
        self.config = folder / "pygeoapi.yml"
        self.windows = (projections or folder / "projections") / "pygeoapi"
        blocks = {
            name: {
                "kind": "external",
                "start": "2022-01-01T00:00:00Z",
                "aggregation_span": "PT1H",
                "data_path": str(folder / "raw"),
            }
            for name in datasets
        }
        service = {"output_path": str(self.windows.parent), "config_path": str(self.config)}
        sections = {
            "sources": blocks,
            "projections": {"pygeoapi_service": service},
            "dataset_aggregator": {"data_path": str(folder / "data")},
            "state_path": str(folder / "state"),
        }
        self.yaml.write_text(yaml.safe_dump(sections))
