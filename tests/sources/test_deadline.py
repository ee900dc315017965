"""A deadline ends what is asked of a service over HTTP, whatever the service does with the connection."""

import socket
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from ionbeam_dagster.errors import DeadlineExceeded
from ionbeam_dagster.sources.deadline import remaining, within
from ionbeam_dagster.sources.http import HttpClient
from ionbeam_dagster.testing.service import Reply, Service, status

SHORT = timedelta(seconds=0.4)


@contextmanager
def served(answer):
    """A server that does `answer(connection)` with each connection, until the test ends."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        over = threading.Event()

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection, over), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()


def silent(connection, over):
    with connection:
        over.wait(30)


def a_byte_now_and_then(connection, over):
    with connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not over.wait(0.05):
            try:
                connection.sendall(b"x")
            except OSError:
                return


@pytest.mark.parametrize("answer", [silent, a_byte_now_and_then])
def test_a_request_ends_with_the_deadline(answer, tmp_path):
    with served(answer) as url:
        client = HttpClient(url, timeout=20, retries=5)
        with within(SHORT), pytest.raises(DeadlineExceeded, match=r"/a.*(not answered|too late)"):
            client.get("/a")
        with within(SHORT), pytest.raises(DeadlineExceeded), client.stream("/a") as pieces:
            list(pieces)
        with within(SHORT), pytest.raises(DeadlineExceeded):
            client.download("/a", tmp_path / "a")
        with within(SHORT), pytest.raises(DeadlineExceeded):
            list(client.side_by_side(range(12), lambda number: client.get(f"/{number}")))


class Busy(Service):
    def answer(self, request):
        return Reply(b"1")


def test_a_wait_that_is_too_long_is_not_begun():
    with Busy() as service:
        service.break_("/a", status(503, retry_after="120"))
        with within(timedelta(seconds=30)), pytest.raises(DeadlineExceeded, match=r"503.*in 120 s, would be too late"):
            HttpClient(service.url).get("/a")
        assert HttpClient(service.url).get("/a").content == b"1"


def test_the_sooner_of_two_deadlines_holds_and_none_outside():
    assert remaining("a") is None
    with within(timedelta(hours=1)):
        with within(SHORT), within(timedelta(hours=2)):
            assert remaining("a") < 1
            time.sleep(0.5)
            with pytest.raises(DeadlineExceeded, match=r"^a: not answered"):
                remaining("a")
        assert remaining("a") > 3000
    assert remaining("a") is None
