"""People are told of each trouble once when it begins and once when it ends, whoever is away meanwhile."""

from __future__ import annotations

import os
import ssl
import time
from collections import namedtuple
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from aiosmtpd.controller import Controller
from alerted import Told, hanging
from servers import free_port

from ionbeam_dagster.config.sections import EmailSettings
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.health.alerts import Alerting
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.health.messages import Message, NotSent, email, ways
from ionbeam_dagster.health.watch import Watch
from ionbeam_dagster.stores.ledger.alerts import Alert

SOURCE = "  ioncannon: {start: 2026-06-21}"
DISK = namedtuple("stat", "f_blocks f_bfree f_bavail f_frsize f_files f_ffree f_favail")


@pytest.fixture
def told() -> Iterator[Told]:
    one = Told()
    yield one
    one.close()


@pytest.fixture
def platform(platform_of, told):
    mail = f"{{server: 127.0.0.1, port: {told.mail}, starttls: false, sender: i@example.org, to: [duty@example.org]}}"
    hook = f"http://127.0.0.1:{told.web}/a-secret"
    alerts = f"{{webhook: '{hook}', email: {mail}, silence: PT2H, completeness: 0.9, after: PT1M}}"
    platform = platform_of(SOURCE, automation="{enabled: false}", alerts=alerts)
    platform.ledger.reconciliations.last()
    begun, platform.later = platform.now(), timedelta(0)
    platform.ledger.alerts.looked_since("ioncannon", begun - timedelta(days=2))
    platform.now = lambda: begun + platform.later
    return platform


def _alerting(platform) -> tuple[Alerting, Watch]:
    watch, settings = Watch(platform), platform.config.sections.alerts
    return Alerting(platform, settings, watch, list(ways(settings))), watch


def test_each_trouble_is_told_once_and_its_end_once(platform, told, monkeypatch, caplog):
    measured = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: DISK(1000, 30, 30, 4096, 1000, 900, 900))
    alerting, watch = _alerting(platform)

    def look(later: int) -> None:
        platform.later += timedelta(seconds=later)
        watch.look()
        alerting.look()

    look(0)
    assert not caplog.records or "webhook" not in caplog.text  # it has to last for a minute
    look(61)
    assert "the webhook at 127.0.0.1 does not take an alert" in caplog.text and "mail server" in caplog.text
    assert "a-secret" not in caplog.text
    look(10)
    assert caplog.text.count("does not take an alert") == 2, "one line a way, however often it is tried"
    told.open()
    look(10)
    begins = {("begins", "disk"), ("begins", "silence of ioncannon"), ("begins", "gaps of ioncannon")}
    assert len(told.posted) == 3 and set(told.posted) == begins and len(told.mailed) == 3
    assert any("97.0% full" in text and "ionbeam purge --dry-run" in text for text in told.texts)
    assert any("Subject: Ionbeam: disk is not well" in mail and "97.0% full" in mail for mail in told.mailed)
    look(10)
    alerting._job.close()
    alerting, watch = _alerting(platform)  # the process was started again
    look(10)
    look(61)
    assert len(told.posted) == 3
    told.close()
    monkeypatch.setattr(os, "statvfs", measured)
    look(10)  # it ends while nobody can be told
    look(10)
    told.open()
    look(10)
    look(10)
    assert told.posted[3:] == [("ended", "disk")] and "disk is well again" in told.texts[-1]
    assert {one.subject for one in platform.ledger.alerts.all()} == {"silence of ioncannon", "gaps of ioncannon"}


def test_one_process_of_all_tells(platform, told):
    told.open()
    (one, watch), (other, _) = _alerting(platform), _alerting(platform)
    watch.look()
    for alerting in (one, other):
        alerting.look()
    platform.later += timedelta(minutes=2)
    for alerting in (other, one, other):
        alerting.look()
    assert sorted(told.posted) == [("begins", "gaps of ioncannon"), ("begins", "silence of ioncannon")]


def test_what_ends_within_a_minute_is_not_told(platform, told, monkeypatch):
    told.open()
    alerting, watch = _alerting(platform)
    with monkeypatch.context() as full:
        full.setattr(os, "statvfs", lambda path: DISK(1000, 30, 30, 4096, 1000, 900, 900))
        watch.look()
    alerting.look()
    platform.later += timedelta(seconds=30)
    watch.look()
    alerting.look()
    platform.later += timedelta(seconds=90)
    alerting.look()
    assert not [one for one in told.posted if one[1] == "disk"]


def test_servers_that_take_a_call_and_never_answer_hold_up_nothing_and_are_told_once_they_do(platform, monkeypatch):
    """The alerts wait; health is looked at and answered meanwhile."""
    monkeypatch.setattr("ionbeam_dagster.health.messages._PATIENCE", 1.0)
    monkeypatch.setattr("ionbeam_dagster.health.alerts.EVERY", 0.2)
    alerts = platform.config.sections.alerts
    told = Told(int(alerts.webhook.get_secret_value().split(":")[2].split("/")[0]), alerts.email.port)
    with hanging(told.web, told.mail) as calls:
        alerting, watch = _alerting(platform)
        watch.look()
        alerting.look()
        platform.later = timedelta(minutes=2)
        telling = Thread(target=alerting._run, daemon=True)
        telling.start()
        try:
            until = time.monotonic() + 15
            while len(calls) < 4 and time.monotonic() < until:
                began = time.monotonic()
                watch.look()
                assert watch.answer(in_full=True)[1] and time.monotonic() - began < 30
            assert set(calls) == {told.web, told.mail} and len(calls) >= 4
            assert len(platform.ledger.alerts.all()) == 2 and not any(one.told for one in platform.ledger.alerts.all())
        finally:
            alerting.stop()
    telling.join()
    monkeypatch.setattr("ionbeam_dagster.health.messages._PATIENCE", 20.0)
    told.open()
    try:
        until = time.monotonic() + 15
        while len(told.posted) < 2 and time.monotonic() < until:
            alerting.look()
        alerting.look()
        assert sorted(told.posted) == [("begins", "gaps of ioncannon"), ("begins", "silence of ioncannon")]
        assert len(told.mailed) == 2
    finally:
        told.close()


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1)])
def test_what_was_found_by_a_clock_that_was_an_hour_off_is_told_all_the_same_and_once(platform, told, off):
    told.open()
    alerting, watch = _alerting(platform)
    watch.look()
    platform.later = off
    alerting.look()
    platform.later = timedelta(0)
    for _ in range(4):
        alerting.look()
        platform.later += timedelta(seconds=61)
    assert sorted(told.posted) == [("begins", "gaps of ioncannon"), ("begins", "silence of ioncannon")]


class Seen:
    """What a watch would have found."""

    def __init__(self, *found: Finding) -> None:
        self.found = list(found)

    def findings(self) -> list[Finding]:
        return [Finding("files", "well", "it was looked at"), *self.found]


@pytest.fixture
def quick(platform_of, told):
    """A platform that tells at once, of nothing but what its watch finds."""
    told.open()
    alerts = f"{{webhook: 'http://127.0.0.1:{told.web}/', after: PT0S}}"
    platform = platform_of("  ioncannon: {start: 2098-01-01}", automation="{enabled: false}", alerts=alerts)
    platform.ledger.reconciliations.last()
    return platform


def _of_seen(platform, *further) -> tuple[Alerting, Seen]:
    seen, settings = Seen(), platform.config.sections.alerts
    return Alerting(platform, settings, seen, [*ways(settings), *further]), seen


def test_an_error_is_told_after_a_warning_of_the_same_subject(quick, told):
    alerting, seen = _of_seen(quick)
    for severity in ("warning", "error", "warning"):
        seen.found = [Finding("disk", severity, f"it is full ({severity})", "make room")]
        alerting.look()
        alerting.look()
    seen.found = []
    alerting.look()
    assert told.posted == [
        ("begins", "disk (warning)"), ("begins", "disk"), ("ended", "disk"), ("ended", "disk (warning)"),
    ]  # fmt: skip


def test_what_joins_a_trouble_that_was_told_is_told_once_too(quick, told):
    """Another disk, while the first is still full; not, that the first is fuller, and not again each time."""

    def full(*disks: str, share: str = "97.0%") -> list[Finding]:
        return [Finding("disk", "error", f"the disk of {one} (key) is {share} full", "make room") for one in disks]

    alerting, seen = _of_seen(quick)
    for found in (full("/a1"), full("/a1", share="98%"), full("/a1", "/b2"), full("/b2"), full("/b2", "/a1")):
        seen.found = found
        alerting.look()
        alerting.look()
    assert told.posted == [("begins", "disk")] * 2 and "/b2 (key)" in told.texts[1]
    alerting._job.close()
    alerting, seen = _of_seen(quick)  # the process was started again
    seen.found = full("/a1", "/b2")
    alerting.look()
    assert len(told.posted) == 2
    seen.found = []
    alerting.look()
    assert told.posted[2:] == [("ended", "disk")]


@pytest.mark.parametrize("wrong", [UnicodeEncodeError("ascii", "ä", 0, 1, "no"), ValueError("line feed"), KeyError()])
def test_a_way_that_fails_in_any_manner_holds_up_no_other(quick, told, wrong):
    def fails(message: Message) -> None:
        raise wrong

    alerting, seen = _of_seen(quick, fails)
    seen.found = [Finding("bus", "error", "away", "start it"), Finding("disk", "error", "full", "make room")]
    alerting.look()
    alerting.look()
    assert told.posted == [("begins", "bus"), ("begins", "disk")]


def test_a_way_that_takes_no_message_is_tried_once_a_look_however_much_there_is_to_tell(quick):
    """A webhook that hangs for 20 s would otherwise hold up a look by 20 s for each trouble."""
    tried = []

    def away(message: Message) -> None:
        tried.append(message.subject)
        raise NotSent("the webhook does not answer")

    seen, settings = Seen(), quick.config.sections.alerts
    alerting = Alerting(quick, settings, seen, [away])
    seen.found = [Finding("bus", "error", "away", "start it"), Finding("disk", "error", "full", "make room")]
    alerting.look()
    assert tried == ["bus"]
    alerting.look()
    assert tried == ["bus", "bus"] and len(quick.ledger.alerts.all()) == 2


def test_what_cannot_be_looked_at_has_not_ended(quick, told):
    alerting, seen = _of_seen(quick)
    seen.found = [Finding("work", "warning", "it fails for hours", "see why")]
    alerting.look()
    seen.found = [Finding("ledger", "error", "it is away", "start it")]
    alerting.look()
    seen.found = [Finding("failures", "error", "no answer for 30 s", "see what hangs")]
    alerting.look()
    assert told.posted == [
        ("begins", "work (warning)"), ("begins", "ledger"), ("ended", "ledger"), ("begins", "failures"),
    ]  # fmt: skip
    seen.found = []
    alerting.look()
    assert sorted(told.posted[4:]) == [("ended", "failures"), ("ended", "work (warning)")]


def test_what_was_told_is_known_once_the_ledger_is_there_again(quick, told, monkeypatch):
    def away(*given):
        raise StoreError("the ledger is away; start it")

    began, kept = datetime(2026, 6, 21, tzinfo=UTC), quick.ledger.alerts
    kept.keep(Alert("work (warning)", began, "it fails. see why", told=True))
    kept.keep(Alert("bus", began, "it is away", told=True))
    alerting, seen = _of_seen(quick)
    work = Finding("work", "warning", "it fails", "see why")
    with monkeypatch.context() as broken:
        for name in ("all", "keep", "end"):
            broken.setattr(type(kept), name, away)
        seen.found = [Finding("ledger", "error", "it is away", "start it")]
        alerting.look()
    assert told.posted == [("begins", "ledger")]
    seen.found = [work]
    with monkeypatch.context() as broken:
        broken.setattr(type(kept), "end", away)
        alerting.look()
    assert sorted(told.posted[1:]) == [("ended", "bus"), ("ended", "ledger")]
    assert {one.subject for one in kept.all()} == {"work (warning)", "bus"}
    alerting.look()  # what could not be forgotten is tried again, and nobody is told twice
    assert len(told.posted) == 3 and [one.subject for one in kept.all()] == ["work (warning)"]


def test_a_kind_of_trouble_that_cannot_be_looked_for_holds_up_no_other(quick, told, monkeypatch, caplog):
    from polars.exceptions import PanicException

    def panics(*given):
        raise PanicException("a flipped byte")

    monkeypatch.setattr(Alerting, "_of_sources", panics)
    alerting, seen = _of_seen(quick)
    seen.found = [Finding("bus", "error", "away", "start it")]
    alerting.look()
    alerting.look()
    assert told.posted == [("begins", "bus")] and caplog.text.count("silence of ... cannot be looked for") == 1


def test_a_source_that_is_new_here_is_silent_once_it_was_looked_at_for_as_long(platform_of, told):
    told.open()
    limits = "silence: PT2H, completeness: 0.9, lateness: PT3H, after: PT0S"
    platform = platform_of(
        SOURCE, automation="{enabled: false}", alerts=f"{{webhook: 'http://127.0.0.1:{told.web}/', {limits}}}"
    )
    hour, begun = timedelta(hours=1), datetime(2026, 7, 1, tzinfo=UTC)
    day = Window(begun - 24 * hour, begun - 23 * hour)
    arrival = platform.ledger.arrival_of("late")
    late = Claim("late", "ioncannon", "ioncannon", day, arrival, 1, arrived_at=begun)
    platform.ledger.record_claim(late, platform.sources["ioncannon"].metadata, {day: 1})
    seen = []
    for later in (hour, timedelta(0), hour, 2 * hour - timedelta(minutes=1), 2 * hour, 23 * hour, 24 * hour):
        alerting, _ = _of_seen(platform)  # each time after a new start
        platform.now = lambda later=later: begun + later
        alerting.look()
        alerting._job.close()
        seen.append(len(told.posted))
    assert seen == [0, 0, 0, 0, 1, 1, 3]  # the first look was by a clock that was ahead
    begins = [one for one, _ in told.posted]
    assert begins == ["begins"] * 3 and told.posted[0][1] == "silence of ioncannon"
    assert {one for _, one in told.posted[1:]} == {"gaps of ioncannon", "lateness of ioncannon"}


def test_a_source_whose_end_has_passed_is_not_silent(platform_of, told):
    told.open()
    platform = platform_of(
        "  ioncannon: {start: 2026-06-20, end: 2026-06-21}", automation="{enabled: false}",
        alerts=f"{{webhook: 'http://127.0.0.1:{told.web}/', silence: PT2H, after: PT0S}}",
    )  # fmt: skip
    platform.ledger.reconciliations.last()
    alerting, _ = _of_seen(platform)
    platform.now = lambda: datetime(2026, 6, 21, 12, tzinfo=UTC)
    day = Window(datetime(2026, 6, 20, tzinfo=UTC), datetime(2026, 6, 21, tzinfo=UTC))
    claim = Claim("whole", "ioncannon", "ioncannon", day, platform.ledger.arrival_of("whole"), 1)
    platform.ledger.record_claim(claim, platform.sources["ioncannon"].metadata, {day: 1})
    alerting.look()
    assert told.posted == []


def test_a_mail_goes_to_a_trusted_server_alone(certificate, monkeypatch):
    made, key = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made, key)
    mailed: list[str] = []

    class Mailbox:
        async def handle_DATA(self, server, session, envelope):
            mailed.append(envelope.content.decode())
            return "250 taken"

    server = Controller(Mailbox(), hostname="localhost", port=free_port(), tls_context=context, require_starttls=True)
    server.start()
    try:
        settings = EmailSettings(server="localhost", port=server.port, sender="i@example.org", to=["d@example.org"])
        now = datetime.now(UTC)
        message = Message("begins", "disk", "it is full", now, now)
        with pytest.raises(NotSent, match="SSLCertVerificationError"):
            email(settings)(message)
        monkeypatch.setenv("SSL_CERT_FILE", str(made))
        email(settings)(message)
    finally:
        server.stop()
    assert len(mailed) == 1 and "disk is not well" in mailed[0]


@pytest.mark.parametrize(
    "wrong", [{"sender": "i@example.org\nBcc: x@example.org"}, {"user": "i", "password": "pässword"}]
)
def test_a_mail_that_cannot_be_is_not_sent(told, wrong):
    told.open()
    given = {
        "server": "127.0.0.1",
        "port": told.mail,
        "starttls": False,
        "sender": "i@x.org",
        "to": ["d@x.org"],
    } | wrong
    now = datetime.now(UTC)
    with pytest.raises(NotSent):
        email(EmailSettings(**given))(Message("begins", "disk", "it is full", now, now))
