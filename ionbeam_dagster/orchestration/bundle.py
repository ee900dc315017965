"""The archive for support: what somebody needs who is to help, and cannot look at the installation; without secrets.

Belongs here: what is in it. Does not belong here: the findings (doctor.py), or how the command line tells of it.
"""

from __future__ import annotations

import json
import platform as machine
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

import dagster as dg
import yaml

from ionbeam_dagster.config import IonbeamConfig
from ionbeam_dagster.config.secrets import secrets_of, struck_out
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.orchestration.home import LOG, SETTINGS, dagster_at, home_of
from ionbeam_dagster.stores.publish import published

_LOGGED = 200_000  # bytes of a log, its last ones
_RUNS = 20
_LONGEST = 4_000  # characters of an error
_WITHIN = 120.0  # seconds in which a command has to answer
_ASKED = ("status", "gaps", "heard", "config check")
_ABOUT = """\
What `ionbeam doctor --bundle` found at {now} on {host}.

findings.json      what the doctor says, each fault with its remedy
versions.txt       this machine, Python, and every package
configuration.yaml what the YAML says that is not as usual
status.txt, gaps.txt, heard.txt, config-check.txt    what these commands say
failed-runs.txt    the last {runs} runs that failed, with their errors
logs/              the last lines that the processes of `ionbeam dev` logged

Passwords, tokens and keys of the configuration are struck out. Names of stations, places and hosts are not: look
through it before you give it away.
"""


def write_bundle(path: Path, config: IonbeamConfig | None, found: Sequence[Finding]) -> int:
    """Write the archive, a zip file that its owner alone may read; says how many files are in it.

    Without a configuration that can be used it has the findings and versions alone: nobody knows what is secret.
    Raises OSError.
    """
    secrets = () if config is None else secrets_of(config)
    count = 0
    with published(path) as draft:
        draft.touch(mode=0o600)
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in _contents(config, found):
                archive.writestr(name, struck_out(text, secrets))
                count += 1
    return count


def _contents(config: IonbeamConfig | None, found: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    yield "README.txt", _ABOUT.format(now=f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}", host=machine.node(), runs=_RUNS)
    yield "findings.json", json.dumps([one.to_json() for one in found], ensure_ascii=False, indent=2)
    yield "versions.txt", "\n".join(_versions())
    if config is None:
        return
    yield "configuration.yaml", _configuration(config)
    for command in _ASKED:
        yield f"{command.replace(' ', '-')}.txt", _said(config, command.split())
    home = home_of(config)
    if (home / SETTINGS).exists():
        yield "failed-runs.txt", _told_of_failed_runs(home)
    for file in (home / f"{LOG}.1", home / LOG):
        if file.exists():
            yield f"logs/{file.name}", _end_of(file)


def _versions() -> Iterator[str]:
    yield f"{machine.platform()}, Python {sys.version}"
    yield from sorted(f"{one.metadata['Name']} {one.version}" for one in distributions())


def _configuration(config: IonbeamConfig) -> str:
    sections = config.sections.model_dump(mode="json", exclude_defaults=True)
    sources = {
        name: source.config.model_dump(mode="json", exclude_defaults=True) for name, source in config.sources.items()
    }
    return yaml.safe_dump(sections | {"sources": sources}, allow_unicode=True, sort_keys=False)


def _said(config: IonbeamConfig, words: list[str]) -> str:
    """What a command says, in a process of its own: it may hang, or die."""
    program = str(Path(sys.executable).with_name("ionbeam"))
    try:
        done = subprocess.run(
            [program, "--config", str(config.path), *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_WITHIN,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not answer: {error}"
    return f"{done.stdout}\n(exit status {done.returncode})"


def _told_of_failed_runs(home: Path) -> str:
    try:
        return "\n\n".join(_failed_runs(home)) or "none"
    except Exception as error:  # Dagster's store may be what is broken, and the archive be wanted for that
        return f"they cannot be read: {type(error).__name__}: {error}"


def _failed_runs(home: Path) -> Iterator[str]:
    wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    with dagster_at(home) as instance:
        for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=_RUNS):
            run = record.dagster_run
            told = [f"{record.update_timestamp:%Y-%m-%d %H:%M} {run.job_name} {run.run_id} {dict(run.tags)}"]
            for entry in instance.all_logs(run.run_id, of_type=wanted):
                event = entry.get_dagster_event()
                error = event.step_failure_data.error if event.is_step_failure else event.job_failure_data.error
                told.append(f"{event.message or ''}\n{error.to_string() if error else ''}".strip()[:_LONGEST])
            yield "\n".join(told)


def _end_of(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(file.stat().st_size - _LOGGED, 0))
        return opened.read().decode(errors="replace")
