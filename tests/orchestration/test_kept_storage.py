"""Dagster's databases whose connections are kept: what is written is there for others at once, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from ionbeam_dagster.orchestration.home import SETTINGS, dagster_at, ensure_home
from ionbeam_dagster.orchestration.internals import forget_run

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
KEY = dg.AssetKey("made")


@dg.asset(check_specs=[dg.AssetCheckSpec("sound", asset=KEY)])
def made():
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="sound", passed=True)])


def run(instance: dg.DagsterInstance) -> str:
    return dg.materialize([made], instance=instance).run_id


@pytest.fixture
def home(tmp_path):
    return ensure_home(tmp_path / "home")


def told(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.dagster_event.event_type_value for entry in instance.all_logs(run_id) if entry.dagster_event]


def test_dagsters_own_reads_what_is_written_while_it_is_open_and_the_other_way_round(home):
    with dagster_at(home) as ours, dg.DagsterInstance.from_config(str(home)) as theirs:
        runs = [run(one) for one in (ours, theirs, ours, theirs)]
        for one in runs:
            assert told(ours, one) == told(theirs, one)
            assert {"ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "PIPELINE_SUCCESS"} <= set(told(theirs, one))
        for one in (ours, theirs):
            assert one.get_runs_count() == len(runs)
            assert len(one.fetch_materializations(KEY, limit=10).records) == len(runs)
        shards = [instance.event_log_storage.path_for_shard(runs[0]) for instance in (ours, theirs)]
        assert shards[0] == shards[1]
    assert not list(home.rglob("*.db.*")), "drafts of databases"


def test_the_tables_of_a_copied_database_are_dagsters_own(home):
    with dagster_at(home) as ours, dg.DagsterInstance.from_config(str(home)) as theirs:
        made_of = []
        for one in (ours, theirs):
            with one.event_log_storage.run_connection(run(one)) as connection:
                rows = connection.execute(text("SELECT type, name, sql FROM sqlite_master ORDER BY name")).all()
                version = connection.execute(text("SELECT version_num FROM alembic_version")).all()
                made_of.append((rows, version, connection.execute(text("PRAGMA journal_mode")).scalar()))
        assert made_of[0] == made_of[1]
        assert made_of[0][2] == "wal"


def test_threads_write_and_read_at_the_same_time(home):
    """As a run does, and whoever looks whether it is to end. (Dagster cannot execute runs in threads.)"""
    with dagster_at(home) as instance:
        first = run(instance)

        def report(number: int) -> int:
            instance.report_runless_asset_event(dg.AssetMaterialization(KEY, metadata={"number": number}))
            assert told(instance, first)[-1] == "PIPELINE_SUCCESS"
            return instance.get_runs_count()

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(report, range(40))) == {1}
        assert len(instance.fetch_materializations(KEY, limit=50).records) == 41


def test_what_is_left_of_runs_that_were_forgotten_stays(home):
    with dagster_at(home) as instance:
        runs = [run(instance) for _ in range(6)]
        assert {"index", *runs[-3:]} == set(instance.event_log_storage._open), "no more of them are open"
        for one in runs[:-1]:
            forget_run(instance, one)
        assert [one.run_id for one in instance.get_runs()] == runs[-1:]
        assert told(instance, runs[-1])[-1] == "PIPELINE_SUCCESS"
        assert len(instance.fetch_materializations(KEY, limit=10).records) == len(runs)


def test_databases_that_were_removed_are_missed_at_once(home):
    """Else it would go on with files that nobody sees."""
    with dagster_at(home) as instance:
        run(instance)
        for database in [*home.rglob("index.db*"), *home.rglob("runs.db*")]:
            database.unlink()
        with pytest.raises(Exception, match="no such table"):
            instance.get_runs_count()
        with pytest.raises(Exception, match="no such table"):
            instance.fetch_materializations(KEY, limit=10)
        for database in [*home.rglob("index.db*"), *home.rglob("runs.db*")]:
            database.unlink()
        dg.DagsterInstance.from_config(str(home)).dispose()
        run(instance)
        with dg.DagsterInstance.from_config(str(home)) as theirs:
            assert theirs.get_runs_count() == len(theirs.fetch_materializations(KEY, limit=10).records) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1])))
from test_kept_storage import run
from ionbeam_dagster.orchestration.home import dagster_at
with dagster_at(Path(sys.argv[2])) as instance:
    run(instance)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_wrote_is_there(home):
    given = [sys.executable, "-c", KILLED, Path(__file__).parent, home]
    assert subprocess.run(given, env=os.environ | {"DAGSTER_HOME": str(home)}).returncode == -signal.SIGKILL
    with dg.DagsterInstance.from_config(str(home)) as theirs:
        [found] = theirs.get_runs()
        assert found.status == dg.DagsterRunStatus.SUCCESS
        assert told(theirs, found.run_id)[-1] == "PIPELINE_SUCCESS"


def test_the_settings_say_where_the_storage_is(home):
    elsewhere = home.parent / "elsewhere"
    with (home / SETTINGS).open("a") as settings:
        settings.write(f"\nstorage: {{sqlite: {{base_dir: {elsewhere}}}}}\n")
    with dagster_at(home) as instance:
        run(instance)
    assert (elsewhere / "history" / "runs.db").exists()
    assert not (home / "history").exists()
