"""The registry of stations, from raw partitions to what a person reads, and back into what comes in."""

import errno
import json
import re
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import codc
import pdbufr
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.cli.quarantine import set_aside
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.pipeline.agenda import is_outdated
from ionbeam_dagster.pipeline.build import build, made_by
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.export import export
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.recovery import open_platform
from ionbeam_dagster.pipeline.retention import purge
from ionbeam_dagster.pipeline.station_columns import DescribedPoints
from ionbeam_dagster.pipeline.stations import change_entries, up_to_date
from ionbeam_dagster.stores.raw import RawFile
from ionbeam_dagster.stores.stations import StationsError

HOUR = timedelta(hours=1)
DAY = datetime(2026, 6, 21, tzinfo=UTC)
LATER = DAY + timedelta(days=3)
CROWD = """
  scheduler: {windows: [{source_name: crowd, window_size: PT1H}]}
  crowd:
    type: files
    path: in
    start: 2026-06-21
    aggregation_span: PT1H
    exports: [pygeoapi, odb, bufr]
    time: t
    latitude: lat
    longitude: lon
    variables: [{column: warm, standard_name: air_temperature, cf_unit: degC, level: 2.0}]
    metadata: {station_id: s, owner: owner, altitude: height}
"""
HEAD = "t,s,lat,lon,warm,owner,height\n"


def hour(number):
    return Window(DAY + number * HOUR, DAY + (number + 1) * HOUR)


def report(number, station="a", place="52.0,5.0", owner="Ada", minute=0):
    moment = DAY + number * HOUR + timedelta(minutes=minute)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ},{station},{place},20.0,{owner},12\n"


@pytest.fixture
def crowd(platform_of, tmp_path):
    def made(*reports, **sections):
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        (folder / "all.csv").write_text(HEAD + "".join(reports))
        return platform_of(CROWD.replace("exports:", "settle: PT0S\n    exports:"), **sections)

    return made


def take_in(platform, *numbers):
    for number in numbers:
        collect(platform, platform.source("crowd"), hour(number), LATER)
        ingest(platform, platform.source("crowd"), hour(number))


def registry(platform, source="crowd"):
    return up_to_date(platform, [source])[source]


def run(*words):
    done = CliRunner().invoke(app, ["--config", "config.yaml", "stations", *words])
    return done.exit_code, re.sub(r"\s+", " ", done.output)


def test_what_arrives_makes_the_registry_and_is_looked_at_once(crowd):
    platform = crowd(report(0), report(1, owner=""), report(1, "b"), report(5, place="52.5,5.0"))
    take_in(platform, 1)
    first = registry(platform)
    assert (first.new, first.looked_at, first.registry.table["station"].to_list()) == (2, 1, ["a", "b"])
    assert registry(platform).looked_at == 0
    take_in(platform, 5, 0)  # what is late is earlier
    again = registry(platform)
    assert (again.new, again.looked_at) == (0, 2)
    known = again.registry.one("a")
    assert known.facts["first_heard"] == DAY and known.facts["last_heard"] == DAY + 5 * HOUR
    assert (known.facts["lat"], known.facts["altitude"], known.facts["mobile"]) == (52.5, 12.0, False)
    assert known.facts["moved"] == DAY + 5 * HOUR and known.facts["status"] is None
    assert known.told == {"owner": "Ada", "altitude": "12"}
    assert known.measures == ["air_temperature__degC__2.0__point__PT0S"]
    assert known.places.select("lat", "until").rows() == [(52.0, DAY + HOUR), (52.5, DAY + 5 * HOUR)]
    assert known.moves["metres"].to_list() == pytest.approx([55_597], abs=5)
    platform.stations.keep("crowd", type(platform.stations.heard("nobody"))(again.registry.heard))  # from the beginning
    assert registry(platform).registry.table.equals(again.registry.table)


def test_a_station_that_is_heard_at_many_places_is_mobile_and_one_in_turns_at_two_is_told(crowd):
    drive = [report(0, "car", f"52.{number:02d},5.0", minute=number) for number in range(20)]
    turns = [report(0, "two", "52.0,5.0" if number % 2 else "-33.9,18.4", minute=number) for number in range(6)]
    wavers = [report(0, "gps", f"52.000{400 + number * 40},5.0", minute=number) for number in range(6)]
    platform = crowd(*drive, *turns, *wavers)
    take_in(platform, 0)
    told = {row["station"]: row for row in registry(platform).registry.table.iter_rows(named=True)}
    assert {name: row["mobile"] for name, row in told.items()} == {"car": True, "two": False, "gps": False}
    assert told["two"]["status"] == "in turns at two places" and told["gps"]["moved"] is None
    assert told["car"]["lat"] == 52.19


def test_rows_of_a_station_that_is_denied_are_set_aside_with_the_reason_and_counted(crowd):
    platform = crowd(report(0), report(0, "cellar"), report(1), report(1, "cellar"))
    take_in(platform, 0)
    code, said = run("deny", "crowd", "cellar", "--why", "stands indoors")
    assert code == 0 and "ionbeam reingest crowd" in said and "ionbeam rebuild crowd --force" in said
    take_in(platform, 1)
    made = build(platform, platform.dataset("crowd"), hour(1), LATER)
    assert pl.read_parquet(made.revision.path)["station_id"].to_list() == ["a"]
    [aside] = set_aside(platform, "crowd", *[hour(1).start, hour(1).end])
    assert aside.rows == 1
    assert aside.reason(platform) == "its station may not come in: cellar, stands indoors"
    code, said = run("list")
    assert code == 0 and "2 stations, 1 denied" in said and "stands indoors" in said  # it is heard, still
    assert run("deny", "crowd", "cellar", "--lift")[0] == 0 and not platform.stations.entries()
    ingest(platform, platform.source("crowd"), hour(1))
    assert not set_aside(platform, "crowd", hour(1).start, hour(1).end)


def test_where_some_are_allowed_all_others_are_denied(crowd):
    entries = "[{source: crowd, station: a, admit: allow, name: Ada's roof, wigos_id: '06260'}]"
    platform = crowd(report(0), report(0, "b"), stations=entries)
    take_in(platform, 0)
    table = registry(platform).registry.table
    assert table.select("station", "name", "wigos_id", "status").rows() == [
        ("a", "Ada's roof", "0-20000-0-06260", None), ("b", None, None, "denied"),
    ]  # fmt: skip
    code, said = run("deny", "crowd", "a")
    assert code == 1 and "the entries stand in the YAML" in said


def test_the_place_of_a_station_whose_rows_have_none_is_the_registrys(crowd, tmp_path):
    platform = crowd(report(0, place=","), report(0, "b", place=","))
    (tmp_path / "told.csv").write_text("source,station,latitude,longitude,altitude\ncrowd,a,52.1,5.2,3\n")
    assert run("import", str(tmp_path / "told.csv"))[0] == 0
    take_in(platform, 0)
    rows = pl.read_parquet(build(platform, platform.dataset("crowd"), hour(0), LATER).revision.path)
    assert rows.select("station_id", "lat", "lon").rows() == [("a", 52.1, 5.2)]
    assert set_aside(platform, "crowd", hour(0).start, hour(0).end)[0].rows == 1


def test_what_is_exported_can_be_changed_and_imported(crowd, tmp_path):
    platform = crowd(report(0), report(0, "b"))
    take_in(platform, 0)
    table = tmp_path / "stations.csv"
    assert run("export", str(table))[0] == 0
    told = pl.read_csv(table, infer_schema=False)
    assert told.select("source", "station", "wigos_id", "heard_lat", "heard_altitude").rows() == [
        ("crowd", "a", None, "52.0", "12.0"), ("crowd", "b", None, "52.0", "12.0"),
    ]  # fmt: skip
    told.with_columns(wigos_id=pl.lit("0-276-0-ABC")).write_csv(table)
    code, said = run("import", str(table))
    assert code == 0 and "stations crowd a, crowd b would all have the WIGOS id 0-276-0-ABC" in said
    assert "0-276-0-ABC" in run("show", "crowd", "b")[1]
    assert run("show", "crowd", "c")[0] == 1
    done = CliRunner().invoke(app, ["--config", "config.yaml", "config", "check"])
    assert "would all have the WIGOS id" in re.sub(r"\s+", " ", done.output)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("source,station,latitude,longitude\ncrowd,a,95,5\n", "line 2: crowd a: latitude is not within -90 and 90"),
        ("source,station,latitude\ncrowd,a,9\n", "line 2: crowd a: has one of latitude and longitude alone"),
        ("source,station,altitude\ncrowd,a,12 ft\n", "line 2: crowd a: altitude is no number"),
        ("source,station,wigos_id\ncrowd,a,0-70000-0-X\n", "line 2: crowd a: wigos_id is none"),
        ("source,station,name\ncrowd,a,x\ncrowd,a,y\n", "line 3: crowd a: is given twice"),
        ("source,station,admit\n,a,maybe\n", "line 2: a: has no source, or no station"),
        ("source,station,mobile,siting\ncrowd,a,perhaps,7\n", "siting is none of WMO's classes"),
        (
            "source,station,parent\ncrowd,d--7,px--1\n",
            "line 2: crowd d--0000-0000-0000-0007: parent is no site (ps), area",
        ),
        (
            "source,station,parent\ncrowd,d--7,ps--1-90\n",
            "parent is no site (ps), area (pa) or line (pl): right would be",
        ),
        (
            "source,station,parent\ncrowd,roof,pl--1\n",
            "line 2: crowd roof: has a parent, and is no device: right would",
        ),
        ("source,station,parent\ncrowd,d--7,1\ncrowd,0007,2\n", "line 3: crowd d--0000-0000-0000-0007: is given twice"),
        ("source,name\ncrowd,a\n", "there is no column station"),
        ("source,station,hight\ncrowd,a,3\n", "column 'hight' is not known"),
        ('source,station\n"crowd,a\n', "no table of comma separated values"),
        ("", "there is no column source"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_nothing_of_it_taken(crowd, tmp_path, text, reason):
    platform = crowd(report(0))
    given = tmp_path / "given.csv"
    given.write_text(text)
    code, said = run("import", str(given))
    assert code == 1 and reason in said and "nothing of it was taken" in said, said
    assert not platform.stations.entries()


def test_a_csv_that_was_broken_by_hand_says_what_it_said_before_or_holds_rows_back(crowd, tmp_path):
    (tmp_path / "mine.csv").write_text("source,station,admit\ncrowd,a,dney\n")
    platform = crowd(report(0), stations="mine.csv")
    collect(platform, platform.source("crowd"), hour(0), LATER)
    with pytest.raises(StationsError, match=r"mine\.csv cannot be used; correct it: line 2: crowd a: admit"):
        ingest(platform, platform.source("crowd"), hour(0))
    (tmp_path / "mine.csv").write_text("source,station,admit\ncrowd,a,deny\n")
    assert ingest(platform, platform.source("crowd"), hour(0)).quarantined == 1
    broken = "source,station,admit\ncrowd,a,deny\ncrowd,b,dney\n"
    (tmp_path / "mine.csv").write_text(broken)
    for some in (platform, open_platform(platform.config)):  # also one that never read what was good
        assert ingest(some, some.source("crowd"), hour(0)).quarantined == 1  # what it said before holds
        assert "line 3: crowd b: admit" in some.stations.trouble
    assert "until then what it said before holds" in run("list")[1]
    code, said = run("deny", "crowd", "b")
    assert code == 1 and "line 3" in said and (tmp_path / "mine.csv").read_text() == broken  # not written over


def test_nothing_is_purged_before_it_was_seen_what_it_says_of_stations(crowd, tmp_path):
    (tmp_path / "mine.csv").write_text("source,station\n")
    platform = crowd(report(0), retention="{raw: PT0S}", stations="mine.csv")
    take_in(platform, 0)
    build(platform, platform.dataset("crowd"), hour(0), LATER)
    platform.ledger.seal("crowd", [hour(0)], LATER)
    for format in platform.dataset("crowd").exports:
        export(platform, platform.dataset("crowd"), platform.config.window_exporters[format], hour(0))
    (tmp_path / "ionbeam-state" / "stations" / "_told.parquet").unlink()
    (tmp_path / "mine.csv").write_text("not,stations\n")
    assert not purge(platform, LATER).of_kind("raw partitions")
    (tmp_path / "mine.csv").write_text("source,station\n")
    assert len(purge(platform, LATER).of_kind("raw partitions")) == 1


def test_faulty_entries_of_the_yaml_are_told_as_it_is_read(crowd):
    with pytest.raises(ConfigError, match=r"stations\.0: crowd a: siting is none"):
        crowd(report(0), stations="[{source: crowd, station: a, siting: 9}]")
    with pytest.raises(ConfigError, match=r"stations.*sitting"):
        crowd(report(0), stations="[{source: crowd, station: a, sitting: 3}]")


def test_stations_of_raw_partitions_that_go_are_known_before_and_a_lost_one_is_counted(crowd, tmp_path):
    platform = crowd(report(0), report(1, "b"), retention="{raw: PT0S}")
    take_in(platform, 0, 1)
    for number in (0, 1):
        build(platform, platform.dataset("crowd"), hour(number), LATER)
        platform.ledger.seal("crowd", [hour(number)], LATER)
    for number in (0, 1):
        for format in platform.dataset("crowd").exports:
            export(platform, platform.dataset("crowd"), platform.config.window_exporters[format], hour(number))
    assert len(purge(platform, LATER).of_kind("raw partitions")) == 2
    assert registry(platform).registry.table["station"].to_list() == ["a", "b"]
    (tmp_path / "ionbeam-state" / "stations" / "crowd.parquet").write_bytes(b"hurt")
    lost = registry(platform)
    assert lost.registry.table.is_empty() and lost.missed == 2
    assert "2 raw files were gone before they were looked at" in run("list")[1]


def exported(platform, format):
    return export(platform, platform.dataset("crowd"), platform.config.window_exporters[format], hour(0))


def test_what_is_told_of_stations_is_in_their_windows_and_exports(crowd):
    reports = [report(0), report(0, "b"), report(0, "c")]
    entries = """[
      {source: crowd, station: a, wigos_id: "06260", name: De Bilt, altitude: 3, mobile: false},
      {source: crowd, station: b, wigos_id: 0-276-0-BALCONY, altitude: 700.5}]"""
    plain = crowd(*reports)
    before = made_by(plain, plain.dataset("crowd"))
    take_in(plain, 0)
    schema = pq.read_schema(build(plain, plain.dataset("crowd"), hour(0), LATER).revision.path)
    assert not {"wigos_id", "station_name", "mobile"} & {*schema.names}
    platform = crowd(*reports, stations=entries)
    assert made_by(platform, platform.dataset("crowd")) != before  # so that `ionbeam rebuild --outdated` makes it again
    rows = pl.read_parquet(build(platform, platform.dataset("crowd"), hour(0), LATER, force=True).revision.path)
    assert rows.select("station_id", "wigos_id", "station_name", "altitude", "mobile").rows() == [
        ("a", "0-20000-0-06260", "De Bilt", "3", "false"),
        ("b", "0-276-0-BALCONY", None, "700.5", None),
        ("c", None, None, "12", None),
    ]
    read = codc.read_odb(exported(platform, "odb").path, single=True)
    named = zip(*(read[name] for name in ("statid@hdr", "wigosid@hdr", "stalt@hdr")), strict=True)
    assert [(statid.strip(), wigos_id.strip(), height) for statid, wigos_id, height in named] == [
        ("06260", "0-20000-0-06260", 3), ("b", "0-276-0-BALCONY", 700.5), ("c", "", 12)
    ]  # fmt: skip
    told = pdbufr.read_bufr(exported(platform, "bufr").path, columns="all", flat=True)
    issuers = told["#1#wigosIssuerOfIdentifier"].fillna(-1).to_list()
    names = (told[f"#1#{name}"].str.strip() for name in ("wigosLocalIdentifierCharacter", "longStationName"))
    height = told["#1#heightOfStationGroundAboveMeanSeaLevel"].to_list()
    assert told["#1#stationNumber"].fillna(-1).to_list() == [260, -1, -1] and height == [3, 700.5, 12]
    assert list(zip(issuers, *names, strict=True)) == [
        (20000, "06260", "a"), (276, "BALCONY", "b"), (-1, "", "c")
    ]  # fmt: skip
    assert "wigos_id" in pq.read_schema(exported(platform, "pygeoapi").path).names


BESIDE = "    dataset: crowd\n    station_prefix: ''\n"


def test_stations_of_two_sources_with_one_id_are_told_nothing_that_differs(platform_of):
    block = CROWD.split("\n", 2)[2]
    both = block + block.replace("crowd:", "town:").replace("    path", f"{BESIDE}    path")
    entries = """[{source: crowd, station: a, altitude: 3}, {source: town, station: a, altitude: 4},
      {source: town, station: b, altitude: 5}]"""
    platform = platform_of(both, stations=entries)
    points = DescribedPoints(platform, platform.dataset("crowd"))
    assert points._columns.rows() == [("b", "5")]


TWO = CROWD.replace("exports:", "settle: PT0S\n    exports:")
TWO += TWO.split("\n", 2)[2].replace("crowd:", "town:").replace("    path: in", f"{BESIDE}    path: there")


@pytest.fixture
def two_sources(platform_of, tmp_path):
    """Two sources of one dataset, each with stations 1, in the Netherlands and at Cape Town, and 2."""
    for folder, place in (("in", "52.0,5.0"), ("there", "-33.9,18.4")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "all.csv").write_text(HEAD + report(0, "1", place) + report(0, "2"))

    def taken_in(yaml, **sections):
        platform = platform_of(yaml, **sections)
        for source in ("crowd", "town"):
            collect(platform, platform.source(source), hour(0), LATER)
            ingest(platform, platform.source(source), hour(0))
        return platform

    return taken_in


def test_stations_of_one_id_in_two_sources_of_a_dataset_are_named(two_sources):
    two_sources(TWO)
    said = run("list")[1]
    assert "crowd and town feed one dataset and have stations of one id that are far apart" in said
    assert "become one point: 1; give one of the two a station_prefix" in said
    assert run("deny", "town", "1")[0] == 0 and "feed one dataset" not in run("list")[1]


def test_a_point_is_at_one_place(two_sources):
    platform = two_sources(TWO)
    rows = pl.read_parquet(build(platform, platform.dataset("crowd"), hour(0), LATER).revision.path).sort("station_id")
    assert rows.select("station_id", "lat", "lon").rows() == [("1", -33.9, 18.4), ("2", 52.0, 5.0)]


def test_the_network_is_a_part_of_a_stations_id_where_its_source_has_a_prefix(two_sources):
    entries = "[{source: crowd, station: '1', altitude: 3}, {source: town, station: '1', altitude: 4}]"
    platform = two_sources(TWO.replace("station_prefix: ''", "station_prefix: town-"), stations=entries)
    rows = pl.read_parquet(build(platform, platform.dataset("crowd"), hour(0), LATER).revision.path).sort("station_id")
    assert rows.select("station_id", "lat", "altitude").rows() == [
        ("1", 52.0, "3"), ("2", 52.0, "12"), ("town-1", -33.9, "4"), ("town-2", 52.0, "12"),
    ]  # fmt: skip
    assert registry(platform, "town").registry.table["station"].to_list() == ["1", "2"]
    assert "feed one dataset" not in run("list")[1]


def test_stations_that_an_export_would_call_the_same_are_named(crowd, tmp_path):
    platform = crowd(report(0, "ab-12-cd-34"), report(0, "ab12cd34"), report(0, "other"))
    take_in(platform, 0)
    said = run("list")[1]
    assert "stations ab-12-cd-34, ab12cd34 of crowd would all be 'ab12cd34' in odb; tell them apart by wigos_id" in said
    (tmp_path / "told.csv").write_text("source,station,wigos_id\ncrowd,ab12cd34,06260\n")
    assert run("import", str(tmp_path / "told.csv"))[0] == 0 and "would all be" not in run("list")[1]


def test_two_that_look_at_once_take_turns(crowd, monkeypatch):
    platform, other = (crowd(report(0), report(1, "b")) for _ in range(2))
    take_in(platform, 0, 1)
    kept, people, looking = platform.stations.keep, ThreadPoolExecutor(1), []

    def keep_late(source, heard):
        looking.append(people.submit(registry, other))
        wait(looking, timeout=0.5)
        kept(source, heard)

    monkeypatch.setattr(platform.stations, "keep", keep_late)
    assert registry(platform).looked_at == 2
    found = looking[0].result(timeout=30)
    people.shutdown()
    assert found.looked_at == 0 and found.registry.table["station"].to_list() == ["a", "b"]


def test_a_raw_partition_that_cannot_be_read_holds_up_no_other_but_a_machine_that_cannot_read_now_does(
    crowd, monkeypatch
):
    platform = crowd(report(0), report(1, "b"), report(2, "c"), report(3, "d"))
    take_in(platform, 0, 1, 2, 3)
    damage = [OSError("ZSTD decompression failed"), pl.exceptions.PanicException("range end")]
    faults = [OSError(errno.EMFILE, "too many open files"), *damage, None, None]
    monkeypatch.setattr(RawFile, "batches", failing(faults))
    with pytest.raises(OSError, match="too many"):
        registry(platform)
    known = registry(platform)
    assert (known.looked_at, known.missed, known.registry.table["station"].to_list()) == (4, 2, ["c", "d"])
    faults += [None, damage[0]]
    known = registry(platform)
    assert (known.looked_at, known.missed, known.registry.table["station"].to_list()) == (2, 1, ["a", "c", "d"])


def test_a_raw_file_with_a_byte_that_flipped_is_told_and_no_station_of_it_is_made_up(crowd, caplog):
    platform = crowd(report(0), report(1, "b"))
    take_in(platform, 0, 1)
    raw = Path(platform.ledger.raw("crowd", hour(0)).path)
    whole = raw.read_bytes()
    raw.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    known = registry(platform)
    assert (known.missed, known.away, known.registry.table["station"].to_list()) == (1, 1, ["b"])
    assert "does not hold what was written" in caplog.text and f"{raw}.damaged" in caplog.text
    take_in(platform, 0)
    assert registry(platform).registry.table["station"].to_list() == ["a", "b"]


def test_stations_of_raw_files_that_are_away_are_known_once_these_are_back(crowd, tmp_path):
    platform = crowd(report(0), report(1, "b"), report(2, "c"))
    take_in(platform, 0, 1, 2)
    raws = [platform.ledger.raw("crowd", hour(number)) for number in range(3)]
    for raw in raws[:2]:
        Path(raw.path).rename(f"{raw.path}.away")
    for _ in range(2):
        without = registry(platform)
        assert (without.missed, without.away, without.registry.table["station"].to_list()) == (2, 2, ["c"])
    assert "2 raw files cannot be read now, and are looked at again" in run("list")[1]
    for raw in raws[:2]:
        Path(f"{raw.path}.away").rename(raw.path)
    platform.ledger.record_purged(raws[1], LATER)
    Path(raws[1].path).unlink()
    found = registry(platform)
    assert (found.missed, found.away, found.registry.table["station"].to_list()) == (1, 0, ["a", "c"])
    assert found.looked_at == 2 and registry(platform).looked_at == 0
    assert "1 raw files were gone before they were looked at" in run("list")[1]


def test_a_raw_file_that_is_collected_anew_while_it_is_away_is_waited_for_no_longer(crowd, tmp_path):
    platform = crowd(report(0))
    take_in(platform, 0)
    Path(platform.ledger.raw("crowd", hour(0)).path).unlink()
    assert registry(platform).away == 1
    (tmp_path / "in" / "all.csv").write_text(HEAD + report(0, "z"))
    take_in(platform, 0)
    found = registry(platform)
    assert (found.missed, found.away, found.registry.table["station"].to_list()) == (0, 0, ["z"])


def test_a_registry_of_an_earlier_version_is_gone_on_with(crowd, tmp_path):
    platform = crowd(report(0))
    take_in(platform, 0)
    registry(platform)
    kept = tmp_path / "ionbeam-state" / "stations" / "crowd.parquet"
    about = json.loads(pl.read_parquet_metadata(kept)["ionbeam"])
    about = {name: about[name] for name in ("mark", "missed")}
    pl.read_parquet(kept).write_parquet(kept, metadata={"ionbeam": json.dumps(about)})
    assert (registry(platform).looked_at, registry(platform).registry.table["station"].to_list()) == (0, ["a"])


def failing(faults):
    """`RawFile.batches` with a fault for each call to come; None: none."""
    whole = RawFile.batches

    def batches(file):
        if fault := faults.pop(0):
            raise fault
        yield from whole(file)

    return batches


def test_two_who_deny_at_once_deny_both(crowd):
    platforms = [crowd(report(0)) for _ in range(4)]
    with ThreadPoolExecutor(4) as people:
        for done in [
            people.submit(change_entries, platform, lambda told, name=f"s{number}": told.denied("crowd", name, ""))
            for number, platform in enumerate(platforms)
        ]:
            done.result()
    assert platforms[0].stations.entries().table["station"].to_list() == ["s0", "s1", "s2", "s3"]


@pytest.mark.parametrize("place", [None, "mine.csv"])
def test_a_csv_that_is_gone_lets_nobody_in_that_it_denied(crowd, tmp_path, place):
    platform = crowd(report(0), **({"stations": place} if place else {}))
    collect(platform, platform.source("crowd"), hour(0), LATER)
    if place:
        with pytest.raises(StationsError, match=r"mine\.csv.* is not there; put it back"):
            ingest(platform, platform.source("crowd"), hour(0))
    assert run("deny", "crowd", "a")[0] == 0
    assert ingest(platform, platform.source("crowd"), hour(0)).quarantined == 1
    Path(platform.stations.place).unlink()
    for some in (platform, open_platform(platform.config)):
        assert ingest(some, some.source("crowd"), hour(0)).quarantined == 1
        assert "is not there; put it back" in some.stations.trouble
    assert run("deny", "crowd", "a", "--lift")[0] == 1
    Path(platform.stations.place).write_text("source,station\n")
    assert ingest(platform, platform.source("crowd"), hour(0)).quarantined == 0 and not platform.stations.trouble


def test_while_what_is_told_cannot_be_read_no_window_is_outdated(crowd, tmp_path):
    (tmp_path / "mine.csv").write_text("source,station,name\ncrowd,a,Roof\n")
    platform = crowd(report(0), stations="mine.csv")
    take_in(platform, 0)
    build(platform, platform.dataset("crowd"), hour(0), LATER)
    (tmp_path / "ionbeam-state" / "stations" / "_told.parquet").unlink()
    (tmp_path / "mine.csv").unlink()
    assert not is_outdated(open_platform(platform.config), platform.dataset("crowd"), hour(0))


@pytest.mark.parametrize("damage", ["no Parquet", "a page", "the footer"])
def test_a_damaged_file_of_stations_is_set_aside_told_and_made_again(crowd, tmp_path, caplog, damage):
    platform = crowd(report(0))
    take_in(platform, 0)
    folder = tmp_path / "ionbeam-state" / "stations"
    (folder.parent / "stations.csv").write_text("source,station,admit\ncrowd,b,deny\n")
    before = registry(platform).registry.table
    assert platform.stations.entries().table.height == 1
    for name in ("crowd", "_told"):
        whole = bytearray((folder / f"{name}.parquet").read_bytes())
        at = {"no Parquet": slice(0, None), "a page": slice(40, 60), "the footer": slice(-60, -20)}[damage]
        whole[at] = b"\xff" * len(whole[at])
        (folder / f"{name}.parquet").write_bytes(whole)
    platform = open_platform(platform.config)
    assert registry(platform).registry.table.equals(before)
    assert platform.stations.entries().table["station"].to_list() == ["b"]
    told = [one.getMessage() for one in caplog.records if "damaged" in one.getMessage()]
    assert len(told) == 2
    assert any("crowd.parquet.damaged; it is made again from the raw partitions" in one for one in told)
    assert any("_told.parquet.damaged; what" in one for one in told)
    assert sorted(one.name for one in folder.glob("*.damaged")) == ["_told.parquet.damaged", "crowd.parquet.damaged"]


def test_where_what_was_told_is_damaged_and_gone_nobody_is_let_in_that_it_may_have_denied(crowd, tmp_path):
    platform = crowd(report(0))
    place = tmp_path / "ionbeam-state" / "stations.csv"
    place.parent.mkdir(exist_ok=True)
    place.write_text("source,station,admit\ncrowd,a,deny\n")
    assert platform.stations.entries().table.height == 1
    place.unlink()
    (place.with_suffix("") / "_told.parquet").write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(StationsError, match="is not there; put it back, or, if nothing is to be said of them"):
            open_platform(platform.config).stations.entries()
    place.write_text("source,station\n")
    assert open_platform(platform.config).stations.entries().table.height == 0
