"""What each user of the broker may do there, so that nobody reads, deletes or makes what is not theirs.

Belongs here: the roles, and RabbitMQ's patterns for them. Does not belong here: who exists (the YAML's `senders`, and
whoever runs the broker).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ionbeam_client import wire
from ionbeam_dagster.doors.amqp.settings import BusSettings

_NOTHING = "^$"
_DEFAULT_EXCHANGE = "amq.default"


@dataclass(frozen=True, slots=True)
class Permission:
    """What a user may make and delete, write to, and read, as RabbitMQ's regular expressions of names."""

    user: str
    configure: str
    write: str
    read: str

    def command(self, vhost: str) -> str:
        """The command that sets it."""
        return shlex.join(
            ["rabbitmqctl", "set_permissions", "-p", vhost, self.user, self.configure, self.write, self.read]
        )


def vhost_of(url: str) -> str:
    """The virtual host in a broker's address."""
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"


def permissions(settings: BusSettings, exporters: Mapping[str, Collection[str]]) -> Iterator[Permission]:
    """What the platform, its clients and its operators need, and no more.

    Clients are the `senders` of the configuration's sources, and the users of `exporters`, each with the names under
    which they receive datasets. Operators look after what was parked.
    """
    platform = settings.client.user
    if platform is not None:
        everything = rf"^(ionbeam\..*|{re.escape(_DEFAULT_EXCHANGE)})$"
        yield Permission(platform, everything, everything, everything)
    sent: dict[str, list[str]] = {}
    for feed in settings.feeds.values():
        for user in feed.senders or ():
            sent.setdefault(user, []).append(feed.source)
    for user in sorted(({*sent} | {*exporters}) - {platform}):
        yield _client(user, sorted(sent.get(user, ())), sorted(exporters.get(user, ())))
    for user in sorted(settings.operators):
        yield Permission(user, _NOTHING, _any_of([re.escape(_DEFAULT_EXCHANGE)]), r"^ionbeam\..*\.dead$")


def _client(user: str, sources: Collection[str], exporters: Collection[str]) -> Permission:
    queues = [wire.source_queue(source) for source in sources] + [wire.exporter_queue(name) for name in exporters]
    served = [re.escape(queue.name) + r"(\.dead)?" for queue in queues]
    returned = re.escape(wire.returned_queue(user, "").name) + "[0-9a-f]+"
    heard = [re.escape(wire.DATASET_EXCHANGE)] if exporters else []
    return Permission(
        user,
        configure=_any_of([*served, returned]),
        write=_any_of(
            [re.escape(_DEFAULT_EXCHANGE), *(re.escape(wire.exporter_queue(name).name) for name in exporters)]
        ),
        read=_any_of([*served, returned, *heard]),
    )


def _any_of(patterns: Collection[str]) -> str:
    return f"^({'|'.join(patterns)})$"
