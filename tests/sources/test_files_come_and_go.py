"""What was collected stays when files or rows go away, unless somebody says that it goes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import PipelineError, SourceError
from ionbeam_dagster.pipeline.agenda import needs_collecting
from ionbeam_dagster.pipeline.build import build
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.pipeline.keeping import Keeping
from ionbeam_dagster.pipeline.raw_files import whole
from ionbeam_dagster.pipeline.reconciliation import reconcile
from ionbeam_dagster.stores.files import Files as Stored
from ionbeam_dagster.stores.ledger.leases import lease_of
from ionbeam_dagster.stores.raw import RawStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("no_pictures"),
]

DAY = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = DAY + timedelta(days=30)
BLOCK = """
  loggers:
    type: files
    path: in/*.csv
    start: 2024-03-01
    settle: 0
    time: time
    latitude: 45.0
    longitude: 7.0
    constants: {station_id: A}
    variables:
      - {column: t, standard_name: air_temperature, cf_unit: degC, level: 2.0}
      - {column: rh, standard_name: relative_humidity, cf_unit: "%", level: 2.0}
"""
T, RH = "air_temperature__degC__2.0__point__PT0S", "relative_humidity__%__2.0__point__PT0S"


def hour(number: int) -> Window:
    return Window(DAY + number * HOUR, DAY + (number + 1) * HOUR)


def rows(first: int, last: int, t: str = "{n}", rh: str = "50") -> str:
    """A CSV with a row every ten minutes; `n` counts them from midnight."""
    lines = [f"{DAY + n * HOUR / 6:%Y-%m-%dT%H:%M:%SZ},{t.format(n=n)},{rh}" for n in range(first, last)]
    return "\n".join(["time,t,rh", *lines, ""])


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def taken_in(platform, *hours: int, replace: bool = False) -> list:
    """Each hour collected and ingested; what became of it in the collection."""
    done = [collect(platform, platform.source("loggers"), hour(number), NOW, replace=replace) for number in hours]
    for number in hours:
        ingest(platform, platform.source("loggers"), hour(number))
    return done


def values(platform, number: int, column: str = T) -> list:
    built = build(platform, platform.dataset("loggers"), hour(number), NOW)
    return pl.read_parquet(built.revision.path).sort("datetime")[column].to_list()


def test_files_that_go_away_take_nothing_with_them(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    a = write(tmp_path / "in", "a.csv", rows(0, 18))
    taken_in(platform, 0, 1, 2)
    assert values(platform, 1) == [6, 7, 8, 9, 10, 11]
    a.unlink()  # a logger that clears its folder
    again = platform_of(BLOCK)  # a new process
    assert [number for number in range(3) if needs_collecting(again, "loggers", hour(number))] == []
    (told,) = again.sources["loggers"].problems()
    assert "no file matches any longer, where 1 file was before (missed since 2" in told and "collected stays" in told
    with pytest.raises(SourceError, match="no file matches any longer"):
        collect(again, again.source("loggers"), hour(1), NOW)
    with pytest.raises(SourceError, match="no file matches any longer"):
        collect(again, again.source("loggers"), hour(7), NOW)  # of which nothing is known: a gap, no empty window
    (tmp_path / "in").rmdir()  # an unmounted disk
    with pytest.raises(SourceError, match="mount the folder"):
        collect(platform_of(BLOCK), platform_of(BLOCK).source("loggers"), hour(1), NOW)
    assert values(again, 1) == [6, 7, 8, 9, 10, 11]
    write(tmp_path / "in", "b.csv", rows(18, 24))
    back = platform_of(BLOCK)
    (told,) = back.sources["loggers"].problems()
    assert told.startswith("in/a.csv is no longer among the files of in/*.csv; what was collected of it stays")
    taken_in(back, 3)
    assert values(back, 3) == [18, 19, 20, 21, 22, 23]
    assert [needs_collecting(back, "loggers", hour(number)) for number in (1, 3)] == [True, False]
    assert [(one.kept, one.changed) for one in taken_in(back, 0, 1, 2)] == [(6, False)] * 3, "its rows are counted"
    assert not needs_collecting(back, "loggers", hour(1))
    assert values(back, 1) == [6, 7, 8, 9, 10, 11]
    write(tmp_path / "in", "a.csv", rows(0, 18))
    assert [(one.kept, one.changed) for one in taken_in(platform_of(BLOCK), 0, 1, 2)] == [(0, False)] * 3


def test_of_a_file_that_went_before_it_was_collected_there_is_a_gap(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    a = write(tmp_path / "in", "a.csv", rows(0, 18))
    write(tmp_path / "in", "b.csv", rows(18, 24))
    platform.sources["loggers"].extent()
    a.unlink()
    with pytest.raises(
        SourceError, match=r"in/a\.csv: is no longer among the files of in/\*\.csv, and held observations of"
    ):
        collect(platform, platform.source("loggers"), hour(1), NOW)


def test_a_raw_partition_stays_where_its_file_went_before_other_columns_were_read(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    a = write(tmp_path / "in", "a.csv", rows(0, 6))
    write(tmp_path / "in", "b.csv", rows(6, 12))
    taken_in(platform, 0, 1)
    a.unlink()
    without_humidity = BLOCK.replace("settle: 0", "settle: 0\n    version: 2").partition("      - {column: rh")[0]
    other = platform_of(without_humidity)
    (told,) = other.sources["loggers"].problems()
    assert told.startswith("in/a.csv is no longer among the files of in/*.csv; what was collected of it stays")
    assert hour(0) in to_collect(other)
    with pytest.raises(
        SourceError,
        match=r"in/a\.csv: is no longer .* what was collected of it stays.*reingest loggers --from .* --replace",
    ):
        collect(other, other.source("loggers"), hour(0), NOW)
    raw = other.ledger.raw("loggers", hour(0))
    assert other.raws(other.source("loggers")).open(raw.path).rows == raw.rows == 6
    assert values(other, 0) == [0, 1, 2, 3, 4, 5]
    write(tmp_path / "in", "a.csv", rows(0, 6))
    taken_in(platform_of(without_humidity), 0)
    assert not needs_collecting(platform_of(without_humidity), "loggers", hour(0))


def test_a_raw_partition_stays_where_its_rows_were_cut_out_before_other_columns_were_read(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    current = write(tmp_path / "in", "current.csv", rows(0, 12))
    taken_in(platform, 0, 1)
    current.write_text(rows(6, 12))
    other = platform_of(BLOCK.replace("settle: 0", "settle: 0\n    version: 2").partition("      - {column: rh")[0])
    with pytest.raises(PipelineError, match=r"has 6 rows, .* no longer has any of .* they stay"):
        collect(other, other.source("loggers"), hour(0), NOW)
    assert values(other, 0) == [0, 1, 2, 3, 4, 5]


def test_a_raw_partition_that_is_lost_is_missed_where_its_file_went_too(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    a = write(tmp_path / "in", "a.csv", rows(0, 6))
    write(tmp_path / "in", "b.csv", rows(6, 12))
    taken_in(platform, 0)
    a.unlink()
    raw = platform.ledger.raw("loggers", hour(0))
    platform.files.delete(raw.path)
    other = platform_of(BLOCK)
    with pytest.raises(SourceError, match=r"in/a\.csv: is no longer among"):
        collect(other, other.source("loggers"), hour(0), NOW)
    other.ledger.record_purged(raw, NOW)
    (purged,) = taken_in(other, 0)
    assert purged.rows == 0 and values(other, 0) == [0, 1, 2, 3, 4, 5]


def test_what_was_written_and_is_not_noted_yet_is_no_damage_to_whoever_reads_meanwhile(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    a = write(tmp_path / "in", "a.csv", rows(0, 6))
    taken_in(platform, 0)
    source, before = platform.source("loggers"), platform.ledger.raw("loggers", hour(0))
    platform.ledger.workers.beat("run", "host", 1, "collects")
    assert platform.ledger.leases.take([lease_of("collect", "loggers", hour(0))], "run")
    a.write_text(rows(0, 6).replace(",5,", ",9,"))
    collect(platform, source, hour(0), NOW)
    assert platform.ledger.raw("loggers", hour(0)).bytes == before.bytes  # which does not tell one from the other
    platform.ledger.record_raw(before)
    with pytest.raises(PipelineError, match="it is collected again at this moment"), whole(platform, source, before):
        pass
    assert platform.files.exists(before.path)
    platform.ledger.leases.give_back([lease_of("collect", "loggers", hour(0))], "run")
    with pytest.raises(PipelineError, match=r"it is kept as .*damaged"), whole(platform, source, before):
        pass


def test_a_file_that_is_written_anew_each_hour_adds_and_corrects_and_takes_nothing_back(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    current = write(tmp_path / "in", "current.csv", rows(0, 12))
    taken_in(platform, 0, 1)
    values(platform, 0), values(platform, 1)
    current.write_text(rows(9, 18).replace(",10,", ",99,"))
    first, second, third = taken_in(platform, 0, 1, 2)
    assert (first.changed, first.kept, second.kept, third.kept) == (False, 6, 3, 0)
    assert platform.ledger.raw("loggers", hour(1)).kept == 3
    assert values(platform, 0) == [0, 1, 2, 3, 4, 5]
    assert values(platform, 1) == [6, 7, 8, 9, 99, 11]
    assert values(platform, 2) == [12, 13, 14, 15, 16, 17]
    revision = platform.ledger.latest_revision("loggers", hour(1))
    assert revision.revision.number == 2 and revision.facts.overlaps == () and revision.facts.duplicates == 0
    assert platform.ledger.latest_revision("loggers", hour(0)).revision.number == 1
    assert [one.changed for one in taken_in(platform, 0, 1, 2)] == [False] * 3
    (before,) = platform.ledger.claims("loggers", hour(1))
    assert list(platform.series.arrivals("loggers")).count(before.id) == 1  # the earlier ingestion is not there as well


def test_a_value_that_is_given_no_longer_stays_beside_those_that_are(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    a = write(tmp_path / "in", "a.csv", rows(0, 6))
    taken_in(platform, 0)
    a.write_text(rows(0, 6, t="{n}.5", rh=""))
    (again,) = taken_in(platform, 0)
    assert again.kept == 6
    assert values(platform, 0) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5] and values(platform, 0, RH) == [50.0] * 6


def test_a_person_or_whoever_mirrors_a_folder_can_let_it_go(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    a = write(tmp_path / "in", "a.csv", rows(0, 6))
    taken_in(platform, 0)
    a.write_text(rows(0, 3))
    taken_in(platform, 0)
    assert values(platform, 0) == [0, 1, 2, 3, 4, 5]
    (asked,) = taken_in(platform, 0, replace=True)
    assert asked.kept == 0 and values(platform, 0) == [0, 1, 2]

    mirror = platform_of(BLOCK.replace("settle: 0", "settle: 0\n    when_removed: withdraw"))
    write(tmp_path / "in", "b.csv", rows(6, 12))
    taken_in(mirror, 0, 1)
    a.unlink()
    assert needs_collecting(mirror, "loggers", hour(0))
    taken_in(mirror, 0)
    assert values(mirror, 0) == [] and values(mirror, 1) == [6, 7, 8, 9, 10, 11]
    (tmp_path / "in" / "b.csv").unlink()
    with pytest.raises(SourceError, match="no file matches"):
        collect(mirror, mirror.source("loggers"), hour(1), NOW)  # an empty folder may as well be an unmounted disk


def test_what_was_collected_stays_when_its_raw_partition_was_purged(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    current = write(tmp_path / "in", "current.csv", rows(0, 6))
    taken_in(platform, 0)
    raw = platform.ledger.raw("loggers", hour(0))
    platform.files.delete(raw.path)
    platform.ledger.record_purged(raw, NOW)
    current.write_text(rows(4, 12).replace(",5,", ",99,"))
    (first,) = taken_in(platform, 0)
    assert platform.ledger.raw("loggers", hour(0)).beside == (raw.ingestion,)
    assert values(platform, 0) == [0, 1, 2, 3, 4, 99] and first.kept == 0
    current.write_text(rows(5, 12).replace(",5,", ",98,"))
    taken_in(platform, 0)
    assert values(platform, 0) == [0, 1, 2, 3, 4, 98]
    assert len(platform.ledger.claims("loggers", hour(0))) == 2
    taken_in(platform, 0, replace=True)
    assert values(platform, 0) == [98] and len(platform.ledger.claims("loggers", hour(0))) == 1


@pytest.fixture
def ionbeam(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    configured(tmp_path)

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["--config", "config.yaml", *arguments])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    return command


def configured(tmp_path: Path, block: str = BLOCK) -> None:
    (tmp_path / "config.yaml").write_text(f"sources:{block}    exports: []\n")


def published(tmp_path: Path) -> list:
    """The values in the newest revision of each window, one after the other."""
    newest = {path.name[:23]: path for path in sorted((tmp_path / "data").rglob("loggers_*.parquet"))}
    return [value for path in newest.values() for value in pl.read_parquet(path).sort("datetime")[T].to_list()]


def test_run_and_status_tell_what_is_kept_and_gone(ionbeam, tmp_path):
    current = write(tmp_path / "in", "current.csv", rows(0, 12))
    ionbeam("run")
    current.write_text(rows(9, 12).replace(",10,", ",99,"))
    for command in ("run", "status", "gaps"):
        assert "9 rows kept that the source no longer gives, in 2 windows (the first since 2" in ionbeam(command)
    write(tmp_path / "in", "other.csv", rows(30, 36))
    current.unlink()
    for command in ("run", "status", "gaps"):
        told = ionbeam(command)
        assert (
            told.count("in/current.csv is no longer among the files of in/*.csv; what was collected of it stays") == 1
        )
        assert "(missed since 2" in told
        assert "loggers: 12 rows kept that the source no longer gives, in 2 windows" in told
        again = "`ionbeam reingest loggers --from 2024-03-01T00:00Z --to 2024-03-01T02:00Z --replace`"
        assert f"{again} lets them go" in told
    assert published(tmp_path) == [*range(10), 99, 11, *range(30, 36)]
    assert "rows kept" not in ionbeam(*again.strip("`").split()[1:])
    assert published(tmp_path) == [*range(30, 36)]
    assert "Nothing to do" in ionbeam("run")
    (tmp_path / "in" / "other.csv").unlink()
    for command in ("status", "gaps"):
        assert "in/*.csv: no file matches any longer, where 2 files were before (missed since 2" in ionbeam(command)


def test_what_other_columns_leave_behind_is_told_with_what_can_be_done(ionbeam, tmp_path, monkeypatch):
    current = write(tmp_path / "in", "current.csv", rows(0, 12))
    gone = write(tmp_path / "in", "gone.csv", rows(12, 18))
    ionbeam("run")
    current.write_text(rows(3, 12))
    gone.unlink()
    without_humidity = BLOCK.replace("settle: 0", "settle: 0\n    version: 2").partition("      - {column: rh")[0]
    configured(tmp_path, without_humidity)
    done = CliRunner().invoke(app, ["--config", "config.yaml", "run"])
    told = [" ".join(done.output.split()), *(ionbeam(command) for command in ("status", "gaps"))]
    assert done.exit_code == 1
    for one in told:
        assert "loggers: 3 rows fewer than were collected before, in 1 window whose columns were others then" in one
        assert (
            "`ionbeam reingest loggers --from 2024-03-01T00:00Z --to 2024-03-01T01:00Z --replace` lets them go" in one
        )
        assert "Put the file back to collect it again, or let it go: `ionbeam reingest loggers --from 2024" in one
    ionbeam("reingest", "loggers", "--from", "2024-03-01T00:00Z", "--to", "2024-03-01T03:00Z", "--replace")
    assert "fewer" not in ionbeam("status") and published(tmp_path) == [*range(3, 12)]


def test_what_is_cut_out_beyond_the_rest_of_a_file_is_told_and_withdrawn_where_a_folder_is_mirrored(ionbeam, tmp_path):
    """A plain run looked at the time alone that files have now."""
    current = write(tmp_path / "in", "current.csv", rows(0, 18))
    ionbeam("run")
    current.write_text(rows(12, 18))
    assert "loggers: 12 rows kept that the source no longer gives, in 2 windows" in ionbeam("run")
    assert published(tmp_path) == [*range(18)]
    configured(tmp_path, BLOCK.replace("settle: 0", "settle: 0\n    when_removed: withdraw"))
    assert "rows kept" not in ionbeam("run")
    assert published(tmp_path) == [*range(12, 18)], "also what went before anybody said that it is to go"
    current.write_text(rows(15, 16))
    write(tmp_path / "in", "other.csv", rows(30, 36))
    ionbeam("run")
    assert published(tmp_path) == [15, *range(30, 36)]
    (tmp_path / "in" / "other.csv").unlink()
    ionbeam("run")
    assert published(tmp_path) == [15]


def test_what_is_cut_out_of_a_file_is_found_by_the_comparison_with_the_ledger_too(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    current = write(tmp_path / "in", "current.csv", rows(0, 18))
    taken_in(platform, 0, 1, 2)
    assert to_collect(platform) == []
    current.write_text(rows(12, 18))
    assert to_collect(platform) == [hour(2), hour(1), hour(0)]


def test_what_was_kept_before_a_folder_was_mirrored_is_found_by_that_comparison(platform_of, tmp_path):
    platform = platform_of(BLOCK)
    current = write(tmp_path / "in", "current.csv", rows(0, 18))
    taken_in(platform, 0, 1, 2)
    current.write_text(rows(12, 18))
    taken_in(platform, 0, 1, 2)
    assert to_collect(platform) == []
    mirror = platform_of(BLOCK.replace("settle: 0", "settle: 0\n    when_removed: withdraw"))
    assert to_collect(mirror) == [hour(1), hour(0)]


def to_collect(platform) -> list[Window]:
    return [work.window for work in reconcile(platform, platform.now()).work if work.stage == "collect"]


METADATA = IngestionMetadata(
    dataset=DatasetMetadata(name="d", aggregation_span=HOUR),
    ingestion_map=DataIngestionMap(
        canonical_variables=[
            CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC", level=2.0),
            CanonicalVariable(column="rh", standard_name="relative_humidity", cf_unit="%", level=2.0),
        ],
        metadata_variables=[MetadataVariable(column="station_id")],
    ),
)
POINTS = st.dictionaries(
    st.tuples(st.integers(0, 5), st.sampled_from("AB")),
    st.tuples(st.none() | st.integers(0, 3), st.none() | st.integers(0, 3)).filter(any),
    max_size=8,
)


def batch(points: dict) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "datetime": pa.array([DAY + n * HOUR / 6 for n, _ in points], pa.timestamp("us", tz="UTC")),
            "lat": pa.array([45.0] * len(points)),
            "lon": pa.array([7.0] * len(points)),
            "station_id": [station for _, station in points],
            "t": pa.array([t for t, _ in points.values()], pa.float64()),
            "rh": pa.array([rh for _, rh in points.values()], pa.float64()),
        }
    )


@settings(max_examples=50)
@given(answers=st.lists(POINTS, min_size=2, max_size=4))
def test_of_each_value_the_latest_that_was_given_is_there_and_the_same_again_changes_nothing(answers, tmp_path_factory):
    place = tmp_path_factory.mktemp("raw")
    raws = RawStore(Stored(place / "scratch"), str(place))
    ids = []

    def collected(points: dict) -> Keeping | None:
        keeping = Keeping(raws.open(raws.path("s", hour(0))), METADATA) if ids else None
        batches = [batch(points)] if points else []
        written = raws.write(
            "s", hour(0), hour(0), METADATA, keeping.together(batches) if keeping else batches,
            lambda: keeping is not None and keeping.says_nothing_new,
        )  # fmt: skip
        ids.append(written.ingestion)
        return keeping

    expected: dict = {}
    for points in answers:
        known = {key: tuple(expected.get(key, (None, None))) for key in points}
        missing = sum(
            any(old is not None and new is None for old, new in zip(was, points.get(key, (None, None)), strict=True))
            for key, was in expected.items()
        )
        for key, given_now in points.items():
            expected[key] = tuple(old if new is None else new for old, new in zip(known[key], given_now, strict=True))
        keeping = collected(points)
        assert keeping is None or keeping.rows >= missing
        found = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(list(raws.open(raws.path("s", hour(0))).batches()))
                             if expected else batch({})))  # fmt: skip
        latest = found.group_by("datetime", "station_id").agg(pl.col("t", "rh").drop_nulls().last())
        assert {((at - DAY) // (HOUR / 6), station): (t, rh) for at, station, t, rh in latest.iter_rows()} == expected
        collected(points)
        assert ids[-1] == ids[-2]
