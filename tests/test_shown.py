"""What others are shown of a dataset: places, names and times by its rules, in whatever leaves the platform."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import codc
import numpy as np
import pdbufr
import polars as pl
import pyarrow.parquet as pq
import pytest
from crowd import crowd
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ionbeam_client import wire
from ionbeam_client.models import DataSetAvailableEvent
from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.domain.geo import great_circle
from ionbeam_dagster.domain.privacy import BUS, Privacy, in_squares, pseudonyms
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import ConfigError, PipelineError
from ionbeam_dagster.pipeline import agenda
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.shown import shown

HOUR = timedelta(hours=1)
DAY = datetime(2026, 6, 21, tzinfo=UTC)
WINDOW = Window(DAY, DAY + HOUR)
LATER = DAY + timedelta(days=3)
LAT, LON, NAME, OWNER = 52.123457, 5.654321, "Jansen-Dorp.7", "Ada Jansen"
CROWD = crowd("[pygeoapi, odb, bufr]", "METADATA", privacy="PRIVACY")
ALL = "{position: 1000, station_id: pseudonym, drop: [author]}"
METADATA = "{station_id: s, author: owner, platform_id: s}"


def rows(stations=((NAME, LAT, LON), ("a", 53.0, 6.0), ("z", 51.0, 4.0))):
    lines = ["t,s,lat,lon,warm,owner"]
    for minute in range(0, 60, 10):
        moment = f"{DAY + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
        lines += [f"{moment},{name},{lat},{lon},{20 + minute / 10},{OWNER}" for name, lat, lon in stations]
    return "\n".join(lines) + "\n"


@pytest.fixture
def crowd(platform_of, tmp_path):
    def make(privacy=ALL, metadata=METADATA, csv=None, **sections):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "all.csv").write_text(csv or rows())
        return platform_of(CROWD.replace("PRIVACY", privacy).replace("METADATA", metadata), **sections)

    return make


def built(platform):
    collect(platform, platform.source("crowd"), WINDOW, LATER)
    ingest(platform, platform.source("crowd"), WINDOW)
    return build(platform, platform.dataset("crowd"), WINDOW, LATER)


def exported(platform, format):
    return export(platform, platform.dataset("crowd"), platform.config.window_exporters[format], WINDOW)


def test_the_web_and_the_gts_see_what_the_rules_say_and_assimilation_all(crowd):
    platform = crowd()
    built(platform)
    whole = pl.read_parquet(platform.ledger.latest_revision("crowd", WINDOW).path)
    web = exported(platform, "pygeoapi")
    seen = pl.read_parquet(web.path)
    assert not {"author", "platform_id", "wigos_id"} & {*seen.columns}
    assert web.report.plan.left_out == {
        "platform_id": "may name its station (privacy.station_id)", "author": "left out by privacy.drop"
    }  # fmt: skip
    assert NAME not in seen["station_id"].to_list() and seen["station_id"].n_unique() == 3
    assert seen.select("lat", "lon").unique().height == 3
    assert LAT not in seen["lat"].to_list() and LON not in seen["lon"].to_list()
    warm = "air_temperature__degC__2.0__point__PT0S"
    assert sorted(seen[warm]) == sorted(whole[warm])
    for format in ("odb", "bufr"):
        exported(platform, format)
    # The same station has the same pseudonym in whatever leaves the platform, and for ever.
    again = pseudonyms(pl.Series([NAME]), open_platform(platform.config).privacy.key(), "crowd")[0]
    assert again in seen["station_id"].to_list()
    frame = codc.read_odb(platform.export_path("crowd", "odb", WINDOW), single=True)
    assert np.isclose(frame["lat@hdr"], LAT, atol=1e-5).any()
    told = pdbufr.read_bufr(platform.export_path("crowd", "bufr", WINDOW), columns=("latitude", "longitude"))
    near = (abs(told["latitude"] - LAT) < 1e-4) & (abs(told["longitude"] - LON) < 1e-4)
    assert len(told) and not near.any()
    footer = pq.read_metadata(web.path).metadata
    assert not any(NAME.encode() in value or OWNER.encode() in value for value in footer.values())


def test_what_is_shown_is_sorted_by_the_names_that_are_shown(crowd):
    platform = crowd()
    latest = built(platform).revision
    with shown(platform, platform.dataset("crowd"), "pygeoapi", Path(latest.path)) as view:
        seen = pl.read_parquet(view.path)
        assert seen["station_id"].is_sorted() and seen.height == latest.facts.rows
        assert pq.read_schema(view.path).metadata == pq.read_schema(latest.path).metadata
    assert not view.path.exists()


def test_stations_without_ids_stay_apart_where_their_places_are_one(crowd):
    near = [("x", LAT, LON), ("y", LAT + 1e-4, LON)]
    platform = crowd("{position: 5000}", "{author: owner}", rows(near))
    built(platform)
    seen = pl.read_parquet(exported(platform, "pygeoapi").path)
    assert seen.select("lat", "lon").unique().height == 1 and seen["station_id"].n_unique() == 2
    assert seen["author"].to_list() == [OWNER] * 12


def test_drives_lose_their_ends(crowd):
    drive = ["t,s,lat,lon,warm,owner"]
    for minute in range(60):
        moment = f"{DAY + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
        drive.append(f"{moment},car,{52 + minute * 0.0005:.4f},5.0,20.0,x")  # 55.6 m a minute
    platform = crowd("{drive_ends: 200}", METADATA, "\n".join(drive) + "\n")
    built(platform)
    made = exported(platform, "pygeoapi")
    seen = pl.read_parquet(made.path)
    minutes = sorted(seen["datetime"].dt.minute())
    assert minutes == list(range(4, 56)) and made.report.read_back["rows left out by privacy.drive_ends"] == 8
    assert pl.read_parquet(platform.ledger.latest_revision("crowd", WINDOW).path).height == 60


def test_clients_of_the_broker_are_sent_what_is_shown(crowd):
    platform = crowd(broker="{url: 'amqp://127.0.0.1:1/'}")
    latest = built(platform).revision
    from ionbeam_dagster.doors.amqp.outbox import Outbox
    from ionbeam_dagster.doors.amqp.settings import bus_settings

    messages = list(Outbox(bus_settings(platform), platform.ledger).revision(latest))
    assert messages and all(OWNER.encode() not in one.body and NAME.encode() not in one.body for one in messages)
    [batch] = wire.batches(wire.decode(DataSetAvailableEvent, messages[0].body).rows)
    assert batch.num_rows == 18 and LAT not in batch.column("lat").to_pylist()
    assert "author" not in batch.schema.names


def test_other_rules_make_exports_again_and_assimilation_is_left_alone(crowd, tmp_path):
    platform = crowd("{position: exact}")
    built(platform)
    for format in ("pygeoapi", "odb"):
        exported(platform, format)
        assert agenda.to_export(platform, f"crowd/{format}", WINDOW) is None
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("{position: exact}", "{position: 1000}"))
    platform = open_platform(IonbeamConfig.load(tmp_path / "config.yaml"))
    due = agenda.to_export(platform, "crowd/pygeoapi", WINDOW)
    assert due is not None and "privacy" in due.reason
    assert agenda.to_export(platform, "crowd/odb", WINDOW) is None
    exported(platform, "pygeoapi")
    assert agenda.to_export(platform, "crowd/pygeoapi", WINDOW) is None


def test_a_window_is_not_shown_before_its_time(crowd, monkeypatch):
    platform = crowd("{delay: P2D, exact_in: [odb]}")
    built(platform)
    now = [WINDOW.end + timedelta(hours=47)]
    monkeypatch.setattr(platform, "now", lambda: now[0])
    assert agenda.to_export(platform, "crowd/pygeoapi", WINDOW) is None
    with pytest.raises(PipelineError, match=r"from 2026-06-23 01:00 on \(privacy.delay\)"):
        exported(platform, "pygeoapi")
    assert agenda.to_export(platform, "crowd/odb", WINDOW) is not None
    now[0] += timedelta(hours=1)
    assert agenda.to_export(platform, "crowd/pygeoapi", WINDOW) is not None
    assert exported(platform, "pygeoapi").path


@pytest.mark.parametrize(
    ("privacy", "why"),
    [
        ("{exact_in: [odb, web]}", "web not known; choose from bufr, bus"),
        ("{drop: [lat]}", "lat cannot be left out"),
        ("{position: 1}", "10"),
        ("{delay: P1D}", r"exact_in: \[odb, odb_cycle, bus\]"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(crowd, privacy, why):
    with pytest.raises(ConfigError, match=why):
        crowd(privacy, broker="{url: 'amqp://127.0.0.1:1/'}")


def test_what_may_not_be_given_to_others_is_not_for_the_web(crowd, tmp_path):
    with pytest.raises(ConfigError, match="redistribution is false, and exports has pygeoapi"):
        crowd("{position: exact}\n    redistribution: false")
    text = (tmp_path / "config.yaml").read_text().replace("    exports: [pygeoapi, odb, bufr]\n", "")
    (tmp_path / "config.yaml").write_text(text)
    config = IonbeamConfig.load(tmp_path / "config.yaml")
    assert config.datasets["crowd"].exports == ("odb",)
    assert any("'crowd' is not served on the web" in note for note in config.notes(LATER))


@given(
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
    metres=st.floats(10, 100_000),
    turn=st.sampled_from([0, 360, -360]),
)
def test_a_place_is_shown_within_its_square_and_so_is_what_is_shown(lat, lon, metres, turn):
    shown_lat, shown_lon = in_squares(np.array([lat]), np.array([lon + turn]), metres)
    assert -90 <= shown_lat[0] <= 90 and -180 <= shown_lon[0] <= 180
    # Half of the diagonal; a square near a pole is wider on the side that looks away from it.
    assert great_circle(np.array([lat]), np.array([lon]), shown_lat, shown_lon)[0] <= 1.2 * metres + 1
    again = in_squares(shown_lat, shown_lon, metres)
    assert np.allclose(again, (shown_lat, shown_lon), atol=2e-6)


def test_pseudonyms_are_one_for_each_name_and_dataset_and_say_nothing():
    names = pl.Series(["a", "b", None, "a", "ab"])
    one, other = pseudonyms(names, b"k" * 32, "crowd"), pseudonyms(names, b"k" * 32, "other")
    assert one.null_count() == 1 and one.drop_nulls().n_unique() == 3 and one[0] == one[3]
    assert not {*one.drop_nulls()} & {*other.drop_nulls()} and not {*one.drop_nulls()} & {
        *pseudonyms(names, b"l" * 32, "crowd").drop_nulls()
    }
    assert one.drop_nulls().str.contains("^[0-9a-f]{16}$").all()


def test_rules_say_what_they_mean():
    with pytest.raises(ValidationError):
        Privacy(position="near")
    assert BUS not in Privacy().exact_in and not Privacy().changes_rows
