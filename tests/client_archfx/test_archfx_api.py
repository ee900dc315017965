"""The connection over real HTTP, with the faults of services: log-in, tokens, resources, pages, uploads, secrets."""

from __future__ import annotations

import logging
import math
import pickle
import signal
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime

import pytest
import requests
from archfx_service import EMAIL, PASSWORD, Service
from servers import free_port

from ionbeam_client.archfx.api.connection import Api
from ionbeam_client.archfx.api.exceptions import (
    HttpClientError,
    HttpConnectionError,
    HttpCouldNotVerifyServerError,
    HttpNotFoundError,
    HttpServerError,
    HttpTimeoutError,
    ImproperlyConfigured,
    RestBaseException,
    RestHttpBaseException,
)
from ionbeam_client.archfx.reports.exceptions import DataError
from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from ionbeam_client.archfx.reports.report import ArchFXDataPoint
from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug


@pytest.fixture
def api(service) -> Api:
    found = Api(service.domain, timeout=5)
    assert found.login(email=EMAIL, password=PASSWORD)
    service.asked.clear()
    return found


def report(*ids: int, device: int = 1) -> ArchFXFlexibleDictionaryReport:
    moment = datetime(2021, 1, 20, tzinfo=UTC)
    readings = [ArchFXDataPoint(moment, "0001-5090", 2.0, reading_id=number) for number in ids]
    return ArchFXFlexibleDictionaryReport.FromReadings(device, readings, sent_timestamp=moment)


def test_log_in_and_out(service):
    api = Api(service.domain)
    assert not api.login(email=EMAIL, password="wrong") and api.token is None
    assert api.login(email=EMAIL, password=PASSWORD)
    assert api.token in service.access and api.username == "user"
    api.org.get()
    assert service.asked[-1][2]["Authorization"] == f"jwt {api.token}"
    api.logout()
    assert api.token is None and api.username is None and not service.access
    with pytest.raises(HttpClientError, match="Client Error 401"):
        api.org.get()
    assert "Authorization" not in service.asked[-1][2]


@pytest.mark.parametrize("fault", [500, 400, 302, "html"])
def test_a_log_in_that_was_not_answered_with_a_token_is_none(service, fault, caplog):
    service.faults = [fault]
    api = Api(service.domain)
    assert not api.login(email=EMAIL, password=PASSWORD)
    assert api.token is None and "Login failed" in caplog.text


def test_tokens_from_elsewhere(service):
    token = service.new_token()
    for given, word in [
        (token, "jwt"),
        (f"{token}\n", "jwt"),
        ({"token": token}, "jwt"),
        ({"access": token, "refresh": "more"}, "jwt"),
    ]:
        api = Api(service.domain)
        api.set_token(given)
        api.org.get()
        assert service.asked[-1][2]["Authorization"] == f"{word} {token}"
    assert api.refresh_token_data == "more"
    api.set_token(token, token_type="token")
    api.org.get()
    assert service.asked[-1][2]["Authorization"] == f"token {token}"
    assert api.refresh_token_data is None, "another's"
    with pytest.raises(ImproperlyConfigured):
        api.refresh_token()


@pytest.mark.parametrize(
    "token", ["", None, {}, "two words", "wörd", 'a"b', "a\r\nHost: other", {"access": None}, {"refresh": "x"}]
)
def test_what_is_no_token_is_refused(service, token):
    with pytest.raises(ImproperlyConfigured, match="Invalid token"):
        Api(service.domain).set_token(token)


@pytest.mark.parametrize("domain", ["arch.example", "ftp://arch.example", "https://", "https://me:secret@arch.example"])
def test_an_address_that_is_none_is_refused(domain):
    with pytest.raises(ImproperlyConfigured) as told:
        Api(domain)
    assert "secret" not in str(told.value)


def test_an_address_that_is_not_encrypted_is_told(caplog):
    Api("http://127.0.0.1:1/")
    assert not caplog.text
    assert Api("http://arch.example/").base_url == "http://arch.example/api/v1"
    assert "not encrypted" in caplog.text


def test_any_resource_any_action(service, api):
    new = api.org.post({"name": "My new Org"})
    assert api.org(new["slug"]).put({"about": "About"}) == {**new, "about": "About"}
    assert api.org(new["slug"]).patch({"about": None})["about"] is None
    assert api.org(new["slug"]).get(all=1, of="it")["name"] == "My new Org"
    assert api.org(new["slug"]).delete() is True
    assert api.org(new["slug"]).delete() is False
    with pytest.raises(HttpNotFoundError) as told:
        api.org(new["slug"]).get()
    assert told.value.response.status_code == 404 and b"not found" in told.value.content

    for resource, address in [
        (api.machine("d--1").devices, "machine/d--1/devices/"),
        (api.device(ArchFxDeviceSlug(10)), "device/d--0000-0000-0000-000a/"),
        (api.device(0), "device/0/"),
        (api.streamer().report, "streamer/report/"),
        (api("streamer/report"), "streamer/report/"),
        (getattr(api.auth, "user-info"), "auth/user-info/"),
        (api.of_the_future("a b?c#d%"), "of_the_future/a%20b%3Fc%23d%25/"),
        (api.org("/a/b/"), "org/a/b/"),
    ]:
        assert resource.url() == f"{service.domain}/api/v1/{address}"
        assert address in repr(resource)
    api.org.get(page=1, x=[1, 2], none=None)
    assert service.asked[-1][1] == "/api/v1/org/?page=1&x=1&x=2"


@pytest.mark.parametrize("wrong", ["", "/", "..", "a/../b", ".", "a//b"])
def test_an_id_that_would_ask_for_something_else_is_refused(api, service, wrong):
    with pytest.raises(DataError, match="names no resource"):
        api.org(wrong)
    assert not service.asked


@pytest.mark.parametrize("wrong", [{"value": math.nan}, {"value": {1, 2}}, {(1, 2): 3}])
def test_what_is_no_json_is_refused_before_anything_is_sent(api, service, wrong):
    with pytest.raises(DataError, match="cannot be JSON"):
        api.org.post(wrong)
    with pytest.raises(DataError, match="no opened file"):
        api.streamer.report.upload_fp("report.mp")
    assert not service.asked


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (400, HttpClientError),
        (401, HttpClientError),
        (404, HttpNotFoundError),
        (429, HttpClientError),
        (500, HttpServerError),
        (503, HttpServerError),
        ("away", HttpConnectionError),
        ("lost", HttpConnectionError),
        ("cut", HttpConnectionError),
    ],
)
def test_each_fault_is_of_its_kind(service, api, fault, kind):
    for call in (
        lambda: api.org.get(),
        lambda: api.org.post({}),
        lambda: api.org("org-1").patch({}),
        lambda: api.org("org-1").put({}),
        lambda: report(1).upload(api),
    ):
        service.faults = [fault]
        with pytest.raises(kind) as told:
            call()
        assert type(told.value) is kind and isinstance(told.value, RestHttpBaseException)
        if isinstance(fault, int):
            assert told.value.response.status_code == fault and str(fault) in str(told.value)
        assert "a fault" in str(told.value) or fault not in (400, 401, 404, 429)


def test_a_service_that_is_not_there_or_silent():
    with pytest.raises(HttpConnectionError) as told:
        Api(f"http://127.0.0.1:{free_port()}").org.get()
    assert isinstance(told.value, requests.exceptions.ConnectionError)
    with Service() as slow:
        slow.answer = lambda *_: time.sleep(0.5) or (200, {})
        with pytest.raises(HttpTimeoutError) as told:
            Api(slow.domain, timeout=0.1).org.get()
        assert isinstance(told.value, requests.exceptions.Timeout)


def test_a_change_is_not_sent_on_to_another_place(service, api):
    for call in (lambda: api.org.post({}), lambda: report(1).upload(api)):
        service.faults = [301]
        with pytest.raises(HttpClientError, match=r"it is at http://127.0.0.1:1/: give that as the domain"):
            call()


def test_answers_that_are_no_json_or_nothing(service, api):
    service.faults = ["html"]
    assert api.org.get() == b"<html>please log in</html>"
    service.faults = ["deep"]
    assert api.org.get() == b"[" * 200_000
    assert api.auth("logout").post({}) is None
    service.access.add(api.token)
    service.faults = ["html"]
    with pytest.raises(RestBaseException, match="no count"):
        report(1).upload(api)


def test_pages_are_followed_to_the_end(service, api):
    service.things["org"] = {str(number): {"slug": str(number), "of": number % 2} for number in range(9)}
    assert [org["slug"] for org in api.org.each()] == [str(number) for number in range(9)]
    assert [path for _, path, _, _ in service.asked] == [
        "/api/v1/org/", *(f"/api/v1/org/?page={page}" for page in range(2, 6))
    ]  # fmt: skip
    assert [org["slug"] for org in api.org.each(of=1)] == ["1", "3", "5", "7"]
    assert list(api.machine("m").devices.each()) == []
    service.answer = lambda *_: (200, [1, 2])
    assert list(api.org.each()) == [1, 2]
    service.answer = lambda *_: (200, {"results": [1], "next": "?page=2"})
    with pytest.raises(RestBaseException, match="came before"):
        list(api.org.each())
    service.answer = lambda *_: (200, {"other": 1})
    with pytest.raises(RestBaseException, match="did not answer with pages"):
        list(api.org.each())


def test_pages_go_on_where_they_failed(service, api):
    service.things["org"] = {str(number): {"slug": str(number)} for number in range(9)}
    pages, found = api.org.each(), []
    for fault in (503, "away", "cut"):
        found += [next(pages)["slug"] for _ in range(2)]
        service.faults = [fault]
        with pytest.raises((HttpServerError, HttpConnectionError)):
            next(pages)
    service.access.clear()
    with pytest.raises(HttpClientError, match="401"):
        next(pages)
    assert api.refresh_token()
    assert found + [org["slug"] for org in pages] == [str(number) for number in range(9)]


def test_an_expired_token_is_refreshed(service, api):
    old = api.token
    service.access.clear()
    with pytest.raises(HttpClientError, match="401"):
        report(1).upload(api)
    for fault in (503, "html"):
        service.faults = [fault]
        assert not api.refresh_token()
        assert api.token == old, "the service failed, the token did not"
    service.faults = ["away"]
    with pytest.raises(HttpConnectionError):
        api.refresh_token()
    assert api.refresh_token() and api.token != old
    assert report(1).upload(api) == 1
    service.access.clear()
    assert api.refresh_token(), "the same refresh token, as no other came"
    service.refresh.clear()
    assert not api.refresh_token() and api.token is None


def test_a_log_out_that_failed_is_told(service, api, caplog):
    service.faults = [500]
    api.logout()
    assert "Logout failed: 500" in caplog.text and api.token


def test_every_reading_counts_once(service, api):
    assert report(*range(10, 20)).upload(api) == 10
    assert report(*range(10, 20)).upload(api) == 0, "twice is once"
    assert report(*range(5, 15)).upload(api) == 5, "overlapping, and out of order"
    assert report(*range(5, 15), device=2).upload(api) == 10, "another device"
    service.faults = ["lost"]
    late = report(*range(100, 110))
    with pytest.raises(HttpConnectionError):
        late.upload(api)
    assert late.upload(api) == 0, "it had arrived"
    service.faults = ["away"]
    late = report(*range(200, 210))
    with pytest.raises(HttpConnectionError):
        late.upload(api)
    assert late.upload(api) == 10
    assert service.taken == {1: {*range(5, 20), *range(100, 110), *range(200, 210)}, 2: {*range(5, 15)}}
    assert service.asked[-1][1] == "/api/v1/streamer/report/?timestamp=2021-01-20T00%3A00%3A00%2B00%3A00"


def test_a_report_outlives_the_program_that_sends_it(service, api, tmp_path):
    program = """
import sys
from datetime import UTC, datetime
from ionbeam_client.archfx.api.connection import Api
from ionbeam_client.archfx.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from ionbeam_client.archfx.reports.report import ArchFXDataPoint

readings = [ArchFXDataPoint(datetime.now(UTC), 1, number, reading_id=number) for number in range(1, 1001)]
report = ArchFXFlexibleDictionaryReport.FromReadings(1, readings)
report.save(sys.argv[3])
api = Api(sys.argv[1])
api.set_token(sys.argv[2])
report.upload(api)
"""
    service.faults = ["held"]
    saved = tmp_path / "report.mp"
    child = subprocess.Popen([sys.executable, "-c", program, service.domain, api.token, saved])
    while not service.taken:
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    service.release.set()
    assert ArchFXFlexibleDictionaryReport(saved.read_bytes()).upload(api) == 0
    assert service.taken == {1: set(range(1, 1001))}


def test_a_file_is_uploaded_from_disk(service, api, tmp_path):
    report(1, 2).save(tmp_path / "report.mp")
    assert api.streamer.report.upload_file(str(tmp_path / "report.mp"), timestamp="now") == {"count": 2}


def test_a_server_that_cannot_be_verified_gets_no_secret(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.certs.where())
    with Service(*certificate) as service:
        api = Api(service.domain)
        api.set_token("secret-token")
        for call in (
            lambda: api.login(email=EMAIL, password=PASSWORD),
            lambda: api.refresh_token(),
            lambda: api.logout(),
            lambda: api.org.get(),
            lambda: report(1).upload(api),
        ):
            with pytest.raises(HttpCouldNotVerifyServerError, match="Could not verify"):
                call()
        assert not service.asked
        trusting = Api(service.domain, verify=str(certificate[0]))
        assert trusting.login(email=EMAIL, password=PASSWORD)
        assert report(1).upload(trusting) == 1
        wrong_name = Api(service.domain.replace("localhost", "127.0.0.1"), verify=str(certificate[0]))
        with pytest.raises(HttpCouldNotVerifyServerError):
            wrong_name.org.get()


def test_no_password_is_taken_from_netrc(service, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine localhost login someone password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    Api(service.domain).login(email=EMAIL, password=PASSWORD)
    assert "Authorization" not in service.asked[-1][2]
    api = Api(service.domain)
    api.set_token(service.new_token())
    api.org.get()
    assert service.asked[-1][2]["Authorization"].startswith("jwt ")


def test_no_secret_is_in_a_log_a_repr_or_a_traceback(service, caplog, capsys):
    """Not even in the local variables that some tools print with a traceback."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []

    def attempt(call) -> None:
        try:
            call()
        except Exception as error:
            below = error.__traceback__.tb_next  # not this function's own variables
            whole = traceback.TracebackException(type(error), error, below, capture_locals=True)
            told.append("".join(whole.format()))
            told.append(repr(error))

    secrets = [PASSWORD, PASSWORD.replace('"', '\\"'), "w\\u00f6rd", "w\\xf6rd", "two words"]
    api = Api(service.domain, timeout=2)
    log_in = lambda: api.login(email=EMAIL, password=globals()["PASSWORD"])  # noqa: E731
    for fault in (400, 500, "html", "away", "cut", "lost"):
        service.faults = [fault]
        attempt(log_in)
    assert log_in()
    attempt(lambda: api.login(email=EMAIL, password=globals()["PASSWORD"] + "x"))
    attempt(lambda: api.login(email=EMAIL, password=globals()["PASSWORD"].encode()))
    attempt(lambda: api.set_token("two" + " words"))
    secrets += [api.token, api.refresh_token_data]
    for call in (
        lambda: api.org.get(),
        lambda: api.org.post({}),
        lambda: api.org(1).delete(),
        lambda: report(1).upload(api),
        lambda: next(api.org.each()),
        lambda: api.refresh_token(),
        lambda: api.logout(),
    ):
        for fault in (400, 401, 500, 301, "html", "away", "cut"):
            service.faults = [fault]
            before = api.token, api.refresh_token_data
            attempt(call)
            if api.token is None:
                api.set_token({"access": before[0], "refresh": before[1]})
        service.access.clear()  # the service repeats the token in its refusal
        attempt(call)
        if api.token is None:
            log_in()
        service.access.add(api.token)
        secrets += [api.token, api.refresh_token_data]
    told += [repr(thing) for thing in (api, api.org, api.session, api.session.auth, api.session.token)]
    assert len(told) > 60
    everything = "\n".join([*told, caplog.text, *capsys.readouterr()])
    for secret in secrets:
        assert secret not in everything


def test_faults_may_be_sent_to_another_process():
    error = pickle.loads(pickle.dumps(HttpServerError("Server Error 500", content=b"x")))
    assert error.args == ("Server Error 500",) and error.content == b"x"
