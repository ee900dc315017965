"""What several test files share: a platform in a temporary folder, and the place of real observations."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import settings

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

_LONG = {
    "test_dev.py", "test_earlier_states.py", "test_timeseries.py", "test_cli.py", "test_bus_together.py",
    "test_client_rabbitmq.py", "test_deployments.py", "test_influxdb.py", "test_service.py", "test_bus_storm.py",
    "test_door_fleet.py", "test_door_peers.py", "test_door_reports.py", "test_plug_in.py",
}  # fmt: skip
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
    """Files that take long come first: side by side, one of them at the end would leave the other workers idle."""
    items.sort(key=lambda item: item.path.name not in _LONG)


def pytest_sessionfinish(session, exitstatus):
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """End without the exit handlers of native libraries: those that bundle the same C and C++ libraries (psycopg2,
    eccodes, odc, netCDF, ...) crash each other there when one process has loaded them all, after every test passed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash.get(_STATUS, 1))
