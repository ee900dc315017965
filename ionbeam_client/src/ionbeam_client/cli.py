"""The command ``ionbeam-client``: what waits to be sent, and what could not be handled.

Belongs here: the outbox and the dead queues, for people. Does not belong here: anything that a program should call.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ionbeam_client import wire
from ionbeam_client.amqp import AmqpTransport
from ionbeam_client.client import IonbeamClient
from ionbeam_client.config import IonbeamClientConfig
from ionbeam_client.errors import IonbeamError, MessageError, NotConnectedError
from ionbeam_client.inbox import Inbox
from ionbeam_client.outbox import Outbox
from ionbeam_client.text import visible
from ionbeam_client.transport import Delivery, Outgoing

CONNECT_TIMEOUT = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit status (0: done, 1: it could not be done, 2: not understood)."""
    options = _parser().parse_args(arguments)
    given = {"amqp_url": options.amqp_url, "state_path": options.state_path}
    try:
        config = IonbeamClientConfig(**{name: value for name, value in given.items() if value is not None})
        return int(options.run(config, options))
    except ValidationError as error:
        first = error.errors()[0]
        print(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", file=sys.stderr)
    except (IonbeamError, OSError) as error:
        print(error, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "ionbeam-client", description="What waits to be sent, and what could not be handled."
    )
    parser.add_argument("--amqp-url", help="the broker (default: IONBEAM_AMQP_URL)")
    parser.add_argument("--state-path", type=Path, help="the client's state folder (default: IONBEAM_STATE_PATH)")
    groups = parser.add_subparsers(required=True, metavar="{status,outbox,dead}")

    status = groups.add_parser("status", help="what waits and since when, in both directions; exit status 1: trouble")
    status.set_defaults(run=_status)
    outbox = groups.add_parser("outbox", help="ingestions that the broker has not confirmed").add_subparsers(
        required=True
    )
    listed = outbox.add_parser("list", help="show them")
    listed.add_argument("--refused", action="store_true", help="only what was refused, with the reasons")
    listed.set_defaults(run=_outbox_list)
    flush = outbox.add_parser("flush", help="send them now")
    flush.add_argument("--timeout", type=float, default=60.0, help="seconds to try (default: 60)")
    flush.set_defaults(run=_outbox_flush)
    forget = outbox.add_parser("forget", help="forget what the platform said it could not take")
    which = forget.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?")
    which.add_argument("--all", action="store_true")
    forget.set_defaults(run=_outbox_forget)
    export = outbox.add_parser("export", help="copy them into a folder, one file a message, to be carried elsewhere")
    export.add_argument("folder", type=Path)
    export.set_defaults(run=_outbox_export)

    dead = groups.add_parser("dead", help="messages that a handler could not handle").add_subparsers(required=True)
    for name, work, help in (
        ("list", _dead_list, "show them with their errors"),
        ("show", _dead_show, "show one with everything that is known of it"),
        ("requeue", _dead_requeue, "hand them to their handler again"),
        ("drop", _dead_drop, "remove them for good"),
    ):
        command = dead.add_parser(name, help=help)
        queue = command.add_mutually_exclusive_group()
        queue.add_argument("--exporter", help="of this exporter")
        queue.add_argument("--source", help="of this source's trigger handler")
        queue.add_argument("--queue", help="of this queue (default: of every queue that this state folder has served)")
        if name == "show":
            command.add_argument("id")
        elif name != "list":
            which = command.add_mutually_exclusive_group(required=True)
            which.add_argument("id", nargs="?")
            which.add_argument("--all", action="store_true")
        command.set_defaults(run=work)
    return parser


# -- outbox ----------------------------------------------------------------------------------------------------------


def _outbox_of(config: IonbeamClientConfig) -> Outbox:
    if not (config.state_folder / "outbox.sqlite").exists():
        raise IonbeamError(f"no client has kept anything in {config.state_folder}; --state-path names its folder")
    return Outbox(config.state_folder, config.outbox_max_bytes)


def _status(config: IonbeamClientConfig, options: Any) -> int:
    outbox, inbox = _outbox_of(config), Inbox(config.state_folder)
    waiting, trouble = outbox.all(), outbox.trouble()
    refused = [one for one in waiting if one.refused]
    print(f"outbox: {len(waiting)} messages, {outbox.size()} bytes wait for {config.broker}")
    if waiting:
        print(f"    the oldest since {_moment(min(one.created for one in waiting))}")
    if trouble:
        print(f"    nothing could be sent since {_moment(trouble.since)}: {trouble.reason}")
    if refused:
        print(f"    {len(refused)} were refused; see 'ionbeam-client outbox list --refused'")
    if parked := outbox.parked():
        print(f"    {len(parked)} could not be taken by the platform; see 'ionbeam-client outbox list --refused'")
    for queue, states in sorted(inbox.counts().items()):
        print(f"{queue}: {', '.join(f'{number} {state}' for state, number in sorted(states.items()))}")
    return 1 if trouble or refused or parked else 0


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _outbox_list(config: IonbeamClientConfig, options: Any) -> int:
    outbox = _outbox_of(config)
    waiting = [one for one in outbox.all() if one.refused or not options.refused]
    for one in waiting:
        error = f"  tried {one.attempts} times: {one.error}" if one.error else ""
        print(f"{one.message_id}  {one.rows} rows  {one.bytes} bytes  since {_moment(one.created)}{error}")
    for told in outbox.parked() if options.refused else ():
        parked = f"parked by the platform in {told.queue}.dead since {_moment(told.at)}: {told.reason}"
        print(visible(f"{told.message_id}  {parked}"))
    what = "were refused by" if options.refused else "wait for"
    print(f"{len(waiting)} messages, {sum(one.bytes for one in waiting)} bytes {what} {config.broker}")
    return 0


def _outbox_forget(config: IonbeamClientConfig, options: Any) -> int:
    forgotten = _outbox_of(config).forget_parked(options.id)
    print(f"{forgotten} are forgotten")
    return 0 if forgotten or options.all else 1


def _outbox_flush(config: IonbeamClientConfig, options: Any) -> int:
    outbox = _outbox_of(config)
    outbox.retry_now()

    async def flush() -> None:
        async with IonbeamClient(config.model_copy(update={"close_timeout": 0.0})) as client:
            await client.flush(options.timeout)

    asyncio.run(flush())
    left = outbox.count()
    print(f"{left} messages still wait for {config.broker}" if left else "everything is sent")
    return 1 if left else 0


def _outbox_export(config: IonbeamClientConfig, options: Any) -> int:
    outbox = _outbox_of(config)
    options.folder.mkdir(parents=True, exist_ok=True)
    waiting = outbox.all()
    for one in waiting:
        body = outbox.body(one.seq)
        ending = "json" if body.startswith(b"{") else "arrow"
        (options.folder / f"{one.message_id.replace('/', '.')}.{ending}").write_bytes(body)
    print(f"{len(waiting)} messages copied to {options.folder}; they are still in the outbox")
    return 0


# -- dead queues -----------------------------------------------------------------------------------------------------


def _dead_list(config: IonbeamClientConfig, options: Any) -> int:
    async def run() -> int:
        found = 0
        async with _connected(config) as transport:
            for queue in _queues(config, options):
                async for delivery in transport.browse(queue.dead):
                    headers = delivery.headers
                    parked = headers.get(wire.PARKED_HEADER, "")
                    print(visible(f"{delivery.message_id}  {queue.name}  {parked}"))
                    print(visible(f"    {headers.get(wire.ERROR_HEADER, 'no reason was given')}"))
                    found += 1
        return found

    print(f"{asyncio.run(run())} dead messages")
    return 0


def _dead_show(config: IonbeamClientConfig, options: Any) -> int:
    async def show(queue: wire.Queue, delivery: Delivery, transport: AmqpTransport) -> None:
        print(f"id: {delivery.message_id}\nqueue: {queue.name}\nbytes: {len(delivery.body)}")
        for name, value in sorted(delivery.headers.items()):
            print(visible(f"{name}: {value}"))
        print(_shown_body(delivery.body))

    return _on_dead(config, options, show)


def _dead_requeue(config: IonbeamClientConfig, options: Any) -> int:
    async def requeue(queue: wire.Queue, delivery: Delivery, transport: AmqpTransport) -> None:
        times = delivery.headers.get(wire.REQUEUES_HEADER, 0)
        headers: dict[str, str | int] = {wire.REQUEUES_HEADER: (times if isinstance(times, int) else 0) + 1}
        if sender := delivery.headers.get(wire.SENDER_HEADER):
            headers[wire.SENDER_HEADER] = sender
        message = Outgoing(delivery.message_id, delivery.body, delivery.content_type, headers, delivery.reply_to)
        await transport.publish(queue, message)
        await delivery.ack()
        print(f"{delivery.message_id} is in {queue.name} again")

    return _on_dead(config, options, requeue)


def _dead_drop(config: IonbeamClientConfig, options: Any) -> int:
    async def drop(queue: wire.Queue, delivery: Delivery, transport: AmqpTransport) -> None:
        await delivery.ack()
        print(f"{delivery.message_id} is removed")

    return _on_dead(config, options, drop)


def _on_dead(
    config: IonbeamClientConfig,
    options: Any,
    act: Callable[[wire.Queue, Delivery, AmqpTransport], Awaitable[None]],
) -> int:
    """Do `act` to the dead messages that the options name; the others stay where they are."""
    wanted: str | None = getattr(options, "id", None)

    async def run() -> int:
        found, started = 0, datetime.now(UTC).isoformat(timespec="seconds")
        async with _connected(config) as transport:
            for queue in _queues(config, options):
                while (delivery := await transport.fetch(queue.dead)) is not None:
                    if str(delivery.headers.get(wire.PARKED_HEADER, "")) > started:
                        break  # it was sent back, and has failed again meanwhile
                    if wanted is None or delivery.message_id.partition("/")[0] == wanted.partition("/")[0]:
                        await act(queue, delivery, transport)
                        found += 1
        return found

    found = asyncio.run(run())
    if wanted is not None and not found:
        print(f"no dead message has the id {wanted}", file=sys.stderr)
        return 1
    if wanted is None:
        print(f"{found} dead messages")
    return 0


def _queues(config: IonbeamClientConfig, options: Any) -> list[wire.Queue]:
    if options.exporter:
        return [wire.exporter_queue(options.exporter)]
    if options.source:
        return [wire.source_queue(options.source)]
    if options.queue:
        return [wire.Queue(options.queue)]
    served = [wire.Queue(name) for name in Inbox(config.state_folder).counts()]
    if not served:
        raise IonbeamError(f"{config.state_folder} has served no queue; name one with --exporter, --source or --queue")
    return served


@asynccontextmanager
async def _connected(config: IonbeamClientConfig) -> AsyncIterator[AmqpTransport]:
    transport = AmqpTransport(config)
    await transport.open()
    try:
        await asyncio.wait_for(transport.connected(), CONNECT_TIMEOUT)
        yield transport
    except TimeoutError as error:
        why = transport.trouble or f"nothing within {CONNECT_TIMEOUT:g} s"
        raise NotConnectedError(f"{config.broker} does not answer: {why}") from error
    finally:
        await transport.close()


def _shown_body(body: bytes) -> str:
    """The JSON of a message, as far as there is one."""
    try:
        return wire.json_of(body).decode(errors="replace")
    except MessageError as error:
        return f"{error}: {body[:500]!r}"


if __name__ == "__main__":
    sys.exit(main())
