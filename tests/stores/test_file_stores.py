"""A folder and S3 pass the suite that is shipped for `Files`; and what only one of them can get wrong."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import S3, Missing, start_s3
from pydantic import SecretStr, ValidationError

from ionbeam_dagster.stores.files import (
    Files,
    FilesError,
    S3Settings,
    checked_location,
    uri_of,
    within,
)
from ionbeam_dagster.testing.files import FilesContract, content, put


def at(server: S3, scratch: Path, **changed: str) -> Files:
    return Files(scratch, S3Settings.model_validate(server.section() | changed))


class TestAFolder(FilesContract):
    @pytest.fixture
    def place(self, tmp_path):
        return Files(tmp_path / "scratch"), str(tmp_path / "root")

    @pytest.mark.parametrize("before", ["nothing", "file", "folder"])
    def test_a_folder_where_a_file_belongs_is_set_aside(self, place, before, caplog):
        files, root = place
        location = within(root, "a.parquet")
        if before == "file":
            put(files, location, b"damaged")
            files.set_aside(location)
        for made in ["first", "second"] if before == "folder" else ["second"]:
            files.delete(location)
            Path(location, made).mkdir(parents=True)
            put(files, location, b"x")
        kept = f"{location}.damaged"
        assert content(files, location) == b"x" and f"it is kept as {kept}" in caplog.text
        assert [path.name for path in Path(kept).iterdir()] == ["second"]
        assert files.under(root) == [location] and [*files.aside(root)] == [kept]
        files.set_aside(location)
        assert Path(kept).read_bytes() == b"x"


class TestS3(FilesContract):
    @pytest.fixture
    def place(self, s3, tmp_path):
        return at(s3, tmp_path / "scratch"), f"{s3.bucket(f'b{time.time_ns()}')}/root"


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


def test_a_publisher_that_is_killed_leaves_the_old_file_or_the_new_one(s3, tmp_path):
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
def test_what_s3_refuses_is_told_with_the_file_and_what_to_do(s3, tmp_path, changed, bucket, told):
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


def test_a_file_where_a_folder_belongs_holds_nothing(tmp_path):
    (tmp_path / "odb").write_text("no folder")
    files = Files(tmp_path / "drafts", S3Settings())
    for place in ("odb", "odb/crowd"):
        assert files.listed(str(tmp_path / place)) == {} and files.folders(str(tmp_path / place)) == []
