"""Sealing windows by hand: a job that closes them for good, or opens them again.

Belongs here: the job, and what Dagster is told of it. Does not belong here: what follows from it (domain/decisions.py).
"""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from ionbeam_dagster.domain.times import parse_moment
from ionbeam_dagster.domain.windows import Window, window_of
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.orchestration.assets.dataset import dataset_key
from ionbeam_dagster.orchestration.resources import PlatformResource
from ionbeam_dagster.pipeline.platform import Platform

SEAL_JOB = "seal"


class SealConfig(dg.Config):
    """Which windows, and whether they are to be opened again."""

    dataset: str
    start: str = Field(description="ISO 8601, UTC unless it says otherwise")
    end: str = Field(description="the end of the range (not included); windows that it cuts are taken whole")
    unseal: bool = False


def seal_job() -> dg.JobDefinition:
    """``seal``: each window that it closes or opens is told on its dataset's page as an observation."""

    @dg.op(name="seal_windows")
    def seal_windows(context: dg.OpExecutionContext, config: SealConfig, ionbeam: PlatformResource) -> None:
        try:
            changed = seal_range(ionbeam.platform, config)
        except (PipelineError, ValueError) as error:
            raise dg.Failure(str(error)) from error
        key = dataset_key(config.dataset)
        told = "opened again" if config.unseal else "sealed: what arrives from now on is kept, not built"
        for window in changed:
            context.log_event(dg.AssetObservation(key, description=told, partition=window.key, metadata={"seal": told}))
            ionbeam.on_window(key.to_user_string(), window, None)
        context.log.info(f"{len(changed)} windows of {config.dataset} {told}")

    @dg.job(
        name=SEAL_JOB,
        description="Closes built windows of a dataset for good, or opens them again; `ionbeam seal` does the same.",
    )
    def job() -> None:
        seal_windows()

    return job


def seal_range(platform: Platform, config: SealConfig) -> list[Window]:
    """Seal, or unseal, the built windows of which the range of `config` holds a part; returns those that it changed, in
    order."""
    start, end = (parse_moment(text) for text in (config.start, config.end))
    dataset = platform.dataset(config.dataset)
    first = window_of(start, dataset.span).start
    built = [one.revision.window for one in platform.ledger.revisions(dataset.name, first, end)]
    sealed = [window for window in built if platform.ledger.sealed(dataset.name, window)]
    if config.unseal:
        platform.ledger.unseal(dataset.name, sealed)
        return sealed
    opened = [window for window in built if window not in sealed]
    platform.ledger.seal(dataset.name, opened, datetime.now(UTC))
    return opened
