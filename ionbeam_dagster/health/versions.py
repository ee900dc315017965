"""Whether what is installed fits together, and this user may use what others made.

Belongs here: packages, and owners of files. Does not belong here: whether a place can be written (stores.py tries it).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from ionbeam_dagster import edr
from ionbeam_dagster.doors import http
from ionbeam_dagster.health.findings import Finding
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import is_address, within

VERSIONS, PERMISSIONS = "versions", "permissions"
_OURS = ("ionbeam-dagster", "ionbeam-client")
_LOOKED_AT = 10_000


def versions(platform: Platform) -> Iterator[Finding]:
    """What is missing, or of another version than is needed."""
    for package in _OURS:
        for requirement in map(Requirement, requires(package) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield from _unfit(package, requirement)
    kinds = {source.kind for source in platform.config.sources.values()}
    if "door" in kinds and (lacking := http.lacking()):
        yield _lacking("sources of kind door need", lacking)
    if any("pygeoapi" in dataset.exports for dataset in platform.config.datasets.values()) and (
        lacking := edr.lacking()
    ):
        missing, _, remedy = lacking.partition("; ")
        yield Finding(VERSIONS, "note", f"`ionbeam serve` needs {missing}", remedy)
    told = ", ".join(f"{name} {version(name)}" for name in (*_OURS, "dagster"))
    yield Finding(VERSIONS, "well", f"{told}, Python {sys.version.split()[0]}")


def _unfit(package: str, needed: Requirement) -> Iterator[Finding]:
    remedy = f"pip install '{needed.name}{needed.specifier}'"
    try:
        installed = version(needed.name)
    except PackageNotFoundError:
        yield Finding(VERSIONS, "error", f"{package} needs {needed.name}, which is not installed", remedy)
        return
    if not needed.specifier.contains(installed, prereleases=True):
        words = f"{package} needs {needed.name}{needed.specifier}, but {installed} is installed"
        yield Finding(VERSIONS, "error", words, remedy)


def _lacking(who: str, lacking: str) -> Finding:
    missing, _, remedy = lacking.partition(": ")
    return Finding(VERSIONS, "error", f"{who} {missing}", remedy)


def permissions(platform: Platform) -> Iterator[Finding]:
    """Files of the platform that this user cannot read, nor write where that is done in place, as in its state:
    somebody else made them, often root."""
    state = platform.config.sections.state_path
    folders = {state: os.R_OK | os.W_OK, **dict.fromkeys(_published(platform), os.R_OK)}
    for folder, needed in folders.items():
        shut = [path for path in _some(folder) if not os.access(path, needed) and _is_there(path)]
        if shut:
            may = "read" if needed == os.R_OK else "read or written"
            many = f"{len(shut):,} files" if len(shut) > 1 else "1 file"
            words = f"{many} below {folder} cannot be {may} by this user, the first is {shut[0]}"
            is_ours = shut[0].lstat().st_uid == os.getuid()
            allow = f"chmod -R u+rwX {folder}" if is_ours else f"chown -R {os.getuid()} {folder}"
            yield Finding(PERMISSIONS, "error", words, f"{allow}, and run every process as one user")
    yield Finding(PERMISSIONS, "well", f"what is below {state} and {len(folders) - 1} other folders was looked at")


def _published(platform: Platform) -> Iterator[Path]:
    """The folders of this host that raw, dataset and export files are moved to."""
    config = platform.config
    found = [within(source.config.data_path, name) for name, source in config.sources.items()]
    found += [within(config.sections.dataset_aggregator.data_path, name) for name in config.datasets]
    found += [
        within(config.exporters[format].settings.output_path, format, name)
        for name, dataset in config.datasets.items()
        for format in dataset.formats
    ]
    return (Path(place) for place in found if not is_address(place))


def _is_there(path: Path) -> bool:
    """Not so of drafts, probes and journals that others finished with since the folder was listed."""
    return os.path.lexists(path)


def _some(root: Path) -> Iterator[Path]:
    """`root`, and files and folders below it, the uppermost first, as many as are worth the time."""
    waiting, seen = [root], 0
    yield root
    while waiting and seen < _LOOKED_AT:
        folder = waiting.pop(0)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue  # it was named itself
        for entry in entries:
            seen += 1
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
