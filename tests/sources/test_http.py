"""The HTTP client against a service on the loopback interface, with its faults."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.http import Basic, Bearer, HttpClient, HttpError, Token
from ionbeam_dagster.testing.service import Reply, Service, empty, html, not_utf8, redirected, slow, status, truncated


class Numbers(Service):
    """Gives ``{"n": i}`` for ``/n/i``; with `key`, to those alone who log in."""

    key: str | None = None
    logins = 0
    refreshes = 0
    refresh_works = True

    def answer(self, request):
        if request.path == "/login":
            self.logins += 1
            self.key = f"key{self.logins}"
            return Reply.of_json({"token": self.key, "again": "more"})
        if request.path == "/refresh":
            self.refreshes += 1
            if not self.refresh_works:
                return Reply(b"no", 403)
            self.key = f"fresh{self.refreshes}"
            return Reply.of_json({"token": self.key, "again": "more"})
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return Reply(b"log in first", 401)
        if request.headers.get("if-none-match") == '"1"':
            return Reply(status=304, headers={"ETag": '"1"'})
        return Reply(b'{"n": %d}' % int(request.path.split("/")[-1]), headers={"ETag": '"1"'}, type="application/json")


@pytest.fixture
def numbers():
    with Numbers() as service:
        yield service


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waits between tries are counted rather than sat through."""
    waits = []
    monkeypatch.setattr("ionbeam_dagster.sources.http.client.time.sleep", waits.append)
    return waits


@pytest.mark.parametrize("fault", [status(500), status(429, retry_after="7"), truncated], ids=["500", "429", "cut"])
def test_what_passes_is_tried_again(numbers, quick, fault):
    numbers.break_("/n/1", fault, times=2)
    assert HttpClient(numbers.url, retries=2).get_json("/n/1") == {"n": 1}
    assert len(numbers.seen) == 3
    assert all(wait == 7 for wait in quick) or all(0.5 <= wait <= 2 for wait in quick)
    assert len(quick) == 2


def test_a_moment_to_wait_for_is_told_by_the_clock_of_the_service(numbers, quick):
    """Its clock is a day ahead of ours: it asks for seven seconds, not for a day."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    moments = [format_datetime(one, usegmt=True) for one in (tomorrow, tomorrow + timedelta(seconds=7))]
    numbers.break_("/n/1", status(429, date=moments[0], retry_after=moments[1]))
    assert HttpClient(numbers.url).get_json("/n/1") == {"n": 1}
    assert quick == [7.0]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (status(500), "500 Internal Server Error: not now (3 tries)"),
        (status(404), "404 Not Found: not now"),
        (status(429, retry_after="4000"), "429 Too Many Requests"),
        (truncated, "the answer broke off"),
        (slow(2), "no data within the time-out (3 tries)"),
        (empty, "the answer is empty"),
        (html, "is not JSON"),
        (not_utf8, "is not utf-8 text"),
        (lambda reply: Reply(b'{"n": 1', type="application/json"), 'but application/json: {"n": 1'),
        (lambda reply: Reply(b"xyz", headers={"Content-Encoding": "gzip"}), "not encoded as it claims"),
    ],
)
def test_what_stays_is_told_with_its_address_and_reason(numbers, fault, told):
    numbers.break_("/n/1", fault, times=99)
    with pytest.raises(SourceError) as failure:
        HttpClient(numbers.url, retries=2, timeout=0.3).get_json("/n/1")
    assert str(failure.value).startswith(f"{numbers.url}/n/1: ")
    assert told in str(failure.value)


def test_html_is_shown_as_what_it_is(numbers):
    numbers.break_("/n/1", html)
    with pytest.raises(HttpError, match=r"text/html: .*We are moving our servers"):
        HttpClient(numbers.url).get_json("/n/1")


def test_a_gzip_file_is_unpacked_or_refused(numbers):
    import gzip

    numbers.answer = lambda request: Reply(gzip.compress(b"a;b"))
    client = HttpClient(numbers.url)
    assert client.get("/x.csv.gz").text() == "a;b"
    numbers.break_("x.csv", html)
    with pytest.raises(HttpError, match=r"x.csv.gz: the answer is not a whole gzip file"):
        client.get("/x.csv.gz").text()


def test_an_answer_that_is_no_failure_is_one_when_asked_for(numbers):
    numbers.break_("/n/1", status(404))
    assert HttpClient(numbers.url).get("/n/1", allow=(404,)).status == 404


def test_a_dead_service_is_told():
    with pytest.raises(SourceError, match=r"http://127.0.0.1:9/x: no connection .*\(2 tries\)"):
        HttpClient("http://127.0.0.1:9", retries=1).get("x")


def bearer(service):
    def asked(client, path, **form):
        found = client.post(path, form=form, authorized=False).json()
        return Token(found["token"], found["again"])

    return Bearer(
        lambda client: asked(client, "/login", password="pa55word"),
        lambda client, refresh: asked(client, "/refresh", token=refresh),
        secrets=["pa55word"],
    )


@pytest.mark.parametrize("refresh_works", [True, False])
def test_a_token_that_expires_is_renewed_once_for_all_threads(numbers, refresh_works):
    numbers.key, numbers.refresh_works = "unknown", refresh_works
    client = HttpClient(numbers.url, credentials=bearer(numbers), concurrency=4)
    assert client.get_json("/n/1") == {"n": 1}
    numbers.key = "expired by the service"
    found = client.side_by_side(range(20), lambda i: client.get_json(f"/n/{i}"))
    assert list(found) == [(i, {"n": i}) for i in range(20)]
    assert (numbers.logins, numbers.refreshes) == ((1, 1) if refresh_works else (2, 1))


def test_a_token_that_is_always_refused_ends_it(numbers):
    numbers.break_("/n/", status(401), times=99)
    with pytest.raises(HttpError, match="401 Unauthorized; check the user name and the password") as failure:
        HttpClient(numbers.url, credentials=bearer(numbers)).get("/n/1")
    assert failure.value.status == 401
    assert len(numbers.paths("/n/")) == 2


def test_credentials_stay_home_and_out_of_what_is_told(numbers, caplog):
    caplog.set_level("DEBUG", logger="ionbeam_dagster")
    client = HttpClient(numbers.url, credentials=Basic("me", "pa55word"), retries=1)
    with Numbers() as other:
        numbers.break_("/n/1", redirected(f"{other.url}/n/7"))
        assert client.get_json("/n/1") == {"n": 7}
        assert "authorization" in numbers.seen[0].headers
        assert "authorization" not in other.seen[0].headers
        numbers.break_("/login", redirected(f"{other.url}/login"))
        with pytest.raises(HttpError, match=f"302 Found to {other.url}/login; check the address"):
            client.post("/login", form={"password": "pa55word"})
        assert other.paths("login") == []
    numbers.break_("", lambda reply: Reply(b"pa55word is wrong", 500), times=9)
    with pytest.raises(HttpError) as failure:
        client.get("/n/1", {"apikey": "s3cret", "day": "1"})
    assert "apikey=...&day=1: 500 Internal Server Error: ... is wrong" in str(failure.value)
    assert "pa55word" not in caplog.text + str(failure.value)
    assert "s3cret" not in caplog.text + str(failure.value)


def test_a_cache_asks_whether_it_changed_and_keeps_no_secret(numbers, tmp_path):
    for _ in range(2):
        client = HttpClient(numbers.url, credentials=Basic("me", "pa55word"), cache=tmp_path)
        assert client.get_json("/n/1") == {"n": 1}
        client.close()
    assert [request.headers.get("if-none-match") for request in numbers.seen] == [None, '"1"']
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"/n/1" in kept
    assert b"pa55word" not in kept
    assert numbers.seen[0].headers["authorization"].split()[1].encode() not in kept


def test_a_cache_keeps_no_truncated_answer(numbers, tmp_path):
    numbers.break_("/n/1", truncated)
    client = HttpClient(numbers.url, cache=tmp_path, retries=1)
    assert client.get_json("/n/1") == {"n": 1}
    assert "if-none-match" not in numbers.seen[1].headers


def test_a_stream_tells_that_it_broke_off(numbers):
    client = HttpClient(numbers.url, retries=0)
    with client.stream("/n/1") as pieces:
        assert b"".join(pieces) == b'{"n": 1}'
    numbers.break_("/n/1", truncated)
    with pytest.raises(HttpError, match="broke off"), client.stream("/n/1") as pieces:
        list(pieces)


def test_side_by_side_is_bounded_and_stops_at_the_first_error(numbers):
    at_once, most, begun = set(), [], []

    def work(i):
        begun.append(i)
        at_once.add(i)
        most.append(len(at_once))
        threading.Event().wait(0.002)
        at_once.discard(i)
        if i == 30:
            raise HttpError("thirty")
        return i

    client = HttpClient(numbers.url, concurrency=3)
    assert [item for item, _ in client.side_by_side(range(20), work)] == list(range(20))
    assert max(most) == 3
    begun.clear()
    with pytest.raises(HttpError, match="thirty"):
        list(client.side_by_side(range(1000), work))
    assert len(begun) < 60


def test_no_more_begin_than_a_second_allows(numbers, monkeypatch):
    monkeypatch.undo()
    client = HttpClient(numbers.url, per_second=20)
    begun = time.monotonic()
    assert len(list(client.side_by_side(range(5), lambda i: client.get(f"/n/{i}")))) == 5
    assert time.monotonic() - begun >= 4 / 20


def test_the_product_says_who_it_is(numbers):
    HttpClient(numbers.url).get("/n/1")
    assert numbers.seen[0].headers["user-agent"].startswith("ionbeam/")
