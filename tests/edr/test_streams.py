"""Large answers in pieces: the same bytes, in little memory, and never in the way of small ones."""

import gzip
import threading
import time
import tracemalloc
from types import SimpleNamespace

import httpx
import orjson
import pytest
from serving import Serving
from windows import PLACES, service_of, write_window

from ionbeam_dagster.edr import map_page, search, server, streams
from ionbeam_dagster.edr import service as service_module
from ionbeam_dagster.edr.configuration import Served, update
from ionbeam_dagster.edr.lane import Busy, Lane, Turn

WORLD = "-180,-90,180,90"


def whole_and_streamed(monkeypatch, service, kind, id=None, **given):
    monkeypatch.setattr(service_module, "LARGE", 1 << 30)
    whole = service.answer("net", kind, id, given)
    monkeypatch.setattr(service_module, "LARGE", 0)
    pieces = service.answer("net", kind, id, given)
    assert whole.status == pieces.status == 200 and whole.headers == pieces.headers
    assert isinstance(whole.body, bytes) and not isinstance(pieces.body, bytes)
    body = b"".join(pieces.body)
    pieces.end()
    return whole.body, body


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
@pytest.mark.parametrize("move", [0.0, 0.001])
def test_pieces_are_the_bytes_of_the_whole(tmp_path, monkeypatch, rows_at_once, move):
    monkeypatch.setattr(streams, "ROWS_AT_ONCE", rows_at_once)
    for hour in range(2):
        write_window(tmp_path / "net", hour, flags=True, move=move * hour)
    (tmp_path / "net" / "net_20250101T020000_PT1H.parquet").write_bytes(b"damaged")
    service = service_of(tmp_path / "net")
    for form in ("CSV", "GeoJSON", "CoverageJSON"):
        for more in (
            {},
            {"crs": "EPSG:4326", "bbox": "-90,-180,90,180"},
            {"limit": "30"},
            {"parameter-name": "wind_speed:*"},
        ):
            whole, pieces = whole_and_streamed(monkeypatch, service, "cube", **{"bbox": WORLD, "f": form, **more})
            assert pieces == whole, (form, more)
    for kind, id, given in (("items", None, {"limit": "40"}), ("items", None, {"f": "CSV"}), ("locations", "s1", {})):
        whole, pieces = whole_and_streamed(monkeypatch, service, kind, id, **given)
        assert pieces == whole, kind


def test_one_piece_is_in_memory_at_a_time(tmp_path):
    write_window(tmp_path / "net", 0, places=PLACES * 200, times=30)
    service = service_of(tmp_path / "net")
    for form in ("GeoJSON", "CSV", "CoverageJSON"):
        reply = service.answer("net", "cube", None, {"bbox": WORLD, "f": form})
        tracemalloc.start()
        size = sum(map(len, reply.body))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        reply.end()
        assert size > 2_000_000 and most < 0.7 * size, (form, size, most)


def test_a_lane_has_so_many_places_and_no_endless_queue():
    lane = Lane(places=1, waiting=1, patience=5)
    first, second = Turn(lane), Turn(lane)
    first.take()
    first.take()  # it has its place already
    waiting = threading.Thread(target=second.take)
    waiting.start()
    deadline = time.monotonic() + 5
    while lane._waiting._value:
        assert waiting.is_alive() and time.monotonic() < deadline
        time.sleep(0.001)
    with pytest.raises(Busy):
        Turn(lane).take()
    first.end()
    first.end()
    waiting.join(5)
    assert not waiting.is_alive()
    second.end()
    with pytest.raises(Busy):
        impatient = Lane(places=1, waiting=1, patience=0.01)
        Turn(impatient).take()
        Turn(impatient).take()


def test_who_finds_no_place_is_told_when_to_come_again(tmp_path, monkeypatch):
    write_window(tmp_path / "net", 0)
    service = service_of(tmp_path / "net")
    for module in (service_module, search):
        monkeypatch.setattr(module, "LARGE", 10)
    service._lane = Lane(places=1, waiting=1, patience=0.01)
    asked = {"bbox": WORLD, "f": "CSV"}
    first = service.answer("net", "cube", None, asked)
    busy = service.answer("net", "cube", None, asked)
    assert busy.status == 503 and busy.headers["Retry-After"] == "5" and b"ask again in a moment" in busy.body
    assert service.answer("net", "position", None, {"coords": "POINT(5 52)"}).status == 200  # a small one has its way
    first.end()
    for _ in range(3):  # also one that fails gives its place back
        service.answer("net", "cube", None, asked).end()
        assert service.answer("net", "cube", None, asked | {"f": "x"}).status == 400


def test_a_change_of_the_configuration_brings_no_further_places(tmp_path, monkeypatch):
    monkeypatch.setattr(Lane.__init__, "__defaults__", (1, 1, 0.01))
    monkeypatch.setattr(server, "LOOKED_EVERY", -1.0)
    for module in (service_module, search):
        monkeypatch.setattr(module, "LARGE", 10)
    path, asked = tmp_path / "config.yml", {"bbox": WORLD, "f": "CSV"}

    def exported(hour):
        write_window(tmp_path / "net", hour)
        update(path, tmp_path, [Served("net", tmp_path / "net")])

    exported(0)
    current = server._Current(path, None, SimpleNamespace())
    before = current()
    first = before.answer("net", "cube", None, asked)
    exported(1)
    assert current() is not before
    assert current().answer("net", "cube", None, asked).status == 503
    first.end()
    second = current().answer("net", "cube", None, asked)
    assert second.status == 200
    second.end()


def test_the_map_is_in_the_lane_too(tmp_path, monkeypatch):
    write_window(tmp_path / "net", 0)
    monkeypatch.setattr(Lane.__init__, "__defaults__", (1, 1, 0.01))
    service = service_of(tmp_path / "net")
    for module in (service_module, search):
        monkeypatch.setattr(module, "LARGE", 10)
    for _ in range(2):  # it gives its own place back
        assert map_page.stations(service, {}).status == 200
    first = service.answer("net", "cube", None, {"bbox": WORLD, "f": "CSV"})
    busy = map_page.stations(service, {})
    assert busy.status == 503 and busy.headers["Retry-After"] == "5"
    first.end()
    assert map_page.stations(service, {}).status == 200


def test_large_answers_are_streamed_over_http(tmp_path):
    serving = Serving(tmp_path, ["net"])
    write_window(serving.windows / "net", 0, places=PLACES * 200)
    with serving:
        url = f"{serving.url}/collections/net/cube?bbox={WORLD}&f=GeoJSON"
        plain = httpx.get(url, headers={"Accept-Encoding": "gzip;q=0, identity"})
        assert "content-encoding" not in plain.headers and plain.headers["transfer-encoding"] == "chunked"
        assert len(orjson.loads(plain.content)["features"]) == 200 * 6 * len(PLACES)
        for _ in range(8):  # more than there are places: each gives its own back
            assert httpx.head(url, timeout=30).status_code == 200
        with httpx.stream("GET", url) as packed:
            raw = b"".join(packed.iter_raw())
        assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(raw) == plain.content
        for _ in range(4):  # who hangs up gives its place back, too
            with httpx.stream("GET", url) as begun:
                next(begun.iter_raw())
        assert httpx.get(url, timeout=30).status_code == 200
