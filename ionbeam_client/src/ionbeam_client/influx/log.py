"""The log of a station on its disk: appended by any number of processes, and the queue of everything that sends.

Belongs here: the file that people see, its segments, appending durably, rotation, reading on from a position. Does not
belong here: who has read how far (state.py), and what lines mean (lines.py).

Beside `log.jsonl` lies the folder `log.jsonl.state`. Every file that ever was `log.jsonl` has a second name (a hard
link) there, a number: a segment. Whatever somebody does to the visible file, rename, remove or compress it, the segment
keeps the rows until every target has them. Who appends holds a lock, and looks first whether the visible file still is
the newest segment; if not, the next one begins. So nothing is ever added to a segment that is not the newest.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from ionbeam_client.influx.errors import LogError

_logger = logging.getLogger("ionbeam_client.influx")
_MOUNTS = Path("/proc/self/mountinfo")
_OF_A_NETWORK = (
    "nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "gpfs",
    "beegfs", "davfs", "fuse.davfs", "ncp", "ocfs2", "virtiofs",
)  # fmt: skip
_TAIL = 2**20  # longer than a line
_ROOM = 2**19  # bytes of the disk that are left to the cursors


class Position(NamedTuple):
    """A place between two lines: in which segment, after how many bytes."""

    segment: int
    offset: int


class Log:
    """Appends lines, durably and whole; safe in threads, forked children and several processes."""

    def __init__(self, path: Path, rotate_bytes: float = float("inf")) -> None:
        """Raises LogError where the disk is not of this machine, or cannot hold the log."""
        self.path = path.resolve()
        self.folder = self.path.with_name(f"{self.path.name}.state")
        self._rotate_bytes = rotate_bytes
        self._file: int | None = None
        self._segment = 0
        self._longest: dict[int, int] = {}  # bytes that each segment had
        self._lock_file: int | None = None
        self._lock = threading.Lock()
        self._schema = Schemas(self.path.with_name(f"{self.path.name}.schema.json"))
        refuse_network(self.path)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._file_to_append()
        except LogError:
            raise
        except OSError as error:
            raise LogError(f"{self.path}: the log cannot be opened: {error}") from error
        _LOGS.add(self)

    # -- appending ---------------------------------------------------------------------------------------------------

    def append(self, lines: list[bytes], unsigned: Mapping[str, set[str]] | None = None) -> tuple[Position, Position]:
        """Add whole lines; they are on the disk when this returns. Gives the positions before and after them.

        `unsigned` names fields (measurement -> names) whose integers are unsigned; the schema beside the log says it.

        Raises:
            LogError: the disk is full or broken; none of the lines is in the log.
        """
        data = b"".join(lines)
        try:
            with self._locked():
                if unsigned:
                    self._schema.declare(unsigned)
                file = self._file_to_append()
                begin = os.fstat(file).st_size
                torn = begin > 0 and os.pread(file, 1, begin - 1) != b"\n"
                leave_room(self.path, len(data))
                try:
                    _write(file, b"\n" + data if torn else data)
                    os.fdatasync(file)
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(file, begin)
                    raise
                end = self._longest[self._segment] = begin + torn + len(data)
                before, after = Position(self._segment, begin + torn), Position(self._segment, end)
                if end >= self._rotate_bytes:
                    self._rotate()
                return before, after
        except OSError as error:
            raise LogError(f"{self.path}: nothing was logged: {error.strerror or error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            if self._lock_file is None:
                self._lock_file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _file_to_append(self) -> int:
        """The newest segment, when the visible file still is that one; else the next segment begins."""
        try:
            visible = self.path.stat()
        except FileNotFoundError:
            visible = None
        if visible is not None and self._is_newest(visible):
            assert self._file is not None
            if visible.st_size >= self._longest.get(self._segment, 0):
                return self._file
            _logger.error("%s was cut by somebody else; rows that were not delivered yet may be lost", self.path)
            self._rotate()
            return self._file
        self.folder.mkdir(parents=True, exist_ok=True)
        newest = max(self.segments(), default=0)
        if newest and visible is not None and os.path.samestat(self.segment_path(newest).stat(), visible):
            return self._open(newest)
        if newest and self._file is not None:
            _logger.warning("%s was renamed or removed by somebody else; what was in it is still sent", self.path)
        self._begin(newest + 1, visible is not None)
        assert self._file is not None
        return self._file

    def _is_newest(self, visible: os.stat_result) -> bool:
        """Whether what people see is what is open here, and is the newest segment, and has its second name still."""
        return (
            self._file is not None
            and os.path.samestat(os.fstat(self._file), visible)
            and visible.st_nlink > 1
            and not self.segment_path(self._segment + 1).exists()
        )

    def _begin(self, segment: int, adopt: bool) -> None:
        link = self.segment_path(segment)
        try:
            if adopt:
                os.link(self.path, link)
            else:
                os.close(os.open(link, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                os.link(link, self.path)
        except PermissionError as error:
            raise LogError(
                f"{self.path}: a second name (hard link) for the log cannot be made beside it: {error.strerror}. Put "
                "it on a file system that has hard links (ext4, xfs, btrfs; not FAT), in a file of your own"
            ) from error
        for folder in (self.folder, self.path.parent):
            _sync_folder(folder)
        self._open(segment)

    def _open(self, segment: int) -> int:
        if self._file is not None:
            os.close(self._file)
        self._file = os.open(self.segment_path(segment), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._segment = segment
        return self._file

    def _rotate(self) -> None:
        self.path.rename(free_name(self.path, self._segment))
        self._begin(self._segment + 1, False)

    # -- reading -----------------------------------------------------------------------------------------------------

    def segments(self) -> list[int]:
        """The numbers of all segments, the oldest first."""
        return sorted(int(path.stem) for path in self.folder.glob("*.jsonl") if path.stem.isdecimal())

    def segment_path(self, segment: int) -> Path:
        return self.folder / f"{segment:08}.jsonl"

    def read(self, position: Position | None, rows: int, size: int) -> tuple[list[bytes], list[Position]]:
        """The next lines after `position` (None: the very first), at most `rows` of them, and the position after each.

        None: nothing is there yet. At most about `size` bytes are read, but always one whole line.
        """
        segments = self.segments()  # looked at before the file: what is not the newest does not grow
        for segment in segments:
            if position is not None and segment < position.segment:
                continue
            offset = position.offset if position is not None and segment == position.segment else 0
            lines = self._read_segment(segment, offset, rows, size, segment < segments[-1])
            if lines:
                ends = []
                for line in lines:
                    offset += len(line)
                    ends.append(Position(segment, offset))
                return lines, ends
        return [], []

    def _read_segment(self, segment: int, offset: int, rows: int, size: int, closed: bool) -> list[bytes]:
        with self.segment_path(segment).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
            while data and b"\n" not in data and (more := file.read(size)):
                data += more
            ended = not file.read(1)
        lines = data.split(b"\n", rows)
        rest = lines.pop()
        lines = [line + b"\n" for line in lines]
        if closed and ended and rest and len(lines) < rows:
            lines.append(rest)  # torn when its writer was killed; nobody will close it
        return lines

    def end(self) -> Position:
        """The position behind the last whole line that is in the log now."""
        for segment in reversed(self.segments()):
            with self.segment_path(segment).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                line_end = file.read().rfind(b"\n") + 1
            if line_end:
                return Position(segment, max(0, size - _TAIL) + line_end)
        return Position(0, 0)

    def waiting(self, position: Position | None) -> int:
        """Bytes after `position`."""
        total = 0
        for segment in self.segments():
            with suppress(FileNotFoundError):
                size = self.segment_path(segment).stat().st_size
                if position is None or segment > position.segment:
                    total += size
                elif segment == position.segment:
                    total += max(0, size - position.offset)
        return total

    def lengths(self, segment: int) -> tuple[int, int]:
        """How many bytes a segment has, and how many it had once, as far as this process saw it: more, if it was cut.

        Raises:
            FileNotFoundError: there is no such segment any more.
        """
        known = self._longest.get(segment, 0)  # before the look: what is written meanwhile was not cut
        size = self.segment_path(segment).stat().st_size
        longest = max(size, known)
        self._longest[segment] = max(longest, self._longest.get(segment, 0))
        return size, longest

    def had_once(self, segment: int, size: int) -> None:
        """A segment had so many bytes: when it has fewer, it was cut while no program ran, and is not continued."""
        self._longest[segment] = max(size, self._longest.get(segment, 0))

    def remove_before(self, segment: int) -> None:
        """Let go of segments that everybody has read; the visible files stay."""
        for number in self.segments()[:-1]:
            if number < segment:
                self._longest.pop(number, None)
                self.segment_path(number).unlink(missing_ok=True)

    def schema(self) -> dict[str, dict[str, str]]:
        """measurement -> field -> type, as the file beside the log says now."""
        return self._schema.read()

    def close(self) -> None:
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        for file in (self._file, self._lock_file):
            if file is not None:
                os.close(file)
        self._file = self._lock_file = None

    def after_fork(self) -> None:
        """In a forked child: locks of its own, because a file that is inherited shares its lock with the parent."""
        self._lock = threading.Lock()
        self._let_go()


class Schemas:
    """`<log>.schema.json`: the types of fields that JSON cannot tell. People may edit it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._known: dict[str, dict[str, str]] = {}

    def read(self) -> dict[str, dict[str, str]]:
        """What the file says; read again only when it changed.

        Raises:
            LogError: it is not JSON of the form {"measurement": {"field": "unsigned" or "float"}}.
        """
        try:
            about = self.path.stat()
        except FileNotFoundError:
            return {}
        now = (about.st_mtime_ns, about.st_ino)
        if now != self._seen:
            try:
                known = orjson.loads(self.path.read_bytes())
                fit = all(kind in ("unsigned", "float") for types in known.values() for kind in types.values())
            except (ValueError, AttributeError):
                fit = False
            if not fit:
                raise LogError(
                    f'{self.path}: it has to be JSON such as {{"measurement": {{"field": "unsigned"}}}}, with the '
                    "types unsigned and float; correct it"
                )
            self._known, self._seen = known, now
        return self._known

    def declare(self, unsigned: Mapping[str, set[str]]) -> None:
        """Say that these fields are unsigned, unless the file says something of them already."""
        known = self.read()
        new = {name: fields - known.get(name, {}).keys() for name, fields in unsigned.items()}
        if not any(new.values()):
            return
        merged = known | {name: dict.fromkeys(sorted(new[name]), "unsigned") | known.get(name, {}) for name in new}
        replace_file(self.path, orjson.dumps(merged, option=orjson.OPT_INDENT_2))


def replace_file(path: Path, data: bytes) -> None:
    """Durably, the new content or the old one, never a part."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync_folder(path.parent)


def free_name(path: Path, number: int) -> Path:
    """A name for a file that is rotated: with the number, or the next one that is free."""
    while (place := path.with_name(f"{path.name}.{number:06}")).exists():
        number += 1
    return place


def remove_rotated(path: Path, older_than: float) -> None:
    """Remove files that rotation renamed, were last written before (s since 1970), and are no segment any more."""
    for place in path.parent.glob(f"{path.name}.*"):
        if place.name.removeprefix(f"{path.name}.").isdecimal():
            about = place.stat()
            if about.st_nlink == 1 and about.st_mtime < older_than:
                _logger.info("%s is removed: delivered, and older than keep_days", place)
                place.unlink(missing_ok=True)


def refuse_network(path: Path) -> None:
    """Raise LogError where the file system is of a network: locks and fdatasync promise nothing there."""
    kind = file_system_of(path)
    if kind and kind.startswith(_OF_A_NETWORK):
        raise LogError(
            f"{path}: this is a network file system ({kind}), on which a log cannot be locked or durable; name a file "
            "on a disk of this machine"
        )


def file_system_of(path: Path) -> str | None:
    """The kind of file system under a path, such as ext4; None where the system does not tell (not Linux)."""
    try:
        mounts = _MOUNTS.read_text().splitlines()
    except OSError:
        return None
    best, kind = "", None
    for mount in mounts:
        left, _, right = mount.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        if len(point) >= len(best) and path.is_relative_to(point):
            best, kind = point, right.split()[0]
    return kind


class OneAtATime:
    """A lock between processes, which the operating system frees when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def hold(self) -> bool:
        """Take it if it is free; True when it is ours."""
        if self._file is not None:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Free it; in a forked child, forget what is the parent's."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


_LOGS: weakref.WeakSet[Log] = weakref.WeakSet()


def _in_the_child() -> None:
    for log in list(_LOGS):
        log.after_fork()


os.register_at_fork(after_in_child=_in_the_child)


def leave_room(path: Path, size: int) -> None:
    """Raise OSError where `size` further bytes would fill the disk of a file to the last: nothing could be sent from a
    full disk, as nobody could note how far it is. A file system without blocks does not tell how much room it has."""
    disk = os.statvfs(path)
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < size + _ROOM:
        raise OSError(
            errno.ENOSPC, f"the disk is full but for {_ROOM // 1024} KiB, which sending needs; free space there"
        )


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
