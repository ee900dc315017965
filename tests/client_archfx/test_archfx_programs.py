"""The specification's programs run, under the import names that they have, against a service on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import archfx_service
import msgpack
import pytest
from archfx_oracle import vendors_python
from archfx_programs import CORRECTIONS, PRELUDES, PROGRAMS
from archfx_service import EMAIL, PASSWORD, Service

ROOT = Path(__file__).parents[2]
ALIAS = ROOT / "ionbeam_client" / "aliases" / "archfx_cloud"
SPECIFICATION = ROOT / ".." / "shared" / "spec" / "archfx-cloud.md"


@pytest.fixture
def run(service, monkeypatch):
    """Runs a program, given by its first line; gives its variables."""
    monkeypatch.syspath_prepend(ALIAS)
    known = {"domain": service.domain, "args": Namespace(email=EMAIL), "password": PASSWORD}

    def run_it(first: int, **more: object) -> dict:
        [lines] = [lines for lines in PROGRAMS if lines[0] == first]
        variables = {**known, **more}
        exec(PRELUDES.get(lines, "") + PROGRAMS[lines], variables)
        return variables

    yield run_it
    for name in [name for name in sys.modules if name.split(".")[0] == "archfx_cloud"]:
        del sys.modules[name]


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="the specification is not here")
def test_the_programs_are_the_specifications_with_the_listed_corrections():
    text = SPECIFICATION.read_text().splitlines()
    used = set()
    for (first, last), program in PROGRAMS.items():
        assert text[first - 2] == "```python" or first in (129, 158, 169, 181), first
        lines = []
        for number, line in enumerate(text[first - 1 : last], first):
            for at, wrong, right, why in CORRECTIONS:
                if at in (None, number) and wrong in line:
                    line = line.replace(wrong, right)
                    used.add(why if at is None else at)
            lines.append(line.rstrip())
        assert "\n".join(lines) + "\n" == program, (first, last)
    assert len(used) == len(CORRECTIONS), "each correction corrects something"


def test_log_in_and_out(run, service):
    connection = run(88)["c"]
    assert [path for _, path, _, _ in service.asked] == ["/api/v1/auth/login/", "/api/v1/auth/logout/"]
    assert connection.token is None and not service.access


def test_a_token_instead_of_a_password(run, service):
    service.access.add("big-ugly-token")
    assert run(102)["c"].org.get()["count"] == 0
    assert service.asked[-1][2]["Authorization"] == "jwt big-ugly-token"


def test_the_token_of_a_log_in(run, service):
    assert run(112)["token"] in service.access


def test_the_generic_interface(run, service, monkeypatch):
    monkeypatch.setattr(archfx_service, "PASSWORD", "my.pass")
    done = run(129)
    slug = done["new"]["slug"]
    assert [(method, path) for method, path, _, _ in service.asked[1:]] == [
        ("GET", "/api/v1/org/"),
        ("POST", "/api/v1/org/"),
        ("PUT", f"/api/v1/org/{slug}/"),
        ("PATCH", f"/api/v1/org/{slug}/"),
        ("GET", f"/api/v1/org/{slug}/"),
        ("DELETE", f"/api/v1/org/{slug}/"),
    ]
    assert [body for _, _, _, body in service.asked[2:5]] == [
        b'{"name": "My new Org"}', b'{"about": "About Org"}', b'{"about": "About new Org"}'
    ]  # fmt: skip


def test_arguments_and_nested_actions(run, service):
    api = run(112)["c"]
    for kind in ("org", "site", "machine", "machine/devices"):
        service.things[kind] = {"a": {"slug": "a", "org": "a", "machine": "a"}}
    assert [site["slug"] for site in run(158, api=api)["org_sites"]["results"]] == ["a"]
    assert service.asked[-1][1] == "/api/v1/site/?org=a"
    assert run(169, api=api)["associated_devices"]["count"] == 1
    assert service.asked[-1][1] == "/api/v1/machine/a/devices/"


PAGE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "archfx-cloud.md").read_text(), re.DOTALL)


def test_the_programs_of_the_page_run(service, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("getpass.getpass", lambda: PASSWORD)
    service.things["machine"] = {name: {"slug": name} for name in ("d--1", "d--2", "d--3")}
    requests, reports = (program.replace("https://arch.archfx.io", service.domain) for program in PAGE)
    exec(requests, {})
    assert capsys.readouterr().out == "d--1 0\nd--2 0\nd--3 0\n" and not service.access
    [org] = service.things["org"].values()
    assert org["name"] == "My new Org" and org["about"] == "About"
    variables: dict = {}
    exec(reports, variables)
    assert variables["new"] == 3 and msgpack.unpackb((tmp_path / "report.mp").read_bytes())["seqid"] == 1003


def test_ids(run):
    assert str(run(181)["id"]) == "sl--0000-0005--0000-0000-0000-000a--0000-5501"


def on_the_wire(python: object, first: int, *path: Path) -> list[tuple]:
    """What a program asks of a new service: all but moments and the marks between the parts of a form."""
    [lines] = [lines for lines in PROGRAMS if lines[0] == first]
    prelude = "import sys\nfrom argparse import Namespace\n_, domain, email, password = sys.argv\n"
    program = f"{prelude}args = Namespace(email=email)\n{PROGRAMS[lines]}"
    with Service() as service:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONUTF8": "1"}
        command = [python, "-c", program, service.domain, EMAIL, archfx_service.PASSWORD]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [
            (
                method,
                re.sub("timestamp=[^&]*", "timestamp", address),
                headers.get("Authorization"),
                headers.get("Content-Type", "").partition(";")[0],
                re.sub(rb"--[0-9a-f]{32}|sent_timestamp.*?(?=\xa6events)", b"", body),
            )
            for method, address, headers, body in service.asked
        ]


@pytest.mark.parametrize(("first", "password"), [(88, PASSWORD), (112, PASSWORD), (129, "my.pass"), (282, PASSWORD)])
def test_the_vendors_package_asks_the_same(first, password, monkeypatch):
    monkeypatch.setattr(archfx_service, "PASSWORD", password)
    vendors = on_the_wire(vendors_python(), first)
    assert vendors == on_the_wire(sys.executable, first, ALIAS)
    assert vendors[0][1] == "/api/v1/auth/login/"


@pytest.fixture
def script(tmp_path, service):
    """Starts the script of `BaseMain` with a password on stdin, as a process of its own."""
    lines = (236, 265)
    (tmp_path / "script.py").write_text(PRELUDES[lines] + PROGRAMS[lines])

    def start(*arguments: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DOMAIN": service.domain, "PYTHONPATH": str(ALIAS), "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(
            [sys.executable, "script.py", *arguments],
            cwd=tmp_path, env=environment, input=f"{password}\n", capture_output=True, text=True, encoding="utf-8",
            timeout=60, start_new_session=True,
        )  # fmt: skip

    return start


def test_a_script(script, service, tmp_path):
    done = script("--user", EMAIL, "argument")
    assert done.returncode == 0 and done.stdout == "argument 0\n"
    said = [line.split("] ")[1].split(maxsplit=1) for line in done.stderr.splitlines()]
    assert said[0] == ["INFO", "-----------"]
    assert said[-2:] == [["INFO", f"Welcome {EMAIL}"], ["INFO", "Goodbye!"]]
    assert not service.access and PASSWORD not in done.stderr

    failed = script("--user", EMAIL, "argument", password="wrong")
    assert failed.stdout == "" and "Login failed: status 400" in failed.stderr and "wrong" not in failed.stderr


def test_a_script_with_tokens_in_a_file(script, service, tmp_path):
    token = service.new_token()
    (tmp_path / ".ini").write_text(
        f"[c-arch]\ntoken = {token}\n[c-acme]\njwt_access = {token}\njwt_refresh = r\n[c-none]\n"
    )
    for customer, word in (("arch", "token"), ("acme", "jwt")):
        done = script("--customer", customer, "argument")
        assert done.stdout == "argument 0\n" and f"as {EMAIL}" in done.stderr
        assert service.asked[0][2]["Authorization"] == f"{word} {token}"
        service.access.add(token)
        service.asked.clear()
    service.access.clear()
    done = script("--user", EMAIL, "argument")
    assert done.stdout == "argument 0\n" and "has expired" in done.stderr and token not in done.stderr
    assert script("--user", EMAIL, "--customer", "none", "argument").stdout == "argument 0\n"
    assert "--user" in script("argument").stderr


def test_a_customer_is_part_of_an_address_and_nothing_else(monkeypatch):
    from ionbeam_client.archfx.utils.main import BaseMain

    for arguments, domain in [
        ([], "https://arch.archfx.io"),
        (["--customer", "acme"], "https://acme.archfx.io"),
        (["--server", "dev"], "http://localhost"),
    ]:
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        assert BaseMain().get_domain() == domain
    for wrong in ("evil.invalid/", "a@b", "", "a.b", "-a"):
        monkeypatch.setattr(sys, "argv", ["script", f"--customer={wrong}"])
        with pytest.raises(SystemExit):
            BaseMain().get_domain()


def test_a_report_is_uploaded(run, service):
    done = run(282)
    assert done["resp"] == {"count": 2} and service.taken == {0x1234: {1000, 1001}}
    sent = msgpack.unpackb(done["report"].encode())
    assert (sent["seqid"], sent["lowest_id"], sent["highest_id"], sent["streamer_index"]) == (1003, 1000, 1001, 0xFF)
    assert [event["timestamp"] for event in sent["events"]] == [
        "2021-01-20T00:00:00.100000+00:00", "2021-01-20T00:00:00.200000+00:00"
    ]  # fmt: skip
    assert run(282)["resp"] == {"count": 0}
