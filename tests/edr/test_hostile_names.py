"""Stations whose names are more than names, from a file through everything to the web, and out of everything again."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import polars as pl
import pytest
from crowd import crowd
from hostile import HOSTILE
from serving import Served

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.forgetting import forget, who_is
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform

DAY = datetime(2026, 6, 21, tzinfo=UTC)
WINDOW = Window(DAY, DAY + timedelta(hours=1))
NAMES = [name for name in HOSTILE if name != "\ud800" and name.strip(" \x00")]
CROWD = crowd("[pygeoapi, odb, bufr]", "{station_id: s, station_name: s}")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        (folder / "in").mkdir()
        places = [52 + number / 100 for number in range(len(NAMES))]
        pl.DataFrame({"t": DAY, "s": NAMES, "lat": places, "lon": 5.0, "warm": 20.0}).write_parquet("in/all.parquet")
        (folder / "config.yaml").write_text(f"sources:\n{CROWD}")
        platform = open_platform(IonbeamConfig.load(folder / "config.yaml"))
        collect(platform, platform.source("crowd"), WINDOW, DAY + timedelta(days=3))
        assert ingest(platform, platform.source("crowd"), WINDOW).rows == len(NAMES)
        build(platform, platform.dataset("crowd"), WINDOW, DAY + timedelta(days=3))
        for exporter in platform.config.window_exporters.values():
            export(platform, platform.dataset("crowd"), exporter, WINDOW)
        yield platform, folder


@pytest.fixture(scope="module")
def served(hostile):
    with Served(hostile[1] / "config.yaml") as serving:
        yield serving


def stations(platform) -> list[str]:
    return sorted(pl.read_parquet(platform.export_path("crowd", "pygeoapi", WINDOW))["station_id"])


def test_each_is_a_text_in_every_form_of_the_web(hostile, served):
    platform, _ = hostile
    known = stations(platform)
    assert len(known) == len(NAMES)
    base = f"{served.url}/collections/crowd"
    with httpx.Client(timeout=60) as client:
        pages = [f"{base}/items", f"{base}/locations", f"{base}/cube?bbox=4,51,6,54", f"{served.url}/map", base]
        pages += [f"{base}/locations/{quote(name, safe='')}" for name in known]
        for page in pages:
            for form in ("html", "GeoJSON", "CSV", "CoverageJSON"):
                answer = client.get(page, params={**httpx.URL(page).params, "f": form})
                assert answer.status_code < 500, (page, form)
                assert all(value.isprintable() for value in answer.headers.values()), (page, form)
                if "html" in answer.headers["content-type"]:
                    assert "<img src=https://evil" not in answer.text and "<script>alert(1)" not in answer.text, page
                    assert 'href="https://evil' not in answer.text and 'src="https://evil' not in answer.text, page
                if "csv" in answer.headers["content-type"] and answer.status_code == 200:
                    cells = [cell for row in csv.reader(io.StringIO(answer.text, newline="")) for cell in row]
                    assert not any(cell.startswith(("=", "@")) for cell in cells), page
        told = client.get(f"{base}/items", params={"f": "GeoJSON", "limit": 100}).json()
        assert sorted(one["properties"]["station_id"] for one in told["features"]) == known


def test_each_can_be_forgotten_and_takes_no_other_with_it(hostile):
    platform, _ = hostile
    known = stations(platform)
    for name in known[::4]:
        forget(platform, who_is(platform, "crowd", name))
        known.remove(name)
        assert stations(platform) == known
