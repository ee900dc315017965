"""What several test files share: a platform in a temporary folder, the place of real observations, and servers.

Servers are made known here alone: a file that imports the fixture of one starts another of its own.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from backends import influxdb, mosquitto, mosquitto_with_tls, postgresql, redis, s3  # noqa: F401
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from hypothesis import settings
from servers import rabbitmq  # noqa: F401
from sqlalchemy import Engine, create_engine

with suppress(ImportError):
    import pyproj  # noqa: F401  (whoever loads eccodes or codc before it leaves it without its database)

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.recovery import open_platform

# Where the suite is started in the background, interrupts are ignored; Dagster then ignores SIGTERM, too, and so would
# every program that a test starts and means to stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where bytecode is not kept, each program that a test starts compiles the two thousand modules that it imports: half of
# its time. Containers often say so, and some installers keep none of the packages' either.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Dagster makes a new engine of SQLAlchemy for each event that it writes, which compiles each of its statements anew.
_engines: dict[str, Engine] = {}


def _engine(url: str, **options: Any) -> Engine:
    engine = _engines.get(url)
    if engine is None:
        if len(_engines) > 20:  # each run has a file of its own
            _engines.clear()
        engine = _engines[url] = create_engine(url, **options)
    return engine


for _storage in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
    _storage.create_engine = _engine

# Each of Dagster's stores, and each run's, reads its hundred migrations anew to note that none is needed; here once.
_read: dict[str, ScriptDirectory] = {}
_from_config = ScriptDirectory.from_config


def _migrations(config: Config) -> ScriptDirectory:
    place = config.get_main_option("script_location")
    if place not in _read:
        _read[place] = _from_config(config)
    return _read[place]


ScriptDirectory.from_config = _migrations

settings.register_profile("ionbeam", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("ionbeam")

# The longest first, by the seconds that they take: one of them at the end would leave the other workers idle.
_LONG = (
    "test_timeseries.py", "test_client_bad_days.py", "test_dev.py", "test_cli.py", "test_earlier_states.py",
    "test_client_rabbitmq.py", "test_doctor.py", "test_bus_together.py", "test_plug_in.py", "test_corrections.py",
    "test_door_peers.py", "test_reconciliation.py", "test_cycle_assets.py", "test_back_ends.py", "test_deadlines.py",
    "test_small_files.py", "test_kills.py", "test_real_day.py", "test_service.py", "test_influxdb.py",
    "test_ledger.py", "test_automation.py", "test_following_windows.py", "test_bad_input.py", "test_scenarios.py",
    "test_files_start_and_order.py", "test_netatmo_mqtt.py", "test_door_bad_days.py", "test_deployments.py",
    "test_bus_users.py", "test_specified_configuration.py", "test_bus.py", "test_watch.py", "test_refused_rows.py",
    "test_bus_sensors.py", "test_backfill.py", "test_same_bytes.py", "test_files_come_and_go.py",
    "test_late_and_again.py", "test_edr_real_day.py", "test_file_stores.py", "test_bus_bad_days.py",
    "test_recovery.py", "test_pipeline.py", "test_telling.py", "test_killed_telling.py", "test_wis2_cli.py",
)  # fmt: skip
_STATUS = pytest.StashKey[int]()
REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture
def platform_of(tmp_path, monkeypatch) -> Callable[[str], Platform]:
    """Make a platform from YAML source blocks; all its paths lie under the test's folder."""

    def make(sources: str, **sections: str) -> Platform:
        monkeypatch.chdir(tmp_path)
        place = tmp_path / "config.yaml"
        place.write_text("\n".join([f"sources:\n{sources}", *(f"{key}: {value}" for key, value in sections.items())]))
        return open_platform(IonbeamConfig.load(place))

    return make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate of localhost that nobody trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run([*command, *names, "-keyout", key, "-out", made], check=True, capture_output=True)
    except OSError:
        pytest.skip("openssl is not on this machine")
    return made, key


@pytest.fixture
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"real observations are not at {REAL_DATA}")
    return REAL_DATA.resolve()


@pytest.fixture
def no_pictures(monkeypatch):
    """Pages without pictures, which take most of the time where many windows are made; test_assets looks at them."""
    monkeypatch.setattr("ionbeam_dagster.orchestration.metadata.import_module", lambda name: None)


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(_LONG)))


def pytest_sessionfinish(session, exitstatus):
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """End without the exit handlers of native libraries: those that bundle the same C and C++ libraries (psycopg2,
    eccodes, odc, netCDF, ...) crash each other there when one process has loaded them all, after every test passed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash.get(_STATUS, 1))
