"""The server of the door and of the web service, with connections that never bring their request to an end."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import pytest
from waitress.channel import ClientDisconnected

from ionbeam_dagster import http_server
from ionbeam_dagster.http_server import HttpServer

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n"
HALVES = {"nothing": b"", "half a head": HEAD, "half a body": HEAD + b"\r\nweather"}


class Large:
    """An answer of more than the system and the server hold for who does not read it."""

    ended = 0

    def __iter__(self):
        return iter([b"x" * 1_000_000] * 60)

    def close(self):
        Large.ended += 1


def application(environ, start_response):
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", "60000000")])
        return Large()
    if environ["PATH_INFO"] == "/refused":
        got = environ["wsgi.input"].read()
        start_response("401 Unauthorized", [("Content-Length", "4")])
        return [b"none" if not got else b"some"]
    if environ["PATH_INFO"] == "/nothing":
        start_response("204 No Content", [])
        return []
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    if environ["PATH_INFO"] == "/made":
        start_response("200 OK", [("Content-Length", "15000000")])
        return [b"x" * 15_000_000]
    start_response("200 OK", [("Content-Length", "4")])
    return [b"good"]


def largest_body(environ):
    return 0 if environ["PATH_INFO"] == "/refused" else 1_000_000


@contextmanager
def serving():
    server, stop = HttpServer(application, "127.0.0.1", 0, 4, largest_body), threading.Event()

    def run():
        while not stop.is_set():
            server.turn(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close(5)


def connected(server):
    return socket.create_connection(("127.0.0.1", server.port), 20)


def answered(connection, path="/"):
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
def test_half_requests_take_no_place_of_an_honest_one(monkeypatch, half):
    monkeypatch.setattr(http_server, "_PLACES", 50)
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 3_600)
    with serving() as server, ExitStack() as open_ones:
        known = HTTPConnection("127.0.0.1", server.port, timeout=20)
        assert answered(known) == (200, b"good")
        slow = HTTPConnection("127.0.0.1", server.port, timeout=20)
        slow.request("GET", "/slow")
        time.sleep(0.2)  # its request is whole when the others come
        for _ in range(300):
            open_ones.enter_context(connected(server)).sendall(half)
        new = HTTPConnection("127.0.0.1", server.port, timeout=20)
        assert answered(new) == (200, b"good")
        same = known.sock
        assert answered(known) == (200, b"good") and known.sock is same  # who sent a whole one before keeps its place
        assert slow.getresponse().read() == b"good"


def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 1)
    with serving() as server, ExitStack() as open_ones:
        late = [open_ones.enter_context(connected(server)) for _ in range(2)]
        body = open_ones.enter_context(connected(server))
        body.sendall(HEAD + b"\r\nweather")
        known = HTTPConnection("127.0.0.1", server.port, timeout=20)
        assert answered(known) == (200, b"good")
        for number in range(40):  # one says nothing, the other a byte now and then
            time.sleep(0.1)
            try:
                late[1].sendall(HEAD[number : number + 1])
            except OSError:
                break
        assert [_closed(one) for one in late] == [True, True]
        body.sendall(b"x" * 493)
        assert body.recv(100).startswith(b"HTTP/1.1 200")
        same = known.sock
        assert answered(known) == (200, b"good") and known.sock is same


def test_who_stops_reading_an_answer_gives_its_thread_back(monkeypatch):
    monkeypatch.setattr(http_server, "_UNREAD_SECONDS", 2)
    monkeypatch.setattr(Large, "ended", 0)
    with serving() as server, ExitStack() as open_ones:
        reading = HTTPConnection("127.0.0.1", server.port, timeout=20)
        reading.request("GET", "/large")
        slowly = reading.getresponse()
        for _ in range(3):  # every thread but one
            open_ones.enter_context(connected(server)).sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        got, deadline = 0, time.monotonic() + 20
        while Large.ended < 3 and time.monotonic() < deadline:
            got += len(slowly.read(1_000_000))
            time.sleep(0.1)
        assert Large.ended == 3
        assert got + len(slowly.read()) == 60_000_000  # who reads slowly has all of it
        assert answered(HTTPConnection("127.0.0.1", server.port, timeout=20)) == (200, b"good")


def test_an_answer_that_was_made_and_is_not_read_is_not_kept(monkeypatch):
    monkeypatch.setattr(http_server, "_UNREAD_SECONDS", 1)
    monkeypatch.setattr(http_server, "_IDLE_SECONDS", 1)
    with serving() as server, ExitStack() as open_ones:
        open_ones.enter_context(connected(server)).sendall(b"GET /made HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 10
        while not (channels := _channels(server)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert channels
        while _channels(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _channels(server)


def _channels(server):
    return [one for one in list(server._sockets.values()) if isinstance(one, http_server._Channel)]


def _closed(connection):
    try:
        return connection.recv(10) == b""
    except ConnectionError:
        return True


def test_a_process_that_may_open_few_files_has_fewer_places(monkeypatch):
    import resource

    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, given[1]))
        assert http_server._places() == 1_000
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2_400
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, given)
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda of: (1_024, 1_024))
        patch.setattr(resource, "setrlimit", lambda of, limits: None)
        assert http_server._places() == 312


BODY = b"x" * 900_000
CHUNKED = b"".join(b"2710\r\n" + b"y" * 10_000 + b"\r\n" for _ in range(90)) + b"0\r\n\r\n"


@pytest.mark.parametrize("length", [b"Content-Length: 900000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_nobody_wants_is_not_kept_and_its_sender_sees_why(length, expects):
    """The answer comes while the body is sent, and whoever reads it only at the end has it, too."""
    body = BODY if length.startswith(b"Content") else CHUNKED
    with serving() as server, connected(server) as one:
        one.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\n" + expects + length + b"\r\n\r\n" + body[:20_000])
        wait_until(lambda: any(channel._left is not None for channel in _channels(server)))
        for begin in range(20_000, len(body), 20_000):
            one.sendall(body[begin : begin + 20_000])
        one.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: one.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 401 ") and answer.endswith(b"\r\n\r\nnone")
        assert b"100 Continue" not in answer and answer.count(b"HTTP/1.1") == 1
        assert b"Connection: close" in answer
        wait_until(lambda: not _channels(server))


def test_more_than_is_wanted_is_given_to_the_application_as_its_length_and_drained_to_a_bound(monkeypatch):
    monkeypatch.setattr(http_server, "_UNWANTED", 3_000_000)
    with serving() as server:
        for head in (b"Content-Length: 90000000", b"Transfer-Encoding: chunked"):
            with connected(server) as one, pytest.raises(OSError):
                one.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
                for _ in range(90):
                    one.sendall(b"2710\r\n" + b"y" * 10_000 + b"\r\n" if b"chunked" in head else BODY)
                for _ in range(1_000):
                    one.sendall(BODY)
        wait_until(lambda: not _channels(server))


def wait_until(done):
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_does_not_say_where_its_body_ends_is_refused_and_keeps_no_memory():
    with serving() as server:
        for head, more in (
            (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nlost\r\n0\r\n\r\n"),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"4;" + b"x" * 20_000),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n" + b"x" * 20_000),
        ):
            with connected(server) as one:
                one.sendall(head + more)
                assert one.recv(100).split()[1] == b"400"


def test_a_body_for_which_there_is_no_room_is_told_and_logged_once(monkeypatch, caplog):
    from waitress import buffers

    def no_room(*_):
        raise OSError(28, "No space left on device")

    with serving() as server:
        with monkeypatch.context() as patch:
            patch.setattr(buffers, "TempfileBasedBuffer", no_room)
            for _ in range(3):
                with connected(server) as one:
                    one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + BODY)
                    answer = one.recv(1_000)
                    assert answer.startswith(b"HTTP/1.1 503") and b"Retry-After: 10" in answer
        assert len([one for one in caplog.records if "cannot be kept" in one.getMessage()]) == 1
        with connected(server) as one:
            one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + BODY)
            assert one.recv(1_000).startswith(b"HTTP/1.1 200")


def test_a_connection_goes_on_after_an_answer_without_a_body():
    ask = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving() as server, connected(server) as one:
        one.sendall(3 * ask + ask.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        answer = b"".join(iter(lambda: one.recv(65_536), b""))
        assert answer.count(b"HTTP/1.1 204") == 4 and answer.count(b"Connection: close") == 1


def test_a_length_of_more_digits_than_python_reads_is_refused_and_told_to_no_log(caplog):
    with serving() as server, connected(server) as one:
        one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n")
        assert b" 400 " in one.recv(100)
    assert not caplog.records


def test_who_goes_before_the_answer_to_a_bad_head_is_no_fault(monkeypatch, caplog):
    served = threading.Event()

    class Gone(http_server._Channel):
        def service(self):
            self.connected = True
            self.write_soon = self._gone
            super().service()
            served.set()

        def _gone(self, data):
            raise ClientDisconnected

    monkeypatch.setattr(http_server._Server, "channel_class", Gone)
    with serving() as server, connected(server) as one:
        one.sendall(b"POST / HTTP/1.1\r\nno header\r\n\r\n")
        assert served.wait(20)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
