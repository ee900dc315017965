"""What an assimilation says of stations: found by statid, and shown beside our own flags."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import codc
import polars as pl
import pytest
from crowd import crowd
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.exporters.odb.feedback import read_feedback
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest

START = datetime(2026, 6, 21, 6, tzinfo=UTC)
HOUR = Window(START, START + timedelta(hours=1))
LATER = START + timedelta(days=1)
MAC, ROOF = "ab:cd:ef:01", "roof"
IFS = Path(__file__).parents[2] / "shared" / "data" / "odb" / "ifs_synop_feedback.odb"


@pytest.fixture
def exported(platform_of, tmp_path) -> Path:
    """An ODB file of an hour: two stations of six values each; the last of the roof's is 80 degC, and fails."""
    rows = [
        f"2026-06-21T06:{minute:02d}:00Z,{station},52.1,5.2,{80 if (station, minute) == (ROOF, 50) else 20}"
        for station in (MAC, ROOF)
        for minute in range(0, 60, 10)
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("\n".join(["t,id,lat,lon,warm", *rows]) + "\n")
    platform = platform_of(crowd("[odb]", "{station_id: id}"))
    source, dataset = platform.source("crowd"), platform.dataset("crowd")
    collect(platform, source, HOUR, LATER)
    ingest(platform, source, HOUR)
    build(platform, dataset, HOUR, LATER)
    export(platform, dataset, platform.config.window_exporters["odb"], HOUR)
    (file,) = tmp_path.rglob("*.odb")
    return file


def assimilated(ours: Path, file: Path, departures: dict[str, float]) -> Path:
    """What an assimilation would give back: a departure of each station, which rejects what is far from its guess."""
    reader = codc.Reader(str(ours), aggregated=False)
    rows = pl.concat(pl.from_pandas(frame.dataframe()) for frame in reader.frames)
    statid = pl.col("statid@hdr").str.strip_chars()
    departure = statid.replace_strict(departures, return_dtype=pl.Float64)
    status = pl.when(departure.abs() > 5).then(4).otherwise(1).cast(pl.Int64)
    told = rows.with_columns(departure.alias("fg_depar@body"), (departure / 2).alias("an_depar@body"))
    codc.encode_odb(told.with_columns(status.alias("datum_status@body")).to_pandas(), str(file))
    return file


def asked(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--config", "config.yaml", "odb", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_departures_find_their_stations_and_stand_beside_our_flags(exported, tmp_path):
    file = assimilated(exported, tmp_path / "ofb.odb", {"abcdef01": 0.5, ROOF: -7.5})
    code, told = asked("feedback", file, "--csv", tmp_path / "out.csv")
    assert code == 0, told
    found = {row["station_id"]: row for row in pl.read_csv(tmp_path / "out.csv").iter_rows(named=True)}
    assert found.keys() == {MAC, ROOF}, told
    assert found[MAC] | {"varno": 39, "values": 6, "active": 1.0, "fg_bias": 0.5, "an_bias": 0.25, "fg_sd": 0.0,
                         "flagged_here": 0.0} == found[MAC]  # fmt: skip
    assert found[ROOF] | {"values": 6, "active": 0.0, "rejected": 1.0, "fg_bias": -7.5} == found[ROOF]
    assert found[ROOF]["flagged_here"] == pytest.approx(1 / 6)
    assert told.index("roof") < told.index("abcdef01"), "who is furthest from the model stands first"
    assert "varno 39" in told and "100%" in told and "17%" in told


def test_the_frames_of_a_file_are_counted_together(exported, tmp_path):
    one = assimilated(exported, tmp_path / "one.odb", {"abcdef01": 0.5, ROOF: -7.5})
    other = assimilated(exported, tmp_path / "other.odb", {"abcdef01": 1.5, ROOF: -7.5})
    (tmp_path / "both.odb").write_bytes(one.read_bytes() + other.read_bytes())
    table = read_feedback(tmp_path / "both.odb").table
    found = {row["statid"]: row for row in table.iter_rows(named=True)}
    assert table.height == 2 and found["abcdef01"]["values"] == found[ROOF]["values"] == 12
    assert (found["abcdef01"]["fg_bias"], found["abcdef01"]["fg_sd"]) == (1.0, 0.5)
    assert (found["abcdef01"]["active"], found[ROOF]["rejected"], found[ROOF]["fg_sd"]) == (1.0, 1.0, 0.0)


def test_who_stands_behind_a_statid_is_a_table(exported, tmp_path):
    code, told = asked("stations", tmp_path / "statids.csv")
    assert code == 0 and "2 stations of crowd" in told, told
    table = pl.read_csv(tmp_path / "statids.csv")
    assert table.columns == ["statid", "station_id", "wigos_id", "source", "name", "lat", "lon", "altitude"]
    assert dict(table.select("statid", "station_id").iter_rows()) == {"abcdef01": MAC, ROOF: ROOF}


def test_strangers_and_files_that_are_no_feedback_are_told(exported, tmp_path):
    code, told = asked("feedback", exported)
    assert code == 1 and "is no feedback, as it lacks fg_depar@body" in told
    (tmp_path / "x.odb").write_text("nothing")
    code, told = asked("feedback", tmp_path / "x.odb")
    assert code == 1 and "x.odb: cannot be read as ODB-2" in told
    if IFS.exists():
        code, told = asked("feedback", IFS)
        assert code == 0 and "2 statids of no station of crowd: 61997, 61998" in told, told
