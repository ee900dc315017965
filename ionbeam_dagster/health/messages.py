"""The ways in which people are told: a webhook, and e-mail.

Belongs here: one message, sent once, within seconds. Does not belong here: when, and whether again (alerts.py).
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Literal
from urllib.parse import urlsplit

import httpx

from ionbeam_client.text import visible
from ionbeam_dagster.config.sections import AlertSettings, EmailSettings
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.errors import IonbeamError

_PATIENCE = 10.0  # seconds


class NotSent(IonbeamError):
    """A message could not be sent; says where and why."""


@dataclass(frozen=True, slots=True)
class Message:
    """That a trouble with `subject` begins, or has ended; `words` say what is wrong and what to do, a line each. Or a
    report, of the time between `since` and `at`, which mail also has as `html`."""

    state: Literal["begins", "ended", "report"]
    subject: str
    words: str
    since: datetime
    at: datetime
    html: str = ""

    @property
    def title(self) -> str:
        if self.state == "begins":
            return visible(f"Ionbeam: {self.subject} is not well")
        if self.state == "report":
            return visible(self.subject)
        return visible(f"Ionbeam: {self.subject} is well again")

    @property
    def text(self) -> str:
        lines = [visible(line) for line in self.words.splitlines()]
        if self.state == "begins":
            return "\n".join([f"Since {self.since:%Y-%m-%d %H:%M} UTC:", *lines])
        if self.state == "report":
            return "\n".join(lines)
        return "\n".join([f"After {in_short(max(self.at - self.since, timedelta(0)))}. It was:", *lines])


Way = Callable[[Message], None]
"""Sends a message; raises NotSent."""


def ways(settings: AlertSettings) -> Iterator[Way]:
    """Those that are configured."""
    if settings.webhook is not None:
        yield webhook(settings.webhook.get_secret_value())
    if settings.email is not None:
        yield email(settings.email)


def webhook(url: str) -> Way:
    """Posts JSON; ``text`` is what chat services show. The address is nowhere told: its path is often a secret."""
    logging.getLogger("httpx").setLevel(logging.WARNING)

    def send(message: Message) -> None:
        document = {
            "state": message.state,
            "subject": visible(message.subject),
            "since": message.since.isoformat(),
            "at": message.at.isoformat(),
            "text": f"{message.title}\n{message.text}",
        }
        try:
            httpx.post(url, json=document, timeout=_PATIENCE).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotSent(
                f"the webhook at {urlsplit(url).hostname} does not take an alert ({type(error).__name__}); "
                "see alerts.webhook"
            ) from error

    return send


def email(settings: EmailSettings) -> Way:
    """Sends a mail, of plain text and what HTML there is; where it is encrypted, to a server alone whose certificate
    the machine trusts."""

    def send(message: Message) -> None:
        try:
            mail = EmailMessage()
            mail["Subject"], mail["From"], mail["To"] = message.title, settings.sender, ", ".join(settings.to)
            mail.set_content(message.text)
            if message.html:
                mail.add_alternative(message.html, subtype="html")
            with smtplib.SMTP(settings.server, settings.port, timeout=_PATIENCE) as server:
                if settings.starttls:
                    server.starttls(context=ssl.create_default_context())
                if settings.user is not None and settings.password is not None:
                    server.login(settings.user, settings.password.get_secret_value())
                server.send_message(mail)
        except (smtplib.SMTPException, OSError, ValueError) as error:  # or no mail can have such a header
            raise NotSent(
                f"the mail server {settings.server}:{settings.port} does not take an alert ({type(error).__name__}); "
                "see alerts.email"
            ) from error

    return send
