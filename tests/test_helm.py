"""The Helm chart, as far as it can be tried without a cluster: helm renders it, and Kubernetes would take all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from backends import BUILT
from test_deployments import COMPOSE, is_program

from ionbeam_dagster.config import IonbeamConfig

CHART = Path(__file__).parents[1] / "deployments" / "helm"
HELM = shutil.which("helm", path=os.pathsep.join([str(BUILT), os.environ["PATH"]]))
pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not on this machine (make servers)")
KUBERNETES = "1.31.0"
PLAIN = {"secret": {"existing": "ionbeam"}}
FULL = {
    "secret": {"values": {"DAGSTER_POSTGRES_URL": "postgresql+psycopg2://a:b@postgres:5432/dagster"}},
    "image": {"repository": "registry.example.org/ionbeam", "pullSecrets": [{"name": "registry"}]},
    "storage": {"size": "2Ti", "storageClass": "shared"},
    "worker": {"replicas": 5},
    "door": {"enabled": True},
    "mqtt": {"sources": ["netatmo_mqtt"]},
    "sources": {"ioncannon": None, "town": {"kind": "external", "start": "2026-06-21"}, "scheduler": None},
}
ALONE = {"secret": {"existing": "s"}, "storage": {"existingClaim": "data"}} | {
    name: {"replicas": 1} for name in ("worker", "daemon", "edr")
}
SETS = pytest.mark.parametrize("values", [PLAIN, FULL, ALONE], ids=["plain", "full", "alone"])


def helm(folder: Path, values: dict, *command: str) -> subprocess.CompletedProcess[str]:
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    home = {name: str(folder) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    return subprocess.run(
        [HELM, *command, "--values", folder / "values.yaml"], env=os.environ | home, capture_output=True, text=True
    )


def rendered(folder: Path, values: dict) -> dict[tuple[str, str], dict]:
    done = helm(folder, values, "template", "weather", str(CHART), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    found = {(one["kind"], one["metadata"]["name"].removeprefix("weather-")): one for one in made}
    assert len(found) == len(made)
    return found


@SETS
def test_it_is_what_kubernetes_takes(tmp_path, values):
    linted = helm(tmp_path, values, "lint", "--strict", str(CHART))
    assert linted.returncode == 0, linted.stdout + linted.stderr
    for one in rendered(tmp_path, values).values():
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


@SETS
def test_what_it_names_is_there(tmp_path, values, monkeypatch, capsys):
    found = rendered(tmp_path, values)
    configuration = found["ConfigMap", "configuration"]["data"]
    for name in ("BROKER_URL", "REDIS_URL", "INFLUXDB_TOKEN"):
        monkeypatch.setenv(name, "redis://127.0.0.1")
    (tmp_path / "config.yaml").write_text(configuration["config.yaml"])
    loaded = IonbeamConfig.load(tmp_path / "config.yaml")
    assert set(loaded.sources) == ({"town"} if values is FULL else {"ioncannon"})
    settings = (COMPOSE / "dagster.yaml").read_text().replace("/dagster/logs", "/data/dagster-logs")
    assert configuration["dagster.yaml"].strip() == settings.strip()
    [location] = yaml.safe_load(configuration["workspace.yaml"])["load_from"]
    code = found["Service", "code"]
    assert location["grpc_server"]["host"] == code["metadata"]["name"]
    assert location["grpc_server"]["port"] == code["spec"]["ports"][0]["port"]
    claim = values.get("storage", {}).get("existingClaim", "weather-data")
    deployments = {name: one for (kind, name), one in found.items() if kind == "Deployment"}
    for name, one in deployments.items():
        pod = one["spec"]["template"]
        [container] = pod["spec"]["containers"]
        for command in (container["command"], container["livenessProbe"].get("exec", {}).get("command")):
            if command and command[0] not in ("python", "true"):
                is_program(command, monkeypatch, capsys)
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"][1:]]
        assert claims == [claim]
        assert container["envFrom"][0]["secretRef"]["name"] == (
            "weather-secret" if values is FULL else values["secret"]["existing"]
        )
        selector = one["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod["metadata"]["labels"].items()
        if ("Service", name) in found:
            service = found["Service", name]["spec"]
            assert service["selector"] == selector
            assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]
    several = {name for name, one in deployments.items() if one["spec"]["replicas"] > 1}
    assert several == {name for kind, name in found if kind == "PodDisruptionBudget"}
    assert several == (set() if values is ALONE else {"worker", "daemon", "edr"})


def test_without_a_secret_it_says_what_is_needed(tmp_path):
    done = helm(tmp_path, {}, "template", "weather", str(CHART), "--kube-version", KUBERNETES)
    assert done.returncode != 0 and "DAGSTER_POSTGRES_URL" in done.stderr
