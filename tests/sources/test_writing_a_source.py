"""The example of docs/writing-a-source.md as a third party's package: installed beside the platform, and used by it."""

import sys
from datetime import UTC, datetime, timedelta

import pytest
from pages import blocks, entry_points, install

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources import installed_sources
from ionbeam_dagster.testing.service import Reply, Service, status

START = datetime(2026, 6, 21, 7, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(minutes=30))


class Town(Service):
    def answer(self, request):
        assert request.headers["authorization"].startswith("Basic ")
        if request.path == "/stations":
            return Reply.of_json([{"id": i, "lat": 60.0 + i, "lon": 10.0} for i in range(3)])
        if request.path == "/data/2":
            return Reply.of_json([])
        return Reply.of_json([{"t": "2026-06-21T07:00:00Z", "temp": 18.2, "rh": 61}])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The page's Python and TOML, installed by pip into a folder of their own."""
    page = blocks("writing-a-source.md")
    points = entry_points(page["toml"][0])
    monkeypatch.syspath_prepend(install(tmp_path, "weather_of_mine", {"weather_of_mine": page["python"][0]}, points))
    yield page["yaml"][0]
    sys.modules.pop("weather_of_mine", None)


def test_a_package_of_a_third_party_is_found_configured_and_collected(package, platform_of, monkeypatch):
    assert "weather_of_mine" in installed_sources()
    monkeypatch.setenv("WEATHER_PASSWORD", "pa55word")
    with Town() as town:
        block = package.removeprefix("sources:\n").replace("https://weather.example", town.url)
        platform = platform_of(block)
        assert platform.config.sources["weather_of_mine"].window_size == timedelta(minutes=30)
        now = datetime(2026, 6, 21, 12, tzinfo=UTC)
        assert collect(platform, platform.source("weather_of_mine"), WINDOW, now).rows == 2
        ingest(platform, platform.source("weather_of_mine"), WINDOW)
        built = build(
            platform, platform.dataset("weather_of_mine"), Window(START, START + timedelta(hours=1)), now, insist=True
        )
        assert built.revision.facts.stations == 2
        town.break_("/data/1", status(404), times=9)
        with pytest.raises(SourceError, match=r"/data/1.*404"):
            collect(platform, platform.source("weather_of_mine"), WINDOW, now)
