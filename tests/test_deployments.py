"""The compose files, as far as they can be tried without a container engine: what they name is there, and fits."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

from ionbeam_dagster.config import CONFIG_VARIABLE, IonbeamConfig
from ionbeam_dagster.pipeline.recovery import open_platform

ROOT = Path(__file__).parents[1]
LOCAL, COMPOSE = ROOT / "deployments" / "local", ROOT / "deployments" / "compose"


def environment() -> dict[str, str]:
    lines = (COMPOSE / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def compose(folder: Path) -> dict:
    """The file as Docker reads it: variables filled in, anchors resolved, every volume declared."""
    text = (folder / "docker-compose.yml").read_text()
    filled = re.sub(r"\$\{(\w+):\?\}", lambda found: environment()[found[1]], text)
    assert "${" not in filled, "a variable that may be missing in silence"
    loaded = yaml.safe_load(filled)
    PyCompose.from_yaml(yaml.safe_dump(loaded)).validate()  # knows no merged anchors
    return loaded


@pytest.mark.parametrize("folder", [LOCAL, COMPOSE], ids=["local", "compose"])
def test_what_a_compose_file_names_is_there(folder):
    loaded = compose(folder)
    used = set()
    for name, service in loaded["services"].items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                assert (folder / source).is_file(), f"{name}: {source} is not there"
            else:
                assert source in loaded["volumes"] and target.startswith("/"), f"{name}: {volume}"
                used.add(source)
        assert set(service.get("depends_on", {})) <= set(loaded["services"])
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or loaded["services"][needed].get("healthcheck"), needed
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to the network"
    assert used == set(loaded["volumes"])


def test_every_variable_is_used_and_given_and_no_secret_is_written_down():
    text = (COMPOSE / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(environment())
    for name, value in environment().items():
        assert ("PASSWORD" not in name and "TOKEN" not in name) or value.startswith("change-me"), name
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def is_program(command: list[str], monkeypatch, capsys) -> None:
    """A command is of a program that there is, which knows its options."""
    words = command[: next((place for place, word in enumerate(command) if word.startswith("-")), None)]
    [program] = entry_points(group="console_scripts", name=command[0])
    monkeypatch.setattr(sys, "argv", [*words, "--help"])
    with pytest.raises(SystemExit) as ended:
        program.load()()
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and all(word in shown for word in command if word.startswith("--")), command


def test_the_platforms_services_run_programs_that_there_are(monkeypatch, capsys):
    loaded = compose(COMPOSE)
    ours = {name: service for name, service in loaded["services"].items() if service["image"] == "ionbeam"}
    assert set(ours) == {"code", "webserver", "daemon", "worker", "edr"}
    commands = [service["command"] for service in ours.values()]
    commands += [service["healthcheck"]["test"][1:] for service in ours.values() if "healthcheck" in service]
    for command in commands:
        if command[0] == "python":
            compile(command[2], "healthcheck", "exec")
            continue
        is_program(command, monkeypatch, capsys)
    [location] = yaml.safe_load((COMPOSE / "workspace.yaml").read_text())["load_from"]
    code = location["grpc_server"]
    assert code["host"] in ours and str(code["port"]) in ours[code["host"]]["command"]
    proxied = re.findall(r"reverse_proxy (\w+):(\d+)", (COMPOSE / "Caddyfile").read_text())
    assert {name for name, _ in proxied} == {"edr", "webserver"}
    assert all(port in ours[name]["command"] for name, port in proxied)


def test_the_image_is_made_of_what_is_there():
    ignored = (ROOT / ".dockerignore").read_text()
    for line in re.findall(r"^COPY (.*) \S+$", (COMPOSE / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists() and f"!{name}" in ignored, name
    extras = re.search(r"'\.\[([\w,]+)\]'", (COMPOSE / "Dockerfile").read_text())[1].split(",")
    declared = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", declared, re.MULTILINE) for extra in extras)


def test_the_configurations_fit_their_compose_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local = IonbeamConfig.load(LOCAL / "config.example.yaml").sections
    made = compose(LOCAL)["services"]["influxdb2"]["environment"]
    assert local.influxdb_common.influxdb_org == made["DOCKER_INFLUXDB_INIT_ORG"]
    assert local.influxdb_common.influxdb_bucket == made["DOCKER_INFLUXDB_INIT_BUCKET"]
    assert local.influxdb_common.influxdb_token.get_secret_value() == made["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]
    ports = {port.split(":")[1] for s in compose(LOCAL)["services"].values() for port in s.get("ports", [])}
    urls = (local.broker.url, local.redis.redis_url, local.influxdb_common.influxdb_url, local.s3.endpoint)
    gateway = compose(LOCAL)["services"]["s3"]["environment"]
    assert gateway["ROOT_ACCESS_KEY"] == local.s3.access_key.get_secret_value()
    assert gateway["ROOT_SECRET_KEY"] == local.s3.secret_key.get_secret_value()
    assert {re.search(r"localhost:(\d+)", url)[1] for url in urls} <= ports

    loaded = compose(COMPOSE)
    ours = loaded["services"]["code"]
    for name, value in ours["environment"].items():
        monkeypatch.setenv(name, value)
    text = (COMPOSE / "config.yaml").read_text()
    mounted = [volume.split(":")[1] for volume in ours["volumes"]]
    assert all(any(path.startswith(f"{place}/") for place in mounted) for path in re.findall(r"_path: (\S+)", text))
    assert ours["environment"][CONFIG_VARIABLE] in mounted
    (tmp_path / "config.yaml").write_text(text.replace("/data/", f"{tmp_path}/data/"))
    config = IonbeamConfig.load(tmp_path / "config.yaml")
    hosts = re.findall(r"(?://|@)(\w+):\d+", " ".join([config.sections.broker.url, config.sections.redis.redis_url]))
    hosts += re.findall(r"//(\w+):", config.sections.influxdb_common.influxdb_url)
    assert set(hosts) >= {"rabbitmq", "redis", "influxdb2"}
    assert {"rabbitmq", "redis", "influxdb2"} <= set(loaded["services"])
    assert open_platform(config).config.datasets["ioncannon"].policy.revise_for is not None


KEEP = """
import sys
import dagster as dg

@dg.asset
def kept() -> None: ...

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    assert dg.materialize([kept], instance=instance).success
"""
FIND = """
import sys
import dagster as dg

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    assert instance.get_runs_count() == 1
    assert instance.get_latest_materialization_event(dg.AssetKey("kept")) is not None
"""

PRUNE = """
import sys
from datetime import UTC, datetime, timedelta
import dagster as dg
from ionbeam_dagster.config.sections import History
from ionbeam_dagster.orchestration.history import prune

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    assert prune(instance, History(), datetime.now(UTC) + timedelta(days=31)).runs == 1
    assert instance.get_runs_count() == 0
    event = instance.get_latest_materialization_event(dg.AssetKey("kept"))
    assert [one.dagster_event.event_type_value for one in instance.all_logs(event.run_id)] == ["ASSET_MATERIALIZATION"]
"""

POOLED = """
import sys
import dagster as dg
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.orchestration.dead_runs import pool_of, set_pools
from ionbeam_dagster.pipeline.recovery import open_platform
from pathlib import Path

@dg.asset(pool=pool_of("ioncannon"))
def asked() -> None: ...

home, config = map(Path, sys.argv[1:])
platform = open_platform(IonbeamConfig.load(config))
settings = (home / "dagster.yaml").read_text()
assert "default_limit: 1" in settings
for by_default, sets in ((1, False), (2, False), (2, True), (3, False)):
    (home / "dagster.yaml").write_text(settings.replace("default_limit: 1", f"default_limit: {by_default}"))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        if sets:
            set_pools(platform, instance)
        done = dg.materialize([asked], instance=instance, raise_on_error=False)
        [limit] = instance.event_log_storage.get_pool_limits()
        print(done.success, limit.limit)
"""


def home_on(database: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """The DAGSTER_HOME of the compose file with this database, and the environment of its processes."""
    home = folder / "dagster"
    home.mkdir()
    settings = (COMPOSE / "dagster.yaml").read_text().replace("/dagster/logs", str(home / "logs"))
    (home / "dagster.yaml").write_text(settings)
    address = compose(COMPOSE)["services"]["code"]["environment"]["DAGSTER_POSTGRES_URL"]
    there = address.replace("postgres:5432/dagster", database)
    assert there != address
    return home, os.environ | {"DAGSTER_POSTGRES_URL": there}


def test_a_default_limit_of_pools_that_was_changed_fails_no_run_on_postgresql(tmp_path, postgresql):
    config = tmp_path / "config.yaml"
    config.write_text("sources: {ioncannon: {start: 2026-06-21}}\n")
    home, given = home_on(postgresql.database("pools"), tmp_path)
    command = [sys.executable, "-c", POOLED, home, config]
    done = subprocess.run(command, cwd=tmp_path, env=given, check=True, capture_output=True, text=True)
    first, changed, *after = done.stdout.splitlines()
    assert first == "True 1"
    assert changed.startswith("False"), "Dagster fails it, which is why the platform sets the limit"
    assert after == ["True 2", "True 2"]


def test_dagster_keeps_its_runs_in_postgresql(tmp_path, postgresql):
    home, given = home_on(postgresql.database("runs"), tmp_path)
    # In processes of their own: psycopg2's bundled libraries crash the exit of one that has loaded much else.
    for program in (KEEP, FIND, PRUNE):
        subprocess.run([sys.executable, "-c", program, home], env=given, check=True, stderr=subprocess.DEVNULL)
