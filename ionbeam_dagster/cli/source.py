"""Commands about sources: taking a dataset in that the configuration does not know yet."""

from __future__ import annotations

import os
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from ionbeam_client.models import format_duration
from ionbeam_dagster.cli.terminal import console, fail, load_config, refused_as_message
from ionbeam_dagster.config import ConfigError, IonbeamConfig

if TYPE_CHECKING:
    from ionbeam_client.models import IngestDataCommand

app = typer.Typer(help="Sources: what is collected, and what clients send.", no_args_is_help=True)


@app.command()
def accept(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset that the parked messages name.")],
) -> None:
    """Add a dataset that a client sends, and the configuration does not know, as an external source to the YAML.

    Its messages were parked, which `ionbeam status` shows. The block is made of what they say; comments and the rest of
    the YAML stay as they are. Once the platform has the new YAML (reload the code location in the UI; start `ionbeam
    bridge` again) it takes in what was parked.
    """
    from ionbeam_dagster.bus.bridge import BrokerAway
    from ionbeam_dagster.pipeline import PipelineError, Platform

    config = load_config()
    if name in config.datasets:
        fail(f"{config.path} has dataset {name!r} already; what is parked of it is sent back by "
             "`ionbeam-client dead requeue --all --queue ionbeam.ingestion.ingestV1`")  # fmt: skip
    if name in config.sources:
        fail(f"{config.path} has a source {name!r} that feeds dataset {config.sources[name].dataset!r}; rename it, or "
             "add a source with another name and 'dataset: " + name + "' yourself")  # fmt: skip
    with refused_as_message(PipelineError, BrokerAway):
        bridge = Platform(config).bridge
        parked = bridge.parked(name)
    if not parked:
        fail(f"nothing is parked of dataset {name!r}; `ionbeam status` shows what is")
    block = _block(name, parked)
    try:
        write_source(config.path, block)
    except ConfigError as error:
        fail(str(error))
    bridge.inbox.accept(name)
    console.print(f"{config.path} has a new source:\n\n{block}", highlight=False, markup=False)
    console.print(
        f"{len(parked)} parked messages are taken in once the platform has read it: reload the code location in the UI "
        "(Deployment), or start `ionbeam dev` or `ionbeam bridge` again.",
        highlight=False,
    )


def _block(name: str, parked: list[IngestDataCommand]) -> str:
    """A source for all that is parked: as long as the first of it reaches back, in windows that its dataset has."""
    said = parked[-1].metadata.dataset
    first = min(command.start_time for command in parked)
    lines = [f"{name}:"]
    if said.description:
        lines.append(f"  # {' '.join(said.description.split())}")
    lines += [
        "  kind: external",
        f"  start: {first:%Y-%m-%d}",
        f"  aggregation_span: {format_duration(said.aggregation_span)}",
    ]
    if said.subject_to_change_window > timedelta(0):
        lines.append(f"  subject_to_change_window: {format_duration(said.subject_to_change_window)}")
    return "\n".join(lines) + "\n"


def write_source(path: Path, block: str) -> None:
    """Put a block first under ``sources:`` of the YAML at `path`; nothing else in it changes.

    Raises ConfigError, and leaves the file as it is, when it has no place for it or would be no configuration with it.
    """
    text = path.read_text(encoding="utf-8")
    at, indent = _place(path, text, block)
    lines = text.splitlines(keepends=True)
    block = block if at is not None else f"sources:\n{textwrap.indent(block, '  ')}"
    at = len(lines) if at is None else at
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += "\n"
    added = textwrap.indent(block, " " * indent)
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text("".join([*lines[:at], added, *lines[at:]]), encoding="utf-8")
        draft.chmod(path.stat().st_mode)
        IonbeamConfig.load(draft)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    except ConfigError as error:
        raise ConfigError(f"with this source {path} would not be valid, and is left as it is: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _place(path: Path, text: str, block: str) -> tuple[int | None, int]:
    """The line before which a source belongs (None: there are no sources yet), and how far it is indented."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    sections = root.value if isinstance(root, yaml.MappingNode) and not root.flow_style else []
    named = [(key, value) for key, value in sections if key.value == "sources"]
    if sections and not named:
        return None, 0
    for key, value in named:
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            first = value.value[0][0].start_mark
            return key.start_mark.line + 1, first.column
        if isinstance(value, yaml.ScalarNode) and not value.value:
            return key.start_mark.line + 1, 2
    raise ConfigError(f"{path}: its 'sources:' is not a plain block of lines; put this there yourself:\n{block}")
