"""Where datasets are opened: what is found there, what becomes of windows meanwhile, and what errors teach."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
import tomllib
from functools import partial
from pathlib import Path

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from windows import HOUR, START, write_window

from ionbeam_client import OpenError, OpenWarning, open_dataset, provenance
from ionbeam_client.opening import rows, service
from ionbeam_client.opening.places import FileWindows, windows_at

TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
CLIENT = Path(__file__).parents[2] / "ionbeam_client"


@pytest.fixture
def folder(tmp_path):
    for hour in range(3):
        write_window(tmp_path / "net", hour)
    return tmp_path / "net"


def temperatures(where, **asked) -> list[float]:
    return open_dataset(where, **asked).sort("datetime", "station_id").collect()[TEMPERATURE].to_list()


def test_the_newest_revision_of_each_window_is_read_and_copies_are_known(folder, tmp_path):
    before, own = temperatures(folder), tmp_path / "own" / "net"
    own.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        for revision in (2, 10):
            table = pq.read_table(file).drop(["id", "geometry", "bbox"])
            if revision == 2:
                table = table.slice(3)
            pq.write_table(table, own / f"{file.stem}_r{revision}.parquet")
        shutil.copy(file, tmp_path / f"2025010{number + 1}T000000_PT1H.parquet")
    assert temperatures(own) == before == temperatures(tmp_path / "own"), "the only dataset need not be named"
    assert len(open_dataset(tmp_path).collect()) == len(before), "files that are named by their windows alone"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"variables": "air_temprature"}, "no variable 'air_temprature'; near are air_temperature"),
        ({"variables": ["x"]}, "there are air_temperature, precipitation_amount, wind_speed"),
        ({"bbox": (6, 52, 5)}, "not .west, south, east, north. in degrees; right would be"),
        ({"bbox": (4, 95, 5, 96)}, "not .west, south, east, north. in degrees"),
        ({"time": "yesterday"}, "is no time; right would be '2022-12-31'"),
        ({"time": START.replace(tzinfo=None)}, "has no time zone"),
        ({"time": ("2025-01-02", "2025-01-01")}, "ends before it begins"),
        ({"quality": "best"}, "right would be 'good'"),
        ({"as_": "spark"}, "right would be polars, pandas, xarray, arrow, duckdb"),
    ],
)
def test_questions_that_make_no_sense_are_told_what_would(folder, asked, told):
    with pytest.raises(OpenError, match=told):
        open_dataset(folder, **asked)


def test_places_that_are_none_are_told_what_would_be_right(serving, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbeam_client.windows.places.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("ionbeam_client.windows.places.LONGEST_PAUSE", 0.01)
    (tmp_path / "empty").mkdir()
    write_window(tmp_path / "many" / "a", 0)
    write_window(tmp_path / "many" / "b", 0)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "empty"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{other.server_port}"
        for where, told in [
            (tmp_path / "none", "there is no such folder; right would be"),
            (tmp_path / "empty", "has no windows, which are called"),
            (tmp_path / "many", "name the one of a dataset: a, b"),
            ("gopher://x/y", "cannot be opened .*right would be"),
            (address, "is no `ionbeam serve`, or it is away"),
            (f"{address}/collections/net", "is no `ionbeam serve`, or it is away"),
            ("http://127.0.0.1:9/collections/net", "is no `ionbeam serve`, or it is away"),
            (f"{serving.url}/collections/nut", "there is no dataset 'nut'; there are net"),
        ]:
            with pytest.raises(OpenError, match=told):
                open_dataset(where)
        other.shutdown()
    assert open_dataset(serving.url).collect().height > 0, "the only dataset of a service need not be named"
    shutil.copy(next(folder.iterdir()), folder / "other_20250102T000000_PT1H.parquet")
    with pytest.raises(OpenError, match="windows of several datasets, net, other"):
        open_dataset(folder)


def test_a_folder_of_other_files_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "net_20250101T000000_PT1H.parquet")
    with pytest.raises(OpenError, match="lack datetime, lat, lon: they are no windows"):
        open_dataset(tmp_path)


@pytest.fixture(params=["service", "folder"])
def changing(request, serving):
    """A window of the last hours, which the test may do with as it likes; where to open it, and its file."""
    file = write_window(serving.windows / "net", 20)
    yield (f"{serving.url}/collections/net" if request.param == "service" else str(serving.windows)), file
    file.unlink(missing_ok=True)


def test_a_window_that_goes_before_it_is_read_is_left_out_and_told(changing):
    where, file = changing
    frame = open_dataset(where, time=(START + 19 * HOUR, None))
    assert frame.collect().height == 42
    file.unlink()
    with pytest.warns(OpenWarning, match="20250101T200000_PT1H is gone"):
        assert frame.collect().height == 0


def test_a_window_that_is_replaced_is_read_as_it_is_now(changing):
    where, file = changing
    frame = open_dataset(where, time=(START + 19 * HOUR, None), stations="s1")
    write_window(file.parent, 20, add=50.0)
    assert frame.collect()[TEMPERATURE].to_list() == [51.2] * 6


def test_a_window_that_is_replaced_while_its_parts_are_fetched_is_of_one_version(serving, monkeypatch):
    """Only its footer is at hand after the first request; the second finds another file."""
    file = write_window(serving.windows / "net", 20)
    monkeypatch.setattr(service, "TAIL", pq.read_metadata(file).serialized_size + 8)
    read, replaced = service._Remote.read, []

    def replacing(self, size=-1):
        if self._at < self._held_from and not replaced:
            replaced.append(write_window(file.parent, 20, add=50.0))
        return read(self, size)

    monkeypatch.setattr(service._Remote, "read", replacing)
    try:
        found = open_dataset(f"{serving.url}/collections/net", time=(START + 19 * HOUR, None), stations="s1").collect()
        assert replaced and found[TEMPERATURE].to_list() == [51.2] * 6
    finally:
        file.unlink()


def test_a_damaged_window_is_left_out_and_told(changing):
    where, file = changing
    data = bytearray(file.read_bytes())
    at = pq.read_metadata(file).row_group(0).column(5).data_page_offset
    frame = open_dataset(where, time=(START + 18 * HOUR, None))
    data[at + 60 : at + 200] = bytes(140)
    file.write_bytes(data)
    with pytest.warns(OpenWarning, match="20250101T200000_PT1H is damaged where it lies"):
        assert frame.collect().height == 0
    file.write_bytes(b"PAR1")
    with pytest.warns(OpenWarning, match="20250101T200000_PT1H is damaged where it lies"):
        assert open_dataset(where, time=(START, None), stations="s1", variables=TEMPERATURE).collect().height == 18


def test_a_large_window_is_read_in_parts(folder, monkeypatch):
    before = open_dataset(folder, as_="arrow")
    for file in folder.iterdir():
        pq.write_table(pq.read_table(file), file, row_group_size=5)
    monkeypatch.setattr(rows, "ROWS_IN_PART", 10)
    parts = []
    read = rows.Reading._read
    monkeypatch.setattr(rows.Reading, "_read", lambda *of: parts.append(read(*of)) or parts[-1])
    assert open_dataset(folder, as_="arrow").equals(before) and max(map(len, parts)) == 10 and len(parts) == 15
    parts.clear()
    open_dataset(folder, stations="s3", as_="arrow")
    assert 0 < len(parts) < 15, "row groups that hold no such station are passed over"


def test_parts_of_a_windows_file_over_http(serving):
    file = write_window(serving.windows / "net", 21)
    data, url = file.read_bytes(), f"{serving.url}/collections/net/windows/20250101T210000_PT1H"
    try:
        whole = httpx.get(url)
        assert whole.content == data and whole.headers["Accept-Ranges"] == "bytes" and "Repr-Digest" in whole.headers
        tag = whole.headers["ETag"]
        for asked, part in [("0-9", data[:10]), ("-9", data[-9:]), ("100-", data[100:]), ("-99999999", data)]:
            got = httpx.get(url, headers={"Range": f"bytes={asked}", "If-Match": tag})
            assert (
                got.content == part and got.status_code == (200 if part == data else 206) and got.headers["ETag"] == tag
            )
        assert httpx.get(url, headers={"Range": "bytes=0-9", "If-Match": '"other"'}).status_code == 412
        assert httpx.get(url, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
        assert httpx.head(url).headers["Content-Length"] == str(len(data))
    finally:
        file.unlink()


def test_less_travels_than_the_files_have(serving, monkeypatch):
    """Of a large window a question for one place needs the footer and some row groups."""
    path = write_window(serving.windows / "net", 22, places=[(n / 100, 50.0) for n in range(4000)], times=50)
    asked = []
    part = service.Service.part
    monkeypatch.setattr(service.Service, "part", lambda *of: asked.append(part(*of)) or asked[-1])
    monkeypatch.setattr(service, "TAIL", 1 << 17)
    try:
        size = path.stat().st_size
        table = open_dataset(
            serving.url,
            time=(START + 21 * HOUR, None),
            bbox=(0.065, 49, 0.075, 51),
            variables="wind_speed",
            as_="arrow",
        )
        ends = size - service.TAIL
        beside_footers = [len(one.data) for one in asked if one.start < ends]
        assert table.num_rows == 50 and 0 < sum(beside_footers) < size / 50
    finally:
        path.unlink()


class _Older(http.server.BaseHTTPRequestHandler):
    """A service that gives windows whole, as before there were parts."""

    def do_GET(self):
        got = httpx.get(f"{self.server.of}{self.path}")
        self.send_response(got.status_code)
        self.send_header("Content-Length", str(len(got.content)))
        self.end_headers()
        self.wfile.write(got.content)

    def log_message(self, *of):
        pass


def test_a_service_of_an_older_version_is_read_whole(serving):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Older) as older:
        older.of = serving.url
        threading.Thread(target=older.serve_forever, daemon=True).start()
        found = open_dataset(f"http://127.0.0.1:{older.server_port}/collections/net").collect()
        older.shutdown()
    assert found.equals(open_dataset(serving.windows).collect())


def test_s3_has_the_same_rows(s3, folder, monkeypatch, tmp_path):
    from ionbeam_dagster.stores.files import Files, S3Settings

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    bucket = s3.bucket("opened")
    for file in folder.iterdir():
        with Files(tmp_path / "drafts", S3Settings(**s3.section())).published(f"{bucket}/net/{file.name}") as draft:
            draft.write_bytes(file.read_bytes())
    where = f"{bucket}/net?scheme=http&endpoint_override={s3.endpoint.partition('//')[2]}&region={s3.region}"
    for asked in ({}, {"stations": "s1", "variables": "wind_speed"}, {"time": (START, START + HOUR)}):
        assert open_dataset(where, **asked).collect().equals(open_dataset(folder, **asked).collect())
    assert len(provenance(where).windows) == 3


def test_other_systems_faults_are_errors_and_no_windows_are_left_out(folder, monkeypatch):
    place = windows_at(str(folder))
    assert isinstance(place, FileWindows)

    def full(self, window):
        raise PermissionError(13, "Permission denied", window.file)

    monkeypatch.setattr(FileWindows, "opened", full)
    with pytest.raises(OpenError, match="Permission denied"):
        open_dataset(folder)


def test_importing_the_client_loads_nothing_heavy():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, ionbeam_client; print(*sorted(sys.modules))"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    heavy = {"polars", "pandas", "pyarrow", "numpy", "xarray", "duckdb", "httpx", "aio_pika", "pydantic", "tqdm"}
    assert not heavy & {*loaded}


def test_opening_a_folder_loads_only_the_library_of_its_form(folder):
    program = """
import sys
from ionbeam_client import open_dataset
open_dataset(sys.argv[1], as_="arrow")
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program, folder], check=True, capture_output=True, text=True)
    assert not {"polars", "xarray", "duckdb", "httpx", "tenacity"} & {*ran.stdout.split()}, "pandas comes with Arrow"


def test_a_library_that_is_not_there_is_told_with_its_extra(folder, monkeypatch):
    extras = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for form, extra in [("polars", "open"), ("pandas", "pandas"), ("xarray", "xarray"), ("duckdb", "duckdb")]:
        assert any(one.startswith(form) for one in extras[extra])
        with monkeypatch.context() as absent, pytest.raises(OpenError, match=rf"ionbeam-client\[{extra}\]"):
            absent.setitem(sys.modules, form, None)
            open_dataset(folder, as_=form)


def test_a_bar_is_for_terminals_alone(folder, capfd):
    open_dataset(folder, as_="arrow")
    assert capfd.readouterr() == ("", "")
    assert isinstance(open_dataset(folder), pl.LazyFrame)
