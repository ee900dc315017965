"""The client by itself: what it imports, its names for other programs, and where no password may go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from archfx_oracle import VENDOR, vendors_python

ROOT = Path(__file__).parents[2]
ALIAS = ROOT / "ionbeam_client" / "aliases" / "archfx_cloud"
MODULES = [
    "api.connection", "api.exceptions", "reports.exceptions", "reports.flexible_dictionary", "reports.report",
    "utils.gid", "utils.main", "utils.slugs",
]  # fmt: skip


def run(program: str, *path: Path, python: object = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([python, "-c", program], env=environment, capture_output=True, text=True, timeout=60)


def test_nothing_of_the_other_clients_is_imported():
    imports = "\n".join(f"import ionbeam_client.archfx.{name}" for name in MODULES)
    done = run(f"{imports}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"requests", "msgpack", "dateutil", "ionbeam_client"} <= loaded
    assert not loaded & {"pyarrow", "aio_pika", "pandas", "numpy", "pydantic", "polars"}


def test_what_is_missing_is_named_and_ids_need_nothing():
    without = "import sys\nfor name in ('dateutil', 'msgpack', 'requests'):\n    sys.modules[name] = None\n"
    done = run(f"{without}import ionbeam_client.archfx.reports.report")
    assert "ionbeam_client.archfx needs dateutil, msgpack: pip install 'ionbeam-client[archfx]'" in done.stderr
    assert "ionbeam_client.archfx needs requests" in run(f"{without}import ionbeam_client.archfx.api.connection").stderr
    assert run(f"{without}import ionbeam_client.archfx.utils.slugs").returncode == 0


def test_the_alias_has_every_module_and_no_class_twice():
    found = {path.relative_to(ALIAS / "archfx_cloud") for path in ALIAS.rglob("*.py") if path.stem != "__init__"}
    assert found == {Path(*name.split(".")).with_suffix(".py") for name in MODULES}
    same = [f"import archfx_cloud.{name} as a, ionbeam_client.archfx.{name} as b\nassert a is b" for name in MODULES]
    done = run("\n".join(same), ALIAS)
    assert done.returncode == 0, done.stderr


def test_the_alias_refuses_to_stand_beside_the_vendors_package(tmp_path):
    described = tmp_path / "archfx_cloud-0.17.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: archfx-cloud\nVersion: 0.17.0\n")
    done = run("import archfx_cloud.api.connection", ALIAS, tmp_path)
    assert "ImportError: archfx-cloud 0.17.0, the vendor's package, is installed" in done.stderr
    assert "pip uninstall archfx-cloud" in done.stderr


def test_the_alias_refuses_to_stand_beside_the_real_package():
    done = run("import archfx_cloud.api.connection", ALIAS, python=vendors_python())
    assert "ImportError: archfx-cloud 0.17.0" in done.stderr


@pytest.mark.soak
def test_the_alias_installed(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    source = shutil.copytree(ROOT / "ionbeam_client", tmp_path / "source")
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, f"{source}[archfx]", source / "aliases" / "archfx_cloud"], check=True)
    done = run("from archfx_cloud.utils.gid import ArchFxDeviceSlug as found\nprint(found.__module__)", python=python)
    assert done.stdout == "ionbeam_client.archfx.utils.slugs\n"
    try:
        subprocess.run([python, "-m", "pip", "install", "--quiet", VENDOR], check=True)
    except subprocess.SubprocessError:
        pytest.skip(f"{VENDOR} cannot be had here")
    alias = source / "aliases" / "archfx_cloud"
    subprocess.run([*install, "--force-reinstall", "--no-deps", alias], check=True)
    assert "ImportError: archfx-cloud 0.17.0" in run("import archfx_cloud.api.connection", python=python).stderr


def test_a_domain_that_is_easily_mistyped_is_nowhere():
    """A password that is sent there goes to a stranger."""
    mistyped = "ar" + "hfx"
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True
    )
    if listed.returncode:
        pytest.skip("no list of the repository's files: it is no git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert "README.md" in names and "ionbeam_client/src/ionbeam_client/archfx/api/connection.py" in names
    for name in names:
        assert mistyped not in name.lower()
        if (ROOT / name).is_file():
            assert mistyped.encode() not in (ROOT / name).read_bytes().lower(), name
