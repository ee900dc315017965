"""The registry of stations at the HTTP door: places of lines that say none, and devices that report."""

from datetime import UTC, datetime

import pytest
from door_samples import FLEET, GARDEN, HOUR, TEMPERATURE, TOKEN, bring_up_to_date, nanoseconds, opened, points, write
from typer.testing import CliRunner

from ionbeam_client.archfx.api.connection import Api
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
