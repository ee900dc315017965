"""Every route and download of the service of a dataset with rules of privacy: what is not to be shown never appears."""

from __future__ import annotations

import io
import re
import struct
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin

import httpx
import polars as pl
import pytest
from crowd import crowd
from serving import Served

from ionbeam_client.windows import feed
from ionbeam_dagster.domain.privacy import pseudonyms
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.edr.served import kept_in
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

DAY = datetime(2026, 6, 21, tzinfo=UTC)
LATER = DAY + timedelta(days=3)
LAT, LON, NAME, OWNER = 52.123457, 5.654321, "Jansen-Dorp.7", "Ada Jansen"
CROWD = crowd(
    "[pygeoapi]",
    "{station_id: s, author: owner, platform_id: s}",
    licence="https://creativecommons.org/licenses/by/4.0/",
    privacy="{position: 1000, station_id: pseudonym, drop: [author]}",
)
FORMS = ("CoverageJSON", "GeoJSON", "CSV", "html")


def hidden(answer: httpx.Response) -> list[str]:
    """What of the station an answer says that it must not."""
    body = answer.content
    texts = [NAME, OWNER, f"{LAT:.4f}", f"{LON:.4f}", str(LAT), str(LON)]
    numbers = [struct.pack(order, value) for value in (LAT, LON) for order in ("<d", ">d", "<f", ">f")]
    found = [text for text in texts if text.encode() in body or text in str(answer.headers)]
    found += [number.hex() for number in numbers if number in body]
    if body[:4] == b"PAR1":
        table = pl.read_parquet(io.BytesIO(body))
        found += [text for text in texts if any(text in str(value) for row in table.iter_rows() for value in row)]
    return found


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    from ionbeam_dagster.config import IonbeamConfig
    from ionbeam_dagster.pipeline.recovery import open_platform

    folder = tmp_path_factory.mktemp("not_shown")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        lines = ["t,s,lat,lon,warm,owner"]
        for minute in range(0, 120, 10):
            moment = f"{DAY + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
            lines += [f"{moment},{NAME},{LAT},{LON},20.0,{OWNER}", f"{moment},far,53.0,6.0,21.0,{OWNER}"]
        (folder / "in").mkdir()
        (folder / "in" / "all.csv").write_text("\n".join(lines) + "\n")
        (folder / "config.yaml").write_text(f"sources:\n{CROWD}")
        platform = open_platform(IonbeamConfig.load(folder / "config.yaml"))
        dataset = platform.dataset("crowd")
        for hour in range(2):
            window = Window(DAY + timedelta(hours=hour), DAY + timedelta(hours=hour + 1))
            collect(platform, platform.source("crowd"), window, LATER)
            ingest(platform, platform.source("crowd"), window)
            build(platform, dataset, window, LATER)
            export(platform, dataset, platform.config.window_exporters["pygeoapi"], window)
        serving = Served(folder / "config.yaml")
        serving.looked_every = 0.2
        with serving:
            yield serving, platform


def links_of(answer: httpx.Response, url: str) -> set[str]:
    """The addresses of the service that an answer names, also as templates of them."""
    text = answer.text if answer.headers.get("content-type", "").split(";")[0] != "image/png" else ""
    named = re.findall(r"""(?:href|src)["']?\s*[:=]\s*["']([^"'{}<>\s]+)["']""", text.replace("\\/", "/"))
    named += [one.split(";")[0].strip(" <>") for one in answer.headers.get("link", "").split(",")]
    whole = {urljoin(str(answer.url), one.replace("&amp;", "&")).split("#")[0] for one in named if one}
    return {one for one in whole if one.startswith(url)}


def test_no_link_that_can_be_followed_leads_to_it(service):
    serving, _ = service
    seen: set[str] = set()
    todo = {serving.url, f"{serving.url}/openapi?f=json", f"{serving.url}/map"}
    with httpx.Client(timeout=60, follow_redirects=True) as client:
        while todo and len(seen) < 250:
            url = todo.pop()
            seen.add(url)
            answer = client.get(url)
            assert answer.status_code < 500, url
            assert hidden(answer) == [], url
            todo |= links_of(answer, serving.url) - seen
    paths = {url.removeprefix(serving.url).split("?")[0] for url in seen}
    assert {"/collections/crowd", "/collections/crowd/items", "/collections/crowd/locations"} <= paths, sorted(paths)


def test_no_query_in_any_form_finds_it_at_its_place_or_by_its_name(service):
    serving, platform = service
    pseudonym = pseudonyms(pl.Series([NAME]), platform.privacy.key(), "crowd")[0]
    base, all_day = f"{serving.url}/collections/crowd", f"{DAY:%Y-%m-%d}"
    around = "POLYGON((5 52,6 52,6 52.3,5 52.3,5 52))"
    queries = {
        "position": {"coords": "POINT(5.65 52.12)"},
        "radius": {"coords": "POINT(5.65 52.12)", "within": "30", "within-units": "km"},
        "area": {"coords": around},
        "cube": {"bbox": "5,52,6,52.3"},
        "trajectory": {"coords": "LINESTRING(5.6 52.1,5.7 52.15)"},
        "locations": {},
        f"locations/{pseudonym}": {},
        "items": {"limit": "50"},
    }
    with httpx.Client(timeout=60) as client:
        found = 0
        for path, query in queries.items():
            for form in FORMS:
                answer = client.get(f"{base}/{path}", params={**query, "datetime": all_day, "f": form})
                assert hidden(answer) == [], (path, form)
                if answer.status_code == 200:
                    assert '<https://creativecommons.org/licenses/by/4.0/>; rel="license"' in answer.headers["Link"]
                found += pseudonym in answer.text
        assert found > 8
        assert pseudonym in client.get(f"{base}/locations", params={"f": "GeoJSON"}).text
        for path in (f"locations/{NAME}", f"items?station_id={NAME}"):
            assert pseudonym not in client.get(f"{base}/{path}").text, path
        # It is found where it is shown, and not where it is.
        shown = pl.read_parquet(next(iter(platform_files(platform)))).filter(pl.col("station_id") == pseudonym)
        lat, lon = shown["lat"][0], shown["lon"][0]
        for place, is_found in (((LAT, LON), False), ((lat, lon), True)):
            box = ",".join(f"{one:.6f}" for one in (place[1] - 1e-4, place[0] - 1e-4, place[1] + 1e-4, place[0] + 1e-4))
            for path in ("cube", "items"):
                told = client.get(f"{base}/{path}", params={"bbox": box, "datetime": all_day, "f": "CSV"}).text
                assert (pseudonym in told) is is_found, (path, place)


def platform_files(platform):
    return [path for path in platform.files.under("data-projections/pygeoapi") if path.endswith(".parquet")]


def test_no_file_that_clients_download_has_it(service):
    serving, platform = service
    there = feed.versions_in(*kept_in(platform.config), "crowd")
    assert len(there) == 2
    for path in platform_files(platform):
        with open(path, "rb") as file:  # noqa: PTH123
            assert hidden(httpx.Response(200, content=file.read())) == []
    with httpx.Client(timeout=60) as client:
        told = client.post(f"{serving.url}/collections/crowd/changes", content=b"")
        assert hidden(told) == []
