"""The contract of `Files`, which a local folder and S3 both keep, and what only one of them can get wrong."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backends import S3, s3  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from ionbeam_dagster.stores.files import Files, S3Settings, name_of, within


def settings_of(server: S3, **changed: str) -> S3Settings:
    asked = {"endpoint": server.endpoint, "region": server.region, "access_key": server.access_key}
    return S3Settings.model_validate(asked | {"secret_key": server.secret_key} | changed)


def make_bucket(server: S3, name: str) -> None:
    address = server.endpoint.partition("//")[2]
    fs.S3FileSystem(
        access_key=server.access_key, secret_key=server.secret_key, endpoint_override=address, scheme="http",
        region=server.region, allow_bucket_creation=True,
    ).create_dir(name)  # fmt: skip


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path) -> Iterator[tuple[Files, str]]:
    """A `Files` and a root in it that is new."""
    if request.param == "folder":
        yield Files(tmp_path / "scratch"), str(tmp_path / "root")
        return
    server = request.getfixturevalue("s3")
    bucket = f"b{time.time_ns()}"
    make_bucket(server, bucket)
    yield Files(tmp_path / "scratch", settings_of(server)), f"s3://{bucket}/root"


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


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
