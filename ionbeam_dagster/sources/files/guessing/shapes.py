"""Which files there are, and which of them are of one shape.

Belongs here: files, folders and globs; groups; the glob that finds one. Does not belong here: what stands in a file
(looking.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path

from ionbeam_dagster.sources.files.config import format_by_name, is_beside_log
from ionbeam_dagster.sources.files.guessing.looking import sampled
from ionbeam_dagster.sources.files.guessing.sample import Sample
from ionbeam_dagster.sources.files.guessing.times import is_called_time
from ionbeam_dagster.sources.files.readers import Unreadable, listed
from ionbeam_dagster.sources.files.text_lines import PACKED

LOOKED_INTO = 200
_ALIKE = 0.6


@dataclass(slots=True)
class Group:
    """Files of one shape: those that were looked into, and all that are named like them."""

    samples: list[Sample]
    files: list[Path] = field(default_factory=list)


@dataclass(slots=True)
class Found:
    """The groups of files, the largest first, those that were not looked into, and why some cannot be read."""

    groups: list[Group]
    unreadable: dict[Path, str]
    files: int


def files_at(path: str) -> list[Path]:
    """The files that a path, a folder or a glob has, sorted by name."""
    given = Path(path)
    if has_magic(path) and not given.exists():
        fixed = next(n for n, step in enumerate(given.parts) if has_magic(step))
        found: Iterator[Path] = Path(*given.parts[:fixed]).glob("/".join(given.parts[fixed:]))
    elif given.is_dir():
        found = given.rglob("*")
    else:
        found = iter([given])
    return sorted(
        one for one in found if one.is_file() and not one.name.startswith(".") and not is_beside_log(one.name)
    )


def grouped(files: Sequence[Path]) -> Found:
    """Files by shape. Of many only some are looked into, evenly among them."""
    groups: list[Group] = []
    unreadable: dict[Path, str] = {}
    step = max(1, -(-len(files) // LOOKED_INTO))
    for path in files[::step]:
        try:
            sample = sampled(path)
        except (Unreadable, OSError) as error:
            unreadable[path] = str(error)
            continue
        group = next((one for one in groups if _are_alike(one.samples[0], sample)), None)
        if group is None:
            groups.append(Group([sample]))
        else:
            group.samples.append(sample)
    for group in groups:
        pattern = glob_of([one.path for one in group.samples], files)
        group.files = [path for path in files if fnmatchcase(path.as_posix(), pattern)] if step > 1 else [
            one.path for one in group.samples
        ]  # fmt: skip
    groups.sort(key=lambda one: (-len(one.files), -one.samples[0].rows.width))
    return Found(groups, unreadable, len(files))


def glob_of(wanted: Sequence[Path], files: Sequence[Path]) -> str:
    """The narrowest simple glob that finds the `wanted` ones among `files`."""
    if len(files) == 1:
        return wanted[0].as_posix()
    endings = {_ending(path) for path in wanted}
    ending = endings.pop() if len(endings) == 1 else ""
    folder = Path(os.path.commonpath([path.parent for path in wanted]))
    below = "" if all(path.parent == folder for path in wanted) else "**/"
    first, last = min(path.name for path in wanted), max(path.name for path in wanted)
    shared = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first)
    )
    prefix = first[:shared].rstrip("0123456789") if len(wanted) > 1 else _before_number(wanted[0])
    choices = [f"*{ending}", f"{prefix}*{ending}"]
    others = {path for path in files if path not in {*wanted}}
    for name in choices:
        if not any(_is_below(path, folder, below) and fnmatchcase(path.name, name) for path in others):
            return f"{folder.as_posix()}/{below}{name}"
    return f"{folder.as_posix()}/{below}{choices[-1] if len(wanted) > 1 else wanted[0].name}"


def _before_number(path: Path) -> str:
    """What a name begins with before its first number."""
    stem = path.name.removesuffix(_ending(path))
    cut = next((place for place, sign in enumerate(stem) if sign.isdigit()), len(stem))
    return stem[:cut] or stem


def told_of(groups: Sequence[Group], unreadable: dict[Path, str]) -> Iterator[str]:
    """A note for each further group, and for what cannot be read."""
    for group in groups:
        first = group.samples[0]
        names = listed([path.as_posix() for path in group.files[:3]])
        more = f" and {len(group.files) - 3:,} more" if len(group.files) > 3 else ""
        columns = listed(first.rows.columns[:8])
        yield f"of another shape, and not in this block: {names}{more} ({first.format}, columns {columns})"
    for why in dict.fromkeys(unreadable.values()):
        of = [path.as_posix() for path, reason in unreadable.items() if reason == why]
        yield f"not in this block: {listed(of)}: {why}"


def _are_alike(one: Sample, other: Sample) -> bool:
    if one.shape != other.shape:
        return False
    if one.names_are_invented:
        return one.rows.width == other.rows.width
    names, others = {*one.rows.columns}, {*other.rows.columns}
    if any(map(is_called_time, names ^ others)):
        return False
    return len(names & others) >= _ALIKE * len(names | others)


def _ending(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.suffix in PACKED and format_by_name(path.name) else path.suffix


def _is_below(path: Path, folder: Path, below: str) -> bool:
    return path.parent == folder or (bool(below) and folder in path.parents)
