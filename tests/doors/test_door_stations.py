"""The registry of stations at the HTTP door: places of lines that say none, and devices that report."""

from datetime import UTC, datetime

import pytest
from door_samples import FLEET, GARDEN, HOUR, TEMPERATURE, TOKEN, bring_up_to_date, nanoseconds, opened, points, write
from typer.testing import CliRunner

from ionbeam_client.archfx.api.connection import Api
from ionbeam_client.archfx.api.exceptions import HttpClientError
from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from ionbeam_client.archfx.reports.report import ArchFXDataPoint
from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.pipeline.stations import up_to_date


def test_the_door_takes_the_registrys_place_and_told_entries_do_not_change_the_blocks(platform_of, tmp_path):
    platform = platform_of("  scheduler: {windows: [{source_name: garden, window_size: PT1H}]}\n" + GARDEN)
    (tmp_path / "told.csv").write_text(
        "source,station,latitude,longitude\ngarden,shed,52.2,5.3\ngarden,roof,1,2\nother,shed,3,4\n"
    )
    done = CliRunner().invoke(app, ["--config", "config.yaml", "stations", "import", str(tmp_path / "told.csv")])
    assert done.exit_code == 0 and "3 entries" in done.output and "stations of other are told of" in done.output
    then = window_of(datetime.now(UTC) - 3 * HOUR, HOUR)
    with opened(platform) as (door, url):
        lines = [f"weather,station={name} temperature=50 {nanoseconds(then.start)}" for name in ("roof", "shed")]
        assert write(url, "\n".join(lines)).status_code == 204
        door.flush.run()
    bring_up_to_date(platform)
    rows = points(platform, then).sort("station_id")
    assert rows.select("station_id", "lat", "altitude").rows() == [("roof", 52.1, "12"), ("shed", 52.2, None)]
    assert rows[TEMPERATURE].to_list() == pytest.approx([10.0, 10.0])


def upload(url, *devices, when, first=1):
    api = Api(url)
    api.set_token(TOKEN, token_type="token")
    for device in devices:
        report = ArchFXFlexibleDictionaryReport.FromReadings(
            device, [ArchFXDataPoint(when, 0x5001, float(device), reading_id=first)], streamer=0x100
        )
        assert report.upload(api) == 1


TOLD = "source,station,parent\ngarden,d--0007,ps--1\ngarden,8,0000-0002\ngarden,m--0000-0001-0000-0009,pa--0003\n"


def test_the_site_area_or_line_that_the_registry_tells_of_a_device_is_a_tag_of_its_readings(platform_of, tmp_path):
    platform = platform_of(FLEET.replace("{variable: variable}", "{parent: parent, device: device}"))
    (tmp_path / "told.csv").write_text(TOLD)
    assert CliRunner().invoke(app, ["--config", "config.yaml", "stations", "import", "told.csv"]).exit_code == 0
    then = window_of(datetime.now(UTC) - 3 * HOUR, HOUR)
    with opened(platform) as (door, url):
        upload(url, 7, 8, 0x1_0000_0009, 10, when=then.start)
        door.flush.run()
    bring_up_to_date(platform)
    rows = points(platform, then).sort("station_id")
    assert dict(rows.select("device", "parent").rows()) == {
        "d--0000-0000-0000-0007": "ps--0000-0001",
        "d--0000-0000-0000-0008": "pl--0000-0002",
        "d--0000-0001-0000-0009": "pa--0000-0003",
        "d--0000-0000-0000-000a": None,  # nobody said it
    }
    known = up_to_date(platform, ["garden"])["garden"].registry.one("d--0000-0000-0000-0007")
    assert known.facts["parent"] == known.told["parent"] == "ps--0000-0001"


@pytest.mark.parametrize("unmapped", ["parked", "refused"])
def test_what_only_a_parent_maps_is_taken_as_soon_as_the_registry_tells_it(platform_of, tmp_path, unmapped):
    block = FLEET.replace("standard_name: air", "where: {parent: ps--0000-0001}, standard_name: air")
    platform = platform_of(block.replace("    station:", f"    unmapped: {unmapped}\n    station:"))
    then = window_of(datetime.now(UTC) - 3 * HOUR, HOUR)
    with opened(platform) as (door, url):
        if unmapped == "refused":
            with pytest.raises(HttpClientError, match=r"no variable of sources\.garden takes 0000-5001 of report"):
                upload(url, 7, when=then.start)
        else:
            upload(url, 7, when=then.start)
            door.flush.run()
            assert [one.reason for one in door.memory.parked()] == ["no variable of sources.garden takes 0000-5001"]
        (tmp_path / "told.csv").write_text(TOLD)
        assert CliRunner().invoke(app, ["--config", "config.yaml", "stations", "import", "told.csv"]).exit_code == 0
        if unmapped == "refused":
            upload(url, 7, when=then.start)
        else:
            assert door.flush.look_again() == 1
        door.flush.run()
        assert door.memory.parked() == []
    bring_up_to_date(platform)
    assert points(platform, then)[TEMPERATURE].to_list() == [7.0]


def test_a_parent_that_cannot_be_is_told_when_the_configuration_is_checked(platform_of, tmp_path):
    platform_of(FLEET)
    config = tmp_path / "config.yaml"

    def checked(entries):
        given = tmp_path / "checked.yaml"
        given.write_text(f"{config.read_text()}\nstations:\n  - {entries}\n")
        done = CliRunner().invoke(app, ["--config", str(given), "config", "check"])
        return done.exit_code, " ".join(done.output.split())

    code, said = checked("{source: garden, station: d--7, parent: px--1}")
    assert code == 1 and "stations.0: garden d--0000-0000-0000-0007: parent is no site (ps), area (pa) or line" in said
    assert checked("{source: garden, station: d--7, parent: ps--1}")[0] == 0


def test_devices_that_report_are_in_the_registry_with_the_parts_of_their_ids(platform_of):
    block = FLEET.replace("{variable: variable}", "{device: device, streamer: streamer}")
    platform = platform_of(block + "      - {field: 0000-5002, standard_name: x_spindle_load, cf_unit: '1'}\n")
    then = window_of(datetime.now(UTC) - 3 * HOUR, HOUR)
    with opened(platform) as (door, url):
        api = Api(url)
        api.set_token(TOKEN, token_type="token")
        for device in (7, 8):
            readings = [ArchFXDataPoint(then.start, 0x5001 + n, 1.0, reading_id=n + 1) for n in range(9 - device)]
            report = ArchFXFlexibleDictionaryReport.FromReadings(device, readings, streamer=0x100)
            assert report.upload(api) == 9 - device
        door.flush.run()
    bring_up_to_date(platform)
    known = up_to_date(platform, ["garden"])["garden"].registry
    assert known.table["station"].to_list() == ["d--0000-0000-0000-0007", "d--0000-0000-0000-0008"]
    seventh = known.one("d--0000-0000-0000-0007")
    assert seventh.told == {"device": "d--0000-0000-0000-0007", "streamer": "0x100"}
    assert [name.partition("__")[0] for name in seventh.measures] == ["air_temperature", "x_spindle_load"]
