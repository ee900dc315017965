"""Rows that could not be used are kept, found and read, in a folder and in S3."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from ionbeam_dagster.cli import app
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.collect import collect
from ionbeam_dagster.pipeline.ingest import ingest
from ionbeam_dagster.stores.files import Files, S3Settings, within
from ionbeam_dagster.stores.quarantine import QuarantineStore

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))
REJECTED = pl.DataFrame({"lat": ["x", "95"], "row": [3, 7], "reason": ["no latitude: 'x'", "no latitude: '95'"]})


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> Iterator[QuarantineStore]:
    if request.param == "folder":
        yield QuarantineStore(Files(tmp_path / "scratch"), str(tmp_path / "quarantine"))
        return
    server = request.getfixturevalue("s3")
    files = Files(tmp_path / "scratch", S3Settings.model_validate(server.section()))
    yield QuarantineStore(files, f"{server.bucket(f'q{time.time_ns()}')}/quarantine")


def kept(store: QuarantineStore, location: str) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(batch) for batch in store.rows(location)])


def test_what_is_kept_is_found_and_read_with_its_reasons(store):
    assert store.files() == []
    location = store.path("crowd", WINDOW)
    with store.writing(location) as writer:
        writer.add(REJECTED)
        writer.add(REJECTED)
    assert writer.rows == 4 and writer.reasons == {"no latitude": 4}
    [file] = store.files()
    assert (file.of, file.location) == ("crowd", location) and file.bytes > 0
    assert abs(datetime.now(UTC) - file.written_at) < timedelta(seconds=9)
    assert kept(store, location).equals(pl.concat([REJECTED, REJECTED]))


def test_an_ingestion_without_a_rejected_row_leaves_no_file_and_one_that_fails_the_earlier_one(store):
    location = store.path("crowd", WINDOW, "0-1")
    assert location.endswith("crowd_20260621T120000_PT1H_0-1.parquet")
    with store.writing(location):
        pass
    assert store.files() == []
    with store.writing(location) as writer:
        writer.add(REJECTED)
    with pytest.raises(RuntimeError), store.writing(location) as writer:
        writer.add(REJECTED.head(1))
        raise RuntimeError
    assert kept(store, location).height == 2
    with store.writing(location):
        pass
    assert store.files() == []


def test_what_the_time_series_server_refused_stands_beside_it(store):
    location = store.refused_path("crowd", "one")
    assert store.count(location) == 0
    with store.writing(location) as writer:
        writer.add(REJECTED)
    [file] = store.files()
    assert (
        (file.of, file.location) == ("crowd", location) == ("crowd", within(store.root, "crowd", "refused_one.parquet"))
    )
    assert kept(store, location).equals(REJECTED) and store.count(location) == 2


def test_a_host_has_its_scratch_for_itself_and_the_quarantine_lies_where_the_yaml_says(platform_of):
    source = "  ioncannon: {num_stations: 2, start: 2026-06-21, bad_value_fraction: 1.0}"
    platform = platform_of(source, state_path="state", scratch_path="mine", quarantine_path="set-aside")
    collect(platform, platform.source("ioncannon"), WINDOW, NOON + timedelta(days=1))
    told = ingest(platform, platform.source("ioncannon"), WINDOW)
    assert [file.location for file in platform.quarantine.files()] == [told.quarantine]
    assert told.quarantine == "set-aside/ioncannon/ioncannon_20260621T120000_PT1H.parquet"
    with platform.files.scratch() as folder:
        assert Path(folder).resolve().is_relative_to(Path("mine/drafts").resolve())
    assert sorted(path.name for path in Path("state").iterdir() if path.is_dir()) == ["ledger.locks", "segments"]


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:-4] + b"????", lambda whole: b"PAR1" * 9])
def test_a_damaged_file_hides_nothing_else_and_is_told_where_rows_are_looked_for(platform_of, damage):
    source = (
        "  scheduler: {windows: [{source_name: ioncannon, window_size: PT1H}]}\n"
        "  ioncannon: {num_stations: 9, start: 2026-06-21, aggregation_span: PT1H, bad_value_fraction: 0.5}"
    )
    platform = platform_of(source)
    collect(platform, platform.source("ioncannon"), WINDOW, NOON + timedelta(days=1))
    told = ingest(platform, platform.source("ioncannon"), WINDOW)
    path = Path(told.quarantine)
    path.write_bytes(damage(path.read_bytes()))
    for command in (["status"], ["gaps"], ["quarantine", "list"], ["quarantine", "show"]):
        done = CliRunner().invoke(app, ["--config", "config.yaml", *command])
        said = " ".join(done.output.replace("│", " ").replace("┃", " ").split())
        assert done.exit_code == 0, (command, done.output, done.exception)
        assert "its file cannot be read; `ionbeam" in said, said
        assert "`ionbeam reingest ioncannon --from 2026-06-21T12:00Z" in said or "list" in command, said
    ingest(platform, platform.source("ioncannon"), WINDOW)
    assert "cannot be read" not in CliRunner().invoke(app, ["--config", "config.yaml", "quarantine", "show"]).output
