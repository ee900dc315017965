"""`ionbeam broker`: what the message broker is to be told."""

from __future__ import annotations

from typing import Annotated

import typer

from ionbeam_dagster.cli.terminal import fail, load_config

app = typer.Typer(help="What the message broker is to be told.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Keeps `permissions` a command of its own."""


@app.command()
def permissions(
    exporter: Annotated[
        list[str] | None,
        typer.Option(metavar="USER=NAME", help="A user who receives datasets under this exporter's name; repeatable."),
    ] = None,
) -> None:
    """Print the rabbitmqctl commands by which each user may do what it needs, and no more (docs/security.md).

    Clients are the users in `sources: NAME: {senders: [...]}`, and those that --exporter names; operators are those in
    `broker: {operators: [...]}`.
    """
    from ionbeam_dagster.doors.amqp.permissions import permissions as permissions_of
    from ionbeam_dagster.doors.amqp.permissions import vhost_of
    from ionbeam_dagster.doors.amqp.settings import bus_settings
    from ionbeam_dagster.pipeline.recovery import open_platform

    settings = bus_settings(open_platform(load_config()))
    exporters: dict[str, list[str]] = {}
    for pair in exporter or ():
        user, _, name = pair.partition("=")
        if not user or not name:
            fail(f"--exporter {pair}: say the user and the exporter's name, as in --exporter oslo=oslo_archive")
        exporters.setdefault(user, []).append(name)
    for feed in settings.feeds.values():
        if feed.senders is None:
            typer.echo(f"# {feed.source}: every user may send it; sources.{feed.source}.senders says who may")
    for permission in permissions_of(settings, exporters):
        typer.echo(permission.command(vhost_of(settings.client.amqp_url)))
