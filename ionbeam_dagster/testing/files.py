"""What `Files` promises wherever the files of the platform lie.

Belongs here: the suite that a local folder and S3 pass, for whoever keeps files elsewhere. Does not belong here: what
only one of them can get wrong, or any server.

    class TestMyFiles(FilesContract):
        @pytest.fixture
        def place(self, tmp_path):
            return MyFiles(tmp_path / "scratch"), "mine://root"
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam_dagster.stores.files import Files, name_of, within

Place = tuple[Files, str]
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Cn", "Co"], exclude_characters="/"),
    min_size=1, max_size=40,
).filter(lambda name: name not in (".", "..") and not name.startswith(".") and len(name.encode()) < 150)  # fmt: skip


def put(files: Files, location: str, content: bytes) -> None:
    with files.published(location) as draft:
        draft.write_bytes(content)


def content(files: Files, location: str) -> bytes:
    with files.opened(location) as file:
        return bytes(file.read())


class FilesContract:
    """The suite of `Files`. A subclass gives `place`, which holds no file yet."""

    @pytest.fixture
    def place(self) -> Place:
        """A `Files`, and a root in it that is new."""
        raise NotImplementedError("a suite of files has a fixture place")

    def test_a_file_is_there_whole_when_its_block_has_ended_and_not_before(self, place: Place) -> None:
        files, root = place
        location = within(root, "crowd", "a.parquet")
        assert not files.exists(location) and files.under(root) == []
        with files.published(location) as draft:
            draft.write_bytes(b"first")
            assert not files.exists(location) and files.under(root) == []
        found = files.found(location)
        assert found and found.size == 5 and abs(datetime.now(UTC) - found.modified) < timedelta(seconds=5)
        with files.published(location) as draft:
            draft.write_bytes(b"the second")
            assert content(files, location) == b"first"
        assert content(files, location) == b"the second" and files.under(root) == [location]

    def test_what_fails_or_writes_nothing_leaves_what_was_there(self, place: Place) -> None:
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

    def test_what_is_not_there_is_told_as_such(self, place: Place) -> None:
        files, root = place
        location = within(root, "none")
        assert files.found(location) is None and not files.exists(location) and files.under(root) == []
        files.delete(location)
        for read in (files.opened, files.parquet, files.fetched):
            with pytest.raises(FileNotFoundError, match="none"), read(location) as found:
                Path(found).read_bytes()

    def test_a_folder_is_no_file_and_its_files_are_listed_in_order_without_drafts(self, place: Place) -> None:
        files, root = place
        wanted = [within(root, *names) for names in (("a", "x"), ("a", "y", "z"), ("b",))]
        for location in reversed([*wanted, within(root, "a", ".draft")]):
            put(files, location, b"x")
        assert files.under(root) == wanted and files.under(within(root, "a")) == wanted[:2]
        assert not files.exists(within(root, "a"))
        assert (files.folders(root), files.folders(within(root, "none"))) == (["a"], [])
        files.delete(wanted[0])
        files.delete(wanted[0])
        assert files.under(root) == wanted[1:]

    def test_what_is_set_aside_is_told_apart_by_its_place_below_the_root(self, place: Place) -> None:
        files, base = place
        root = within(base, "x.damaged", "data")
        kept, hurt, inside = (within(root, *names) for names in (("a",), ("b",), ("c.damaged", "d")))
        for location in (kept, hurt, inside):
            put(files, location, b"x")
        aside = files.set_aside(hurt)
        assert files.under(root) == [kept, aside] and aside in files.aside(root)

    def test_parquet_is_read_in_row_groups_and_a_tool_gets_a_path(self, place: Place) -> None:
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
        whole = BytesIO()
        pq.write_table(pa.table({"x": [1]}), whole)
        good = whole.getvalue()
        footer = 8 + int.from_bytes(good[-8:-4], "little")
        for damaged in (b"PAR1 damaged", good[:-footer] + b"\xff" * (footer - 8) + good[-8:]):
            put(files, location, damaged)
            with pytest.raises(pa.ArrowInvalid), files.parquet(location):
                pass

    def test_names_mean_what_they_say(self, place: Place) -> None:
        files, root = place

        @settings(max_examples=40)
        @given(folder=NAMES, name=NAMES, written=st.binary(max_size=100))
        def holds(folder: str, name: str, written: bytes) -> None:
            location = within(root, folder, name)
            assert name_of(location) == name
            put(files, location, written)
            assert content(files, location) == written and location in files.under(within(root, folder))
            with files.fetched(location) as path:
                assert path.read_bytes() == written
            files.delete(location)
            assert not files.exists(location)

        holds()
