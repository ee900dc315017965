"""The example of docs/writing-a-source.md as a third party's package: installed beside the platform, and used by it."""

import re
import subprocess
import sys
import tomllib
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loopback import Reply, Service, status

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.sources import installed_sources

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-source.md"
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
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.S))
    wheel = tmp_path / "weather_of_mine-1.0-py3-none-any.whl"
    about = "weather_of_mine-1.0.dist-info"
    [entry_points] = tomllib.loads(blocks["toml"])["project"]["entry-points"].values()
    listed = "\n".join(f"{name} = {place}" for name, place in entry_points.items())
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("weather_of_mine/__init__.py", blocks["python"])
        packed.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: weather-of-mine\nVersion: 1.0\n")
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/entry_points.txt", f"[ionbeam.sources]\n{listed}\n")
        packed.writestr(f"{about}/RECORD", "")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path / "site"]
    subprocess.run([*command, wheel], check=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield blocks["yaml"]
    sys.modules.pop("weather_of_mine", None)


def test_a_package_of_a_third_party_is_found_configured_and_collected(package, platform_of, monkeypatch):
    assert "weather_of_mine" in installed_sources()
    monkeypatch.setenv("WEATHER_PASSWORD", "pa55word")
    with Town() as town:
        block = package.removeprefix("sources:\n").replace("https://weather.example", town.url)
        platform = platform_of(block)
        assert platform.config.sources["weather_of_mine"].window_size == timedelta(minutes=30)
        now = datetime(2026, 6, 21, 12, tzinfo=UTC)
        assert collect(platform, "weather_of_mine", WINDOW, now).rows == 2
        ingest(platform, "weather_of_mine", WINDOW)
        built = build(platform, "weather_of_mine", Window(START, START + timedelta(hours=1)), now, insist=True)
        assert built.revision.facts.stations == 2
        town.break_("/data/1", status(404), times=9)
        with pytest.raises(SourceError, match=r"/data/1.*404"):
            collect(platform, "weather_of_mine", WINDOW, now)
