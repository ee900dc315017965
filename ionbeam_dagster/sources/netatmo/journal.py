"""The journal of what came over MQTT: durable as it arrives, then sorted into hours of observation.

Belongs here: files, and what survives a crash of whom. Does not belong here: the broker (subscriber.py), or what a
message says (features.py).

    <root>/arrived/<time>-<pid>.lines       messages in order of arrival, a line each: topic, tab, message
    <root>/hours/<UTC hour>/<first>-<last>-<digest>.parquet     long rows, named by their first and last time
    <root>/refused/<time>-<pid>.parquet     messages that could not be read, with the reason
    <root>/listening.json                   since when and until when the broker kept or gave us all that was published

The one process that appends to a file of arrivals holds its lock: whoever else finds it free may sort it, the reader of
a window as well as the next writer. To sort one a second time gives the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import IO

import polars as pl

from ionbeam_dagster.domain.canonical import EARLIEST
from ionbeam_dagster.domain.forgotten import NOBODY, Forgotten
from ionbeam_dagster.domain.windows import EPOCH, HOUR, Window, windows_between
from ionbeam_dagster.sources.netatmo.features import OBSERVED, in_window, read_features
from ionbeam_dagster.stores.locks import lock, lock_if_free
from ionbeam_dagster.stores.publish import published, sync

HOUR_FORMAT = "%Y%m%dT%H"
_ARRIVAL_FORMAT = "%Y%m%dT%H%M%S%f"
SORTED_BYTES = 16 << 20  # of arrivals that are sorted at once
ROTATE_BYTES = 256 << 20
ROTATE_AFTER = timedelta(seconds=30)
_SECOND = timedelta(seconds=1)
_SKEW = timedelta(hours=1)  # by which a station's clock may be ahead of ours


@dataclass(frozen=True, slots=True)
class HourFile:
    """A file of long rows whose times lie in [first, last], whole seconds."""

    path: Path
    first: datetime
    last: datetime

    def overlaps(self, window: Window) -> bool:
        return self.first < window.end and self.last >= window.start


class Journal:
    """The journal in the folder `root`. One process writes it (`Writer`), any number read it. Of stations that are
    `forgotten` nothing is sorted into hours."""

    def __init__(self, root: Path, forgotten: Callable[[], Forgotten] = lambda: NOBODY) -> None:
        self.root = root
        self._forgotten = forgotten

    def hour_files(self, window: Window) -> list[HourFile]:
        """The files that may hold rows of `window`, by name."""
        found = []
        for hour in windows_between(window.start, window.end, HOUR):
            folder = self.root / "hours" / hour.start.strftime(HOUR_FORMAT)
            found += [file for path in sorted(folder.glob("*.parquet")) if (file := _described(path)).overlaps(window)]
        return found

    def published_since(self, moment: int) -> dict[HourFile, int]:
        """The files that took their place at `moment` or later, in nanoseconds since 1970, with their own moments."""
        # A folder is as young as the last file that was renamed into it: the other days need no look.
        folders = [one for one in sorted((self.root / "hours").glob("*")) if one.stat().st_mtime_ns >= moment]
        paths = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
        known = {_described(path): path.stat().st_mtime_ns for path in paths}
        return {file: written for file, written in known.items() if written >= moment}

    def rows(self, window: Window) -> pl.DataFrame:
        """The long rows of `window`."""
        paths = [file.path for file in self.hour_files(window)]
        if not paths:
            return pl.DataFrame(schema=OBSERVED)
        return pl.scan_parquet(paths, glob=False).filter(in_window(window)).collect()

    def listened(self) -> Window | None:
        """The range of time in which nothing that was published can have passed us by; None when we never listened."""
        try:
            noted = json.loads((self.root / "listening.json").read_text())
            return Window(*(datetime.fromisoformat(noted[name]) for name in ("since", "until")))
        except FileNotFoundError:
            return None

    def refused(self) -> list[Path]:
        return sorted((self.root / "refused").glob("*.parquet"))

    def oldest_arrival(self) -> datetime | None:
        """Since when the oldest message waits to be sorted, to the second or so; None where none does."""
        return min(map(_began, (self.root / "arrived").glob("*.lines")), default=None)

    def sort(self) -> int:
        """Sort all arrivals that nobody is writing into their hours; returns how many messages they were."""
        sorted_lines = 0
        for path in sorted((self.root / "arrived").glob("*.lines")):
            with _locked(path) as file:
                if file is not None:
                    sorted_lines += self._sort_file(path, file)
                    path.unlink()
        return sorted_lines

    def _sort_file(self, path: Path, file: IO[bytes]) -> int:
        lines = 0
        for part, texts in enumerate(_portions(file)):
            messages = pl.Series(texts).str.splitn("\t", 2).struct.field("field_1").fill_null("")
            good, bad = read_features(messages)
            outside = (pl.col("datetime") < EARLIEST) | (pl.col("datetime") > _began(path) + _SKEW)
            strange = good.filter(outside)
            if strange.height:
                why = strange.select("line", messages.gather(strange["line"]).alias("text"))
                bad = pl.concat(
                    [bad, why.with_columns(pl.lit("has a datetime in the future or too old").alias("reason"))]
                )
            kept = good.filter(~outside, ~self._forgotten().among(good["platform"]))
            self._publish(kept.drop("line"))
            if bad.height:
                with published(self.root / "refused" / f"{path.stem}-{part}.parquet") as draft:
                    bad.write_parquet(draft)
            lines += len(texts)
        return lines

    def _publish(self, rows: pl.DataFrame) -> None:
        hours = rows.with_columns(pl.col("datetime").dt.truncate("1h").alias("hour"))
        for (hour,), some in hours.partition_by("hour", as_dict=True, include_key=False).items():
            assert isinstance(hour, datetime)
            some = some.unique().sort(*OBSERVED, nulls_last=False)
            first, last = _seconds(some["datetime"].min()), _seconds(some["datetime"].max())
            digest = hashlib.sha256(some.hash_rows(seed=0).to_numpy().tobytes()).hexdigest()[:16]
            folder = self.root / "hours" / hour.strftime(HOUR_FORMAT)
            with published(folder / f"{first}-{last}-{digest}.parquet") as draft:
                some.write_parquet(draft, compression="zstd", compression_level=1)

    def forget(self, before: datetime) -> int:
        """Remove the hours of observation that ended by `before`, and refused messages from then; returns how many."""
        removed = 0
        for folder in sorted((self.root / "hours").glob("*")):
            if datetime.strptime(folder.name, HOUR_FORMAT).replace(tzinfo=UTC) + HOUR <= before:
                for path in folder.glob("*"):
                    path.unlink(missing_ok=True)
                folder.rmdir()
                removed += 1
        for path in self.refused():
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                path.unlink(missing_ok=True)
        return removed


class Writer:
    """Appends to the journal. `commit` makes what was added durable: only then may a message be acknowledged.

    It raises OSError (a full disk); what was not committed is then not in the journal. A journal has one writer at a
    time: making a second one raises BlockingIOError.
    """

    def __init__(
        self, journal: Journal, rotate_after: timedelta = ROTATE_AFTER, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        self._journal = journal
        self._folder = journal.root / "arrived"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (journal.root / "writer.lock").open("w")
        if not lock_if_free(self._lock):
            raise BlockingIOError(f"another process writes the journal {journal.root}")
        self._rotate_after, self._rotate_bytes = rotate_after, rotate_bytes
        self._file: FileIO | None = None
        self._begun = EPOCH
        self._waiting: list[bytes] = []

    def listens(self, same_session: bool) -> None:
        """Note that the broker gives us what is published now; without the `same_session`, from now on only."""
        now = datetime.now(UTC)
        known = self._journal.listened() if same_session else None
        since = known.start if known else now - _SECOND
        with published(self._journal.root / "listening.json") as draft:
            draft.write_text(json.dumps({"since": since.isoformat(), "until": now.isoformat()}))

    def add(self, topic: str, message: bytes) -> None:
        """Take a message; line breaks in it, which JSON has only between its signs, become blanks."""
        self._waiting.append(_line(topic, message))

    def commit(self) -> int:
        """Write and sync all that was added; returns how many messages that were."""
        count = len(self._waiting)
        if not count:
            return 0
        file = self._file or self._open()
        end = file.tell()
        try:
            left = memoryview(b"".join(self._waiting))
            while left:
                left = left[file.write(left) :]
            os.fdatasync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise
        self._waiting.clear()
        return count

    def rotate(self, force: bool = False) -> bool:
        """Close the file when it is old or large enough; returns whether there is something new to sort."""
        if self._file is None:
            return False
        due = datetime.now(UTC) - self._begun >= self._rotate_after or self._file.tell() >= self._rotate_bytes
        if not (due or force):
            return False
        self._file.close()
        self._file = None
        return True

    def _open(self) -> FileIO:
        self._begun = datetime.now(UTC)
        path = self._folder / f"{self._begun.strftime(_ARRIVAL_FORMAT)}-{os.getpid()}.lines"
        self._file = FileIO(path, "ab")
        lock(self._file)
        sync(self._folder)
        return self._file


def _line(topic: str, message: bytes) -> bytes:
    text = message.replace(b"\r", b" ").replace(b"\n", b" ")
    try:
        text.decode()
    except UnicodeDecodeError:
        text = text.decode(errors="replace").encode()
    return b"%s\t%s\n" % (topic.replace("\t", " ").replace("\n", " ").encode(), text)


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes] | None]:
    """The file, locked; None when another process has it, or has sorted it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file if lock_if_free(file) and path.exists() else None


def _portions(file: IO[bytes]) -> Iterator[list[str]]:
    """The lines of a file in portions. One without its end was cut off by a crash, before it was acknowledged."""
    rest = b""
    while block := file.read(SORTED_BYTES):
        whole, _, rest = (rest + block).rpartition(b"\n")
        if whole:
            yield whole.decode().split("\n")


def _began(path: Path) -> datetime:
    return datetime.strptime(path.stem.split("-")[0], _ARRIVAL_FORMAT).replace(tzinfo=UTC)


def _seconds(moment: object) -> int:
    assert isinstance(moment, datetime)
    return (moment - EPOCH) // _SECOND


def _described(path: Path) -> HourFile:
    first, last, _ = path.stem.rsplit("-", 2)
    return HourFile(path, EPOCH + int(first) * _SECOND, EPOCH + int(last) * _SECOND)


def stretches(files: Iterable[HourFile]) -> list[Window]:
    """The ranges of time that the rows of `files` lie in."""
    return [Window(file.first, file.last + _SECOND) for file in files]
