"""The registry of stations at the HTTP door: places of lines that say none, and devices that report."""

from datetime import UTC, datetime

import pytest
from door_samples import GARDEN, HOUR, TEMPERATURE, bring_up_to_date, nanoseconds, opened, points, write
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import window_of


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
