"""Windows followed over a service and over files: a copy that is kept true, whatever becomes of the windows."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest
from kept import akeep, contents, keep
from pages import blocks
from typer.testing import CliRunner
from windows import HOUR, START, write_window

from ionbeam_client.windows import Dataset, WindowChange, WindowsError, feed
from ionbeam_client.windows.data import Data, DataAsync
from ionbeam_client.windows.places import place_of
from ionbeam_dagster.cli import app
from ionbeam_dagster.config import CONFIG_VARIABLE

NAMES = ["20250101T000000_PT1H", "20250101T010000_PT1H", "20250101T020000_PT1H"]


def test_what_changed_is_told_until_it_is_confirmed(address, root):
    net = Dataset("net", address, client="anna")
    events, data = net.get_data_changes()
    assert [event.window for event in events] == NAMES == list(data.windows)
    first = events[0]
    assert (first.start, first.end, first.modification_type) == (START, START + HOUR, "new")
    assert first.confirm_data_received() and first.update_received and first.confirm_data_received()
    assert [event.window for event in net.get_data_changes()[0]] == NAMES[1:]
    net.confirm(events)
    assert net.get_data_changes()[0] == []
    assert len(Dataset("net", address, client="berta").get_data_changes()[0]) == 3

    write_window(root / "net", 1, add=2.0)
    (root / "net" / f"net_{NAMES[2]}.parquet").unlink()
    events, data = net.get_data_changes()
    assert [(event.window, event.modification_type) for event in events] == [
        (NAMES[1], "changed"),
        (NAMES[2], "removed"),
    ]
    assert list(data.windows) == NAMES[1:2]
    net.confirm(events)
    assert net.get_data_changes()[0] == []
    assert {**feed.confirmed_by(fs.LocalFileSystem(), str(root), "net", "anna").versions}.keys() == {*NAMES[:2]}


@pytest.fixture
def program(address, tmp_path, monkeypatch, capsys):
    """Runs what the page shows, and gives what it printed."""
    monkeypatch.chdir(tmp_path)
    [text] = blocks("following-windows.md")["python"]
    text = text.replace('"crowd"', '"net"').replace("https://weather.example", address)

    def run() -> str:
        exec(compile(text, "following-windows.md", "exec"), {"__name__": "program"})
        return capsys.readouterr().out

    return run


def test_the_program_of_the_page_keeps_a_copy(program, root, tmp_path):
    gone = root / "net" / f"net_{NAMES[2]}.parquet"
    for happens in (lambda: None, lambda: write_window(root / "net", 0, add=2.0), gone.unlink):
        happens()
        assert program() == "" and contents(tmp_path / "copy") == contents(root / "net")


def test_what_goes_between_the_look_and_the_fetch_holds_up_no_other(program, root, tmp_path, monkeypatch):
    def gone_first(self):
        (root / "net" / f"net_{self.window}.parquet").unlink() if self.window == NAMES[0] else None
        return get_data(self)

    get_data = WindowChange.get_data
    monkeypatch.setattr(WindowChange, "get_data", gone_first)
    assert f"{NAMES[0]} is gone" in program()
    assert contents(tmp_path / "copy") == contents(root / "net") and len(contents(root / "net")) == 2
    assert program() == ""


def test_a_folder_that_lost_all_its_windows_takes_no_copy_with_it(program, address, root, tmp_path):
    program()
    before = contents(tmp_path / "copy")
    kept = {path: path.read_bytes() for path in (root / "net").glob("*.parquet")}
    for path in kept:
        path.unlink()
    with pytest.raises(WindowsError, match="all 3 windows that anna has are gone at once"):
        program()
    assert contents(tmp_path / "copy") == before
    net = Dataset("net", address, client="anna")
    with pytest.raises(WindowsError, match="gone at once"):
        asyncio.run(net.aget_data_changes())
    events, _ = net.get_data_changes(all_may_be_gone=True)
    assert [event.modification_type for event in events] == ["removed"] * 3
    for path, content in list(kept.items())[:2]:
        path.write_bytes(content)
    program()
    assert contents(tmp_path / "copy") == contents(root / "net") and len(contents(root / "net")) == 2


def test_an_empty_copy_begins_anew_and_says_that_a_name_is_for_one_copy(program, root, tmp_path, monkeypatch, caplog):
    program()
    assert not caplog.records
    (root / "net" / f"net_{NAMES[2]}.parquet").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    program()
    assert contents(tmp_path / "elsewhere" / "copy") == contents(root / "net")
    assert "anna has confirmed 2 windows of net before" in caplog.text and "a name of its own" in caplog.text
    caplog.clear()
    program()
    assert not caplog.records, "it is not empty any longer"


def test_one_that_changes_after_it_was_told_is_told_again(address, root):
    net = Dataset("net", address, client="anna")
    events, _ = net.get_data_changes()
    write_window(root / "net", 0, add=5.0)
    net.confirm(events)
    [again] = net.get_data_changes()[0]
    assert (again.window, again.modification_type) == (NAMES[0], "changed")


def test_what_went_meanwhile_may_be_confirmed_and_a_removal_twice(address, root):
    """Retention removes windows while they are read, and the answer to a confirmation may be lost."""
    net = Dataset("net", address, client="anna")
    events, _ = net.get_data_changes()
    (root / "net" / f"net_{NAMES[0]}.parquet").unlink()
    net.confirm(events)
    [gone] = net.get_data_changes()[0]
    assert (gone.window, gone.modification_type) == (NAMES[0], "removed")
    net.confirm([gone])
    net.confirm([gone])
    assert net.get_data_changes()[0] == []


def test_a_client_does_not_make_a_service_remember_without_bound(serving, root):
    windows = {f"{START - n * HOUR:%Y%m%dT%H%M%S}_PT1H": "1" for n in range(1, 100_002)}
    answer = httpx.post(f"{serving.url}/collections/net/changes", json={"client": "a", "windows": windows})
    assert answer.status_code == 400 and "more than 100000 windows" in answer.text


def test_rows_one_by_one_and_in_files(address, root, tmp_path):
    net = Dataset("net", address, client="anna")
    _, data = net.get_data_changes()
    expected = pl.concat([pl.read_parquet(path) for path in sorted((root / "net").glob("*.parquet"))])
    items = list(data.data_fetcher)
    assert len(items) == expected.height == 3 * 42
    assert [item["station_id"] for item in items] == expected["station_id"].to_list()
    assert not any(isinstance(value, bytes) for value in items[0].values())
    for name in ("rows.json", "rows.csv", "rows.parquet"):
        data.save(tmp_path / "new" / name)
        with pytest.raises(FileExistsError):
            data.save(tmp_path / "new" / name)
        data.save(tmp_path / "new" / name, overwrite=True)
    assert pl.read_parquet(tmp_path / "new" / "rows.parquet").equals(expected)
    written = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert len(written) == 126 and written[0]["datetime"].startswith("2025-01-01T00:00:00")
    with (tmp_path / "new" / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 126 and rows[0].keys() == items[0].keys()
    with pytest.raises(ValueError, match=r"\.json or \.csv or \.parquet"):
        data.save(tmp_path / "rows.xlsx")


def test_windows_of_other_columns_are_put_together(address, root, tmp_path):
    write_window(root / "net", 1, flags=True, described=("station_id",))
    Dataset("net", address).get_data().save(tmp_path / "all.parquet")
    found = pl.read_parquet(tmp_path / "all.parquet")
    assert found.height == 126 and found["station_name"].null_count() == 42

    path = root / "net" / f"net_{NAMES[2]}.parquet"
    pq.write_table(
        pq.read_table(path).drop_columns("station_name").append_column("station_name", pa.array([1] * 42)), path
    )
    with pytest.raises(WindowsError, match=r"station_name.*; save the windows one by one"):
        Dataset("net", address).get_data().save(tmp_path / "all.parquet", overwrite=True)
    assert pl.read_parquet(tmp_path / "all.parquet").equals(found)


def test_a_time_is_asked_for(address):
    net = Dataset("net", address)
    assert list(net.get_data(START + HOUR, START + 2 * HOUR).windows) == NAMES[1:2]
    assert list(net.get_data(end_datetime=START + HOUR / 2).windows) == NAMES[:1]
    with pytest.raises(ValueError, match="no time zone"):
        net.get_data(datetime(2025, 1, 1))
    assert [one.name for one in Dataset.get_models(address)] == ["net", "other"]


def test_its_twins_for_asyncio(address, root, tmp_path):
    async def run():
        [net, _] = await Dataset.aget_models(address, client="anna")
        events, data = await net.aget_data_changes()
        items = [item async for item in data.data_fetcher]
        await data.asave(tmp_path / "rows.json")
        await (await net.aget_data(START, START + HOUR)).asave(tmp_path / "hour.parquet")
        assert await akeep(net, tmp_path / "copy") == len(events) == 3
        await net.aconfirm(events)
        return items

    assert asyncio.run(run()) == list(Dataset("net", address).get_data().data_fetcher)
    assert contents(tmp_path / "copy") == contents(root / "net")
    assert (tmp_path / "hour.parquet").read_bytes() == contents(root / "net")[f"{NAMES[0]}.parquet"]
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 126


def test_a_copy_is_kept_true_over_random_corrections(address, root, tmp_path):
    """Windows come, change and go while they are followed; somebody dies now and then before confirming."""
    chance = random.Random(7)
    net = Dataset("net", address, client="anna")
    copy = tmp_path / "copy"
    for step in range(100):
        hour = chance.randrange(6)
        if chance.random() < 0.2:
            (root / "net" / f"net_{START + hour * HOUR:%Y%m%dT%H%M%S}_PT1H.parquet").unlink(missing_ok=True)
        else:
            write_window(root / "net", hour, add=step / 10)
        if chance.random() < 0.3:
            events, _ = net.get_data_changes()
            for event in events[: len(events) // 2]:
                if not event.is_removed:
                    event.get_data().save(copy / f"{event.window}.parquet", overwrite=True)
        if chance.random() < 0.3:
            keep(net, copy)
            assert contents(copy) == contents(root / "net")
    keep(net, copy)
    assert contents(copy) == contents(root / "net") and keep(net, copy) == 0


def test_a_bucket_is_followed(s3, tmp_path, monkeypatch):
    """S3 tells times in seconds, so that what was written just now is told a little later."""
    bucket = s3.bucket("followed").removeprefix("s3://")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    address = s3.endpoint.partition("//")[2]
    place = f"s3://{bucket}/pygeoapi?scheme=http&endpoint_override={address}&region={s3.region}"
    files, _ = fs.FileSystem.from_uri(place)
    net = Dataset("net", place, client="anna")
    for hour in range(2):
        path = write_window(tmp_path / "net", hour)
        with files.open_output_stream(f"{bucket}/pygeoapi/net/{path.name}") as out:
            out.write(path.read_bytes())
    monkeypatch.setattr("ionbeam_client.windows.places.SETTLED", HOUR)
    assert net.get_data_changes()[0] == []
    monkeypatch.setattr("ionbeam_client.windows.places.SETTLED", timedelta(days=-1))
    assert keep(net, tmp_path / "copy") == 2 and contents(tmp_path / "copy") == contents(tmp_path / "net")
    assert keep(net, tmp_path / "copy") == 0
    files.delete_file(f"{bucket}/pygeoapi/net/{path.name}")
    assert keep(net, tmp_path / "copy") == 1 and len(contents(tmp_path / "copy")) == 1


def test_what_cannot_be_is_refused(address, root):
    with pytest.raises(WindowsError, match="nowhere"):
        Dataset("nowhere", address, client="anna").get_data_changes()
    for name in ("../anna", ".anna", "", "a" * 65, "a/b"):
        with pytest.raises(ValueError, match="no name of a client"):
            Dataset("net", address, client=name)
    with pytest.raises(ValueError, match="no name of a client"):
        Dataset("net", address).get_data_changes()
    [event, *_] = Dataset("net", address, client="anna").get_data_changes()[0]
    (root / "net" / f"net_{event.window}.parquet").unlink()
    assert list(event.get_data().data_fetcher) == [], "it is gone, as the next look tells"


def test_a_damaged_confirmation_counts_as_none_and_stops_nobody(address, root):
    for client in ("anna", "berta"):
        Dataset("net", address, client=client).get_data_changes()[0][0].confirm_data_received()
    for damage in ("", '{"windows": 3, "at": "x"}'):
        (root / ".confirmed" / "net" / "anna.json").write_text(damage)
        net = Dataset("net", address, client="anna")
        assert len(net.get_data_changes()[0]) == 3
        Dataset("net", address, client="berta").get_data_changes()[0][-1].confirm_data_received()
    net.confirm(net.get_data_changes()[0])
    assert net.get_data_changes()[0] == []
    assert {path.name for path in (root / ".confirmed" / "net").iterdir()} == {"anna.json", "berta.json"}


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_what_is_gone_replaces_no_file(ending, address, root, tmp_path):
    [event, *_] = Dataset("net", address, client="anna").get_data_changes()[0]
    copy = tmp_path / f"copy.{ending}"
    event.get_data().save(copy)
    before = copy.read_bytes()
    (root / "net" / f"net_{event.window}.parquet").unlink()
    with pytest.raises(WindowsError, match="is gone"):
        event.get_data().save(copy, overwrite=True)
    with pytest.raises(WindowsError, match="is gone"):
        asyncio.run(DataAsync(place_of(address), "net", [event.window]).asave(copy, overwrite=True))
    assert copy.read_bytes() == before and list(tmp_path.iterdir()) == [copy]


def test_what_is_left_is_saved_and_no_windows_at_all_are_no_rows(address, root, tmp_path):
    data = Dataset("net", address).get_data()
    (root / "net" / f"net_{NAMES[0]}.parquet").unlink()
    for ending in ("parquet", "csv", "json"):
        data.save(tmp_path / f"rows.{ending}")
    assert pl.read_parquet(tmp_path / "rows.parquet").height == 84 == pl.read_csv(tmp_path / "rows.csv").height
    none = Dataset("net", address).get_data(start_datetime=START + 99 * HOUR)
    none.save(tmp_path / "rows.json", overwrite=True)
    assert json.loads((tmp_path / "rows.json").read_text()) == []
    with pytest.raises(WindowsError, match="net: there is no window whose columns a Parquet file could have"):
        none.save(tmp_path / "rows.parquet", overwrite=True)
    assert pl.read_parquet(tmp_path / "rows.parquet").height == 84


def test_endings_may_be_in_capitals_and_of_the_file_that_a_link_leads_to(address, root, tmp_path):
    data = Dataset("net", address).get_data(end_datetime=START + HOUR)
    (tmp_path / "link.json").symlink_to(tmp_path / "copy.PARQUET")
    for name in ("copy.PARQUET", "link.json"):
        data.save(tmp_path / name, overwrite=True)
        assert (tmp_path / "copy.PARQUET").read_bytes() == contents(root / "net")[f"{NAMES[0]}.parquet"]
    for name in ("rows.CSV", "rows.Json"):
        data.save(tmp_path / name)
    assert len(json.loads((tmp_path / "rows.Json").read_text())) == 42 == pl.read_csv(tmp_path / "rows.CSV").height


@pytest.mark.parametrize("body", [b"<h1>404</h1>", b'{"message": "no route"}', b"null"])
def test_a_404_of_a_proxy_is_no_window_that_is_gone(body, monkeypatch):
    from ionbeam_dagster.testing.service import Reply, Service

    class Proxy(Service):
        def answer(self, request):
            return Reply(body, 404)

    monkeypatch.setattr("ionbeam_client.windows.places.FIRST_PAUSE", 0)
    for asked in (
        lambda place: list(Data(place, "net", NAMES[:1]).data_fetcher),
        lambda place: place.changes("net", "a"),
    ):
        with Proxy() as proxy, pytest.raises(WindowsError, match="404") as told:
            asked(place_of(proxy.url))
        assert told.value.may_pass and len(proxy.seen) == 5


@pytest.mark.parametrize("how", ["page", "empty", "half", "flipped"])
def test_what_is_not_the_window_replaces_no_file_and_is_not_confirmed(how, serving, root, tmp_path, monkeypatch):
    """A proxy that answers for the service, with status 200 and a length that fits."""
    from ionbeam_dagster.testing.service import Reply, Service

    class Proxy(Service):
        honest = True

        def answer(self, request):
            asked = httpx.request(
                request.method, f"{serving.url}{request.path}", params=request.query, content=request.body
            )
            body, kept = asked.content, {k: v for k, v in asked.headers.items() if k == "repr-digest"}
            if "/windows/" in request.path and not self.honest:
                flipped = body[:1000] + bytes(255 - one for one in body[1000:1002]) + body[1002:]
                page = b"<html>log in</html>"
                body = {"page": page, "empty": b"", "half": body[: len(body) // 2], "flipped": flipped}[how]
            return Reply(body, asked.status_code, headers=kept)

    monkeypatch.setattr("ionbeam_client.windows.places.FIRST_PAUSE", 0)
    with Proxy() as proxy:
        net = Dataset("net", proxy.url, client="anna")
        assert keep(net, tmp_path) == 3
        before = contents(tmp_path)
        write_window(root / "net", 1, add=2.0)
        proxy.honest = False
        with pytest.raises(WindowsError, match=r"SHA-256|Parquet") as told:
            keep(net, tmp_path)
        assert told.value.may_pass and contents(tmp_path) == before
        proxy.honest = True
        assert keep(net, tmp_path) == 1 and contents(tmp_path) == contents(root / "net")


def test_half_a_file_of_a_folder_replaces_none(root, tmp_path):
    net = Dataset("net", str(root), client="anna")
    path = root / "net" / f"net_{NAMES[1]}.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WindowsError, match=r"no whole Parquet file"):
        keep(net, tmp_path)
    assert [event.window for event in net.get_data_changes()[0]] == NAMES[1:]


def test_a_window_that_was_damaged_where_it_lies_replaces_none_and_holds_up_no_other(address, root, tmp_path, program):
    program()
    before = contents(tmp_path / "copy")
    for hour in range(3):
        write_window(root / "net", hour, add=2.0)
    path = root / "net" / f"net_{NAMES[0]}.parquet"
    whole = path.read_bytes()
    metadata = pq.read_metadata(path)
    chance = random.Random(3)
    for number in range(8):
        column = metadata.row_group(0).column(chance.randrange(metadata.num_columns))
        last = column.data_page_offset + column.total_compressed_size - 1
        at = min(last, metadata.row_group(0).column(0).total_compressed_size) if number == 0 else last
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        said = program()
        assert f"{NAMES[0]}" in said and "damaged where it lies" in said
        found = contents(tmp_path / "copy")
        assert found.pop(path.name.removeprefix("net_")) == before[path.name.removeprefix("net_")]
        assert found.items() <= contents(root / "net").items() and len(found) == 2
        assert [one.window for one in Dataset("net", address, client="anna").get_data_changes()[0]] == NAMES[:1]
    path.write_bytes(whole)
    assert program() == "" and contents(tmp_path / "copy") == contents(root / "net")


def test_a_folder_that_is_damaged_or_none_is_an_error_of_windows(root, tmp_path):
    path = root / "net" / f"net_{NAMES[1]}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])  # its footer is as it was
    with pytest.raises(WindowsError, match=rf"{NAMES[1]}.*: damaged where it lies"):
        list(Dataset("net", str(root)).get_data().data_fetcher)
    with pytest.raises(WindowsError, match="nowhere://there: there is no such folder"):
        Dataset("net", "nowhere://there", client="anna").get_data_changes()


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"changes": 7}', b'{"changes": [{"window": "x"}]}'])
def test_an_answer_of_another_shape_is_an_error_of_windows(body):
    from ionbeam_dagster.testing.service import Reply, Service

    class Other(Service):
        def answer(self, request):
            return Reply(body)

    with Other() as other:
        with pytest.raises(WindowsError, match="does not answer as"):
            Dataset("net", other.url, client="anna").get_data_changes()
        with pytest.raises(WindowsError, match="does not answer as"):
            Dataset.get_models(other.url)


def test_a_name_that_is_no_window_holds_up_no_other(caplog):
    from ionbeam_dagster.testing.service import Reply, Service

    class Odd(Service):
        def answer(self, request):
            told = [{"window": name, "version": "1-1", "kind": "new"} for name in ("../../evil", *NAMES)]
            return Reply(json.dumps({"changes": told}).encode())

    with Odd() as odd:
        assert [one.window for one in Dataset("net", odd.url, client="anna").get_data_changes()[0]] == NAMES
    assert "evil" in caplog.text and "left out" in caplog.text


def test_the_service_refuses_what_nobody_means(serving, root, monkeypatch):
    changes, window = f"{serving.url}/collections/net/changes", f"{serving.url}/collections/net/windows"
    for body in (b"", b"[]", b"{}", b'{"client": "../a", "windows": {}}', b'{"client": "a", "windows": {"x": "1"}}',
                 b'{"client": "a", "windows": {"20250101T000000_PT1H": 7}}',
                 b'{"client": "a", "windows": 7}'):  # fmt: skip
        answer = httpx.post(changes, content=body)
        assert answer.status_code == 400, (body, answer.text)
    assert httpx.get(changes, params={"client": "../a"}).status_code == 400
    assert httpx.put(changes).status_code == 405
    for name in ("..%2f..%2fionbeam.yaml", "20250101T000000_PT1H.parquet", "20990101T000000_PT1H", "x"):
        assert httpx.get(f"{window}/{name}").status_code == 404
    assert httpx.get(f"{window}/{NAMES[0]}").headers["content-type"] == "application/vnd.apache.parquet"
    assert not list(root.glob(".confirmed/**/*.json"))


def test_a_service_that_is_away_is_an_error(monkeypatch):
    monkeypatch.setattr("ionbeam_client.windows.places.FIRST_PAUSE", 0)
    with pytest.raises(WindowsError, match="ConnectError") as told:
        Dataset("net", "http://127.0.0.1:9", client="anna").get_data_changes()
    assert told.value.may_pass


@pytest.fixture
def most_bytes():
    """Sets how large a file may become that this process writes; the system refuses what is more, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda number: resource.setrlimit(resource.RLIMIT_FSIZE, (number, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_save_leaves_what_was_there_and_names_what_cannot_be_written(address, tmp_path, most_bytes):
    net = Dataset("net", address)
    net.get_data().save(tmp_path / "rows.json")
    before = (tmp_path / "rows.json").read_bytes()
    for most, which in ((1000, r"ionbeam-windows-.*\.parquet"), (len(before) - 1000, r"rows\.json")):
        most_bytes(most)
        with pytest.raises(WindowsError, match=rf"{which}: cannot be written .*; what was there before stays"):
            net.get_data().save(tmp_path / "rows.json", overwrite=True)
    most_bytes(1000)
    with pytest.raises(WindowsError, match=r"ionbeam-windows-.*: cannot be written"):
        net.get_data().save(tmp_path / "rows.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]
    assert (tmp_path / "rows.json").read_bytes() == before


def test_no_folder_for_temporary_files_is_an_error_of_windows(root, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(WindowsError, match="temporary files: cannot be written"):
        list(Dataset("net", str(root)).get_data().data_fetcher)


def test_the_operator_sees_who_has_what(serving, root, monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, str(serving.yaml))
    events, _ = Dataset("net", serving.url, client="anna").get_data_changes()
    events[0].confirm_data_received()
    berta = Dataset("net", str(root), client="berta")
    berta.confirm(berta.get_data_changes()[0])
    done = CliRunner().invoke(app, ["export", "clients"])
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if "anna" in line or "berta" in line]
    assert [[word for word in row if word != "│"][:4] for row in rows] == [
        ["net", "anna", "1", "2"], ["net", "berta", "3", "0"],
    ]  # fmt: skip
    assert f"{datetime.now(UTC):%Y-%m-%d}" in done.output


def test_it_imports_without_the_platform_and_the_broker(tmp_path):
    program = "import sys, ionbeam_client.windows; print(sorted({'aio_pika', 'polars', 'dagster'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() == "[]", done.stderr
