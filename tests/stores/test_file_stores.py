"""The contract of `Files`, which a local folder and S3 both keep, and what only one of them can get wrong."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backends import S3, Missing, s3, start_s3  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from ionbeam_dagster.stores.files import (
    Files,
    FilesError,
    S3Settings,
    checked_location,
    name_of,
    uri_of,
    within,
)


def at(server: S3, scratch: Path, **changed: str) -> Files:
    return Files(scratch, S3Settings.model_validate(server.section() | changed))


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path) -> Iterator[tuple[Files, str]]:
    """A `Files` and a root in it that is new."""
    if request.param == "folder":
        yield Files(tmp_path / "scratch"), str(tmp_path / "root")
        return
    server = request.getfixturevalue("s3")
    yield at(server, tmp_path / "scratch"), f"{server.bucket(f'b{time.time_ns()}')}/root"


def put(files: Files, location: str, content: bytes) -> None:
    with files.published(location) as draft:
        draft.write_bytes(content)


def content(files: Files, location: str) -> bytes:
    with files.opened(location) as file:
        return file.read()


def test_a_file_is_there_whole_when_its_block_has_ended_and_not_before(place):
    files, root = place
    location = within(root, "crowd", "a.parquet")
    assert not files.exists(location) and files.under(root) == []
    with files.published(location) as draft:
        draft.write_bytes(b"first")
        assert not files.exists(location) and files.under(root) == []
    found = files.found(location)
    assert found.size == 5 and abs(datetime.now(UTC) - found.modified) < timedelta(seconds=5)
    with files.published(location) as draft:
        draft.write_bytes(b"the second")
        assert content(files, location) == b"first"
    assert content(files, location) == b"the second" and files.under(root) == [location]


def test_what_fails_or_writes_nothing_leaves_what_was_there(place):
    files, root = place
    location = within(root, "a")
    put(files, location, b"first")
    with files.published(location):
        pass
    for wrong in (ValueError, KeyboardInterrupt):
        with pytest.raises(wrong), files.published(location) as draft:
            draft.write_bytes(b"half")
            raise wrong
    assert content(files, location) == b"first" and files.under(root) == [location]
    assert not [path for path in draft.parent.parent.rglob("*") if path.is_file() and path.read_bytes() == b"half"]


def test_what_is_not_there_is_told_as_such(place):
    files, root = place
    location = within(root, "none")
    assert files.found(location) is None and not files.exists(location) and files.under(root) == []
    files.delete(location)
    for read in (files.opened, files.parquet, files.fetched):
        with pytest.raises(FileNotFoundError, match="none"), read(location) as found:
            Path(found).read_bytes()


def test_a_folder_is_no_file_and_its_files_are_listed_in_order_without_drafts(place):
    files, root = place
    wanted = [within(root, *names) for names in (("a", "x"), ("a", "y", "z"), ("b",))]
    for location in reversed([*wanted, within(root, "a", ".draft")]):
        put(files, location, b"x")
    assert files.under(root) == wanted and files.under(within(root, "a")) == wanted[:2]
    assert not files.exists(within(root, "a"))
    files.delete(wanted[0])
    files.delete(wanted[0])
    assert files.under(root) == wanted[1:]


def test_parquet_is_read_in_row_groups_and_a_tool_gets_a_path(place):
    files, root = place
    location = within(root, "rows.parquet")
    table = pa.table({"a": range(10_000), "b": [f"{n}" * 50 for n in range(10_000)]})
    with files.published(location) as draft:
        pq.write_table(table, draft, row_group_size=1000)
    with files.parquet(location) as file:
        assert file.num_row_groups == 10
        assert pa.Table.from_batches(file.iter_batches()).equals(table)
    with files.fetched(location) as path:
        assert path.name == "rows.parquet" and pq.read_table(path).equals(table)
    assert files.exists(location)
    put(files, location, b"PAR1 damaged")
    with pytest.raises(pa.ArrowInvalid), files.parquet(location):
        pass


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Cn", "Co"], exclude_characters="/"),
    min_size=1, max_size=40,
).filter(lambda name: name not in (".", "..") and not name.startswith(".") and len(name.encode()) < 150)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(folder=NAMES, name=NAMES, said=st.binary(max_size=100))
def test_names_mean_what_they_say(place, folder, name, said):
    files, root = place
    location = within(root, folder, name)
    assert name_of(location) == name
    put(files, location, said)
    assert content(files, location) == said and location in files.under(within(root, folder))
    with files.fetched(location) as path:
        assert path.read_bytes() == said
    files.delete(location)
    assert not files.exists(location)


PUBLISHER = """
import sys
from pathlib import Path
from ionbeam_dagster.stores.files import (
    Files,
    FilesError,
    S3Settings,
    checked_location,
    name_of,
    uri_of,
    within,
)
scratch, location, size, *server = sys.argv[1:]
names = ("endpoint", "region", "access_key", "secret_key")
files = Files(Path(scratch), S3Settings(**dict(zip(names, server))))
print("begun", flush=True)
number = 0
while True:
    with files.published(location) as draft:
        draft.write_bytes(bytes([number % 251]) * int(size))
    number += 1
"""
SIZE = 25 << 20  # three parts of an upload


def test_a_publisher_that_is_killed_leaves_the_old_file_or_the_new_one(s3, tmp_path):  # noqa: F811
    location = f"{s3.bucket('killed')}/window.parquet"
    files = at(s3, tmp_path / "scratch")
    put(files, location, bytes(SIZE))
    for patience in (0.05, 0.11, 0.23):
        command = [sys.executable, "-c", PUBLISHER, tmp_path / "scratch", location, str(SIZE), *s3.section().values()]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(patience)
        child.kill()
        child.wait()
        said = content(files, location)
        assert len(said) == SIZE and len(set(said)) == 1
    after = at(s3, tmp_path / "scratch")
    with after.fetched(location) as copy:
        mine = {copy.parents[1], *(path.parent for path in (tmp_path / "scratch").glob("*/.lock"))}
        assert len(mine) == 2, "what the killed left in the scratch folder is gone, what the living need is there"


@pytest.fixture
def own_s3(tmp_path) -> Iterator[S3]:
    (tmp_path / "server").mkdir()
    try:
        server = start_s3(tmp_path / "server")
    except Missing as missing:
        pytest.skip(missing.reason)
    yield server
    server.process.stop()


def test_a_server_that_is_away_or_slow_loses_nothing_and_the_next_time_mends_it(own_s3, tmp_path):
    location = f"{own_s3.bucket('away')}/a"
    files = at(own_s3, tmp_path / "scratch")
    put(files, location, b"first")
    own_s3.process.stop()
    told = f"{location}: S3 at {own_s3.endpoint} does not answer; start it, or correct s3.endpoint"
    for attempt in (
        lambda: put(files, location, b"second"),
        lambda: files.exists(location),
        lambda: files.delete(location),
    ):
        with pytest.raises(FilesError, match=told):
            attempt()
    own_s3.process.start()
    assert content(files, location) == b"first"
    own_s3.process._process.send_signal(signal.SIGSTOP)
    woken = subprocess.Popen(["sh", "-c", f"sleep 1.5; kill -CONT {own_s3.process._process.pid}"])
    put(files, location, b"second")
    woken.wait()
    assert content(files, location) == b"second"


@pytest.mark.parametrize(
    ("changed", "bucket", "told"),
    [
        ({}, "no-such-bucket", "has no such bucket; create it, or correct the path"),
        ({"secret_key": "wrong-secret"}, "refusing", "refuses the credentials; correct s3.secret_key"),
        ({"access_key": "nobody"}, "refusing", "does not know s3.access_key; correct it"),
    ],
)
def test_what_s3_refuses_is_told_with_the_file_and_what_to_do(s3, tmp_path, changed, bucket, told):  # noqa: F811
    s3.bucket("refusing")
    files = at(s3, tmp_path / "scratch", **changed)
    location = f"s3://{bucket}/a/b.parquet"
    with pytest.raises(FilesError, match=f"{location}: S3 at {s3.endpoint} {told}") as refused:
        put(files, location, b"x")
    assert "secret" not in str(refused.value).replace("s3.secret_key", "")
    assert not at(s3, tmp_path / "scratch").exists(location)


def test_a_location_is_one_text_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checked_location("./data/") == "data" and within("data", "a", "b.parquet") == "data/a/b.parquet"
    assert checked_location("s3://bucket/a b%20#?/") == "s3://bucket/a b%20#?"
    assert uri_of("data/a b") == f"file://{tmp_path}/data/a%20b" and uri_of("s3://bucket/a b") == "s3://bucket/a b"
    for wrong in (
        "s3://",
        "s3://b",
        "s3://Bucket/x",
        "s3://bucket//x",
        "s3://bucket/../x",
        "s3://bucket/\n",
        "gs://bucket/x",
    ):
        with pytest.raises(ValueError, match="right would be a folder, or s3://bucket/prefix"):
            checked_location(wrong)
    for wrong in ("127.0.0.1:9000", "http://", "http://host/path", "ftp://host"):
        with pytest.raises(ValidationError, match="right would be, for example, http"):
            S3Settings(endpoint=wrong)
    assert "hush" not in repr(S3Settings(secret_key=SecretStr("hush")))
