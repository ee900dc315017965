"""Dagster's history: what is old goes and what assets' pages need stays; what was lost is told again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.schedules.schema import AssetDaemonAssetEvaluationsTable, JobTickTable
from told import key

from ionbeam_dagster.config.sections import History
from ionbeam_dagster.orchestration.doing import Doing
from ionbeam_dagster.orchestration.history import Pruned, prune, rebuild
from ionbeam_dagster.orchestration.home import ensure_home

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]
TOLD = "  told: {type: told, start: 2026-06-21, end: 2026-06-21T02:00, exports: [pygeoapi]}"
ASSETS = [dg.AssetKey(["told", stage]) for stage in ("raw", "observations", "dataset", "pygeoapi")]


@pytest.fixture
def platform(platform_with):
    return platform_with(TOLD, automation="{lookback: P400D}")


@pytest.fixture
def kept(tmp_path):
    with dg.DagsterInstance.from_config(str(ensure_home(tmp_path / "home"))) as instance:
        yield instance


def _known(instance) -> list[set[str]]:
    return [instance.get_materialized_partitions(asset) for asset in ASSETS]


def _work(platform, instance) -> None:
    doing = Doing(platform, instance)
    doing.source("told")
    doing.dataset("told")


def test_what_is_old_goes_and_every_partition_stays_known(platform, kept, tmp_path):
    _work(platform, kept)
    [run, _] = kept.get_runs()
    before, now = _known(kept), datetime.now(UTC)
    events = [kept.fetch_materializations(asset, limit=100).records for asset in ASSETS]
    with kept.schedule_storage.connect() as connection:
        for status in ("SKIPPED", "SUCCESS"):
            tick = JobTickTable.insert().values(status=status, timestamp=now.replace(tzinfo=None), tick_body="{}")
            connection.execute(tick)
        connection.execute(
            AssetDaemonAssetEvaluationsTable.insert().values(
                evaluation_id=1, asset_key='["told", "raw"]', asset_evaluation_body="{}"
            )
        )
    settings = History()
    assert prune(kept, settings, now + timedelta(hours=1)) == Pruned(0, 0, 0)
    assert prune(kept, settings, now + timedelta(days=4)) == Pruned(0, 1, 1)
    assert prune(kept, settings, now + timedelta(days=31)) == Pruned(2, 1, 0)
    assert kept.get_runs() == []
    assert not [*Path(tmp_path / "home").rglob(f"*{run.run_id}*")]
    assert _known(kept) == before and before[0] == {key(f"0{h}:{m:02}") for h in (0, 1) for m in (0, 15, 30, 45)}
    after = [kept.fetch_materializations(asset, limit=100).records for asset in ASSETS]
    assert after == events, "their pages show what they showed"
    _work(platform, kept)
    assert kept.get_runs() == [], "nothing is made again"


def test_a_run_that_goes_on_is_never_old(platform, kept):
    kept.add_run(dg.DagsterRun(job_name="told__collect", run_id="r", status=dg.DagsterRunStatus.STARTED))
    assert prune(kept, History(), datetime.now(UTC) + timedelta(days=100)).runs == 0
    assert [run.run_id for run in kept.get_runs()] == ["r"]


def test_a_history_that_was_lost_is_told_what_is_there_once(platform, kept, instance):
    _work(platform, kept)
    told = rebuild(platform, instance)
    assert told == {"told/raw": 8, "told/observations": 8, "told/dataset": 2, "told/pygeoapi": 2}
    assert _known(instance) == _known(kept)
    assert rebuild(platform, instance) == {}
    assert rebuild(platform, kept) == {}
