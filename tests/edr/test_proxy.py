"""The service behind a reverse proxy under /edr/, as `deployments/` and docs/edr.md set it up."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from browser import picture
from PIL import Image
from servers import free_port
from serving import Serving, wait_for
from windows import PLACES, write_window

from ionbeam_dagster.edr.conformance import examine

ROOT = Path(__file__).parents[2]
CURVE = (185, 28, 28)


def caddy(folder: Path, port: int, service: int) -> list[str | Path]:
    """The configuration of deployments/compose, on other ports."""
    given = (ROOT / "deployments" / "compose" / "Caddyfile").read_text()
    assert ":80 {" in given and "edr:5000" in given
    ours = given.replace(":80 {", f"http://127.0.0.1:{port} {{").replace("edr:5000", f"127.0.0.1:{service}")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + ours)
    return ["run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]


def nginx(folder: Path, port: int, service: int) -> list[str | Path]:
    """The line of docs/edr.md in a server of its own."""
    [line] = re.findall(r"`(location /edr/ [^`]*)`", (ROOT / "docs" / "edr.md").read_text())
    assert "ionbeam:5000" in line
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder / 'pid'}; events {{}} http {{ access_log off; {places}"
        f"server {{ listen 127.0.0.1:{port}; {line.replace('ionbeam:5000', f'127.0.0.1:{service}')} }} }}"
    )
    return ["-e", folder / "errors", "-c", folder / "nginx.conf"]


@pytest.fixture(scope="module", params=[caddy, pytest.param(nginx, marks=pytest.mark.soak)], ids=["caddy", "nginx"])
def behind(request, tmp_path_factory):
    """The address under which a proxy serves ours."""
    name = request.param.__name__
    program = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if program is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    folder = tmp_path_factory.mktemp(name)
    port = free_port()
    serving = Serving(folder, ["net"], public=f"http://127.0.0.1:{port}/edr")
    for hour in range(2):
        write_window(serving.windows / "net", hour, flags=True)
    with serving, (folder / "proxy").open("wb") as log:
        command = [program, *request.param(folder, port, serving.port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for(serving.public, process, (folder / "proxy").read_text)
            yield serving.public
        finally:
            process.terminate()
            process.wait(20)


def test_every_link_leads_through_the_proxy(behind):
    with httpx.Client(timeout=30) as client:
        assert [result for result in examine(client, behind) if result.faults] == []
    seen, waiting = set(), [f"{behind}/?f=html", f"{behind}/?f=json", f"{behind}/collections?f=html",
                            f"{behind}/collections/net", f"{behind}/collections/net?f=html",
                            f"{behind}/collections/net/items?limit=5&f=html"]  # fmt: skip
    while waiting and len(seen) < 60:
        url = waiting.pop(0)
        if url in seen:
            continue
        seen.add(url)
        answer = httpx.get(url, follow_redirects=True)
        assert answer.status_code == 200 or "coords" in answer.text or "bbox" in answer.text, (url, answer.text)
        found = re.findall(r'(?:href|src)="?:?\s?"(https?://[^"]+|/[^"]*)"', answer.text)
        found = [link.replace("&amp;", "&") for link in found]
        assert not [link for link in found if link.startswith("/")], url  # it would leave the prefix
        own = [link for link in found if link.startswith(behind.rpartition("/edr")[0])]
        assert all(link.startswith(behind) for link in own), url
        waiting += own
    assert len(seen) > 20
    assert httpx.get(f"{behind}/openapi?f=json").json()["servers"][0]["url"] == behind


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br, gzip, zstd", "identity"])
def test_answers_are_kept_by_whom_they_were_given_to(behind, coding):
    url = f"{behind}/collections/net/items?limit=50"
    asked = {"Accept-Encoding": coding}
    answer = httpx.get(url, headers=asked)
    assert "max-age" in answer.headers["cache-control"] and "Accept-Encoding" in answer.headers["vary"]
    again = httpx.get(url, headers={**asked, "If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content


def test_the_map_works_under_the_prefix(behind, tmp_path):
    assert len(httpx.get(f"{behind}/map/stations").json()["stations"]) == len(PLACES)
    pixels = np.asarray(Image.open(picture(f"{behind}/map?station=s1", "390,844", tmp_path)).convert("RGB"))
    assert CURVE in {tuple(one) for one in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
