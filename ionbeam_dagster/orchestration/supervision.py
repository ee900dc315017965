"""Keeps child processes going: starts them, watches them, and starts again what ended or hangs.

Belongs here: when a child is dead or hangs, how long is waited before it is started again, and that no child outlives
this process. Does not belong here: which children there are, and how each is asked whether it is well (dev.py).

A child hangs when it does not answer and uses no processor either: one that is merely busy is given longer. A pause of
this process itself (a machine that slept) is no silence of others.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ionbeam_client.text import visible

ASKED_EVERY = 2.0
HANGS_AFTER = 15.0
"""Seconds without an answer after which a child that uses no processor is killed, and started again."""
BUSY_FOR = 180.0
"""The same for one that uses the processor, or that has not answered yet since it was started."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before what ended is started again, doubled each time that it ends at once."""
WELL_AFTER = 60.0
"""Seconds after which a child that goes on is believed to be well, and waits the shortest time again."""
STOPPED_WITHIN = 10.0
_LOOKED_WITHIN = 5.0
_LOOKED_THROUGH = 1 << 18  # bytes of what a child said last
_ERROR = re.compile(r"^(?!grpc\.|\S*Unreachable)[\w.]*(?:Error|Exception)\b: .+", re.MULTILINE)
"""The last line of a stack; not that of another child, in the same log, which cannot reach the one that ended."""
_LONGEST_ERROR = 500

Report = Callable[[str], object]


@dataclass(slots=True)
class Child:
    """A program, and how it is asked whether it is well: `answers` gets its process number, and takes a few seconds at
    most."""

    name: str
    command: Sequence[str]
    log: Path
    """Where what it says is written, after what is there."""
    answers: Callable[[int], bool]
    process: subprocess.Popen[bytes] | None = None
    groups: list[int] = field(default_factory=list)
    """Process groups that it was the first of, also of those that ended: what it started may go on."""
    has_answered: bool = False
    _silent: float = 0.0
    _begun: float = 0.0
    _begins: float = 0.0
    _wait: float = FIRST_WAIT
    _worked: int | None = None
    _idle: float = 0.0
    _said: int = 0

    def start(self) -> None:
        bound = Path(__file__).with_name("bound.py")
        command = [sys.executable, str(bound), str(os.getpid()), *self.command]
        # a group of its own: an interrupt at the terminal is ours to pass on, and what it started ends with it
        with self.log.open("ab") as log:
            self._said = log.tell()
            self.process = subprocess.Popen(command, process_group=0, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.groups = [*filter(_goes_on, self.groups), self.process.pid]
        self._begun = time.monotonic()
        self._silent = self._idle = 0.0
        self._worked, self.has_answered = None, False

    def look(self, passed: float) -> str | None:
        """Ask whether it is well, `passed` seconds after the last time; gives what was done about it, if anything."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._begins:
                self.start()
            return None
        if (code := self.process.poll()) is not None:
            return self._again(f"ended with {_described(code)}")
        if self.answers(self.process.pid):
            self.has_answered, self._silent, self._idle = True, 0.0, 0.0
            if now - self._begun > WELL_AFTER:
                self._wait = FIRST_WAIT
            return None
        self._silent += passed
        worked = processor_used(self.process.pid)
        self._idle = self._idle + passed if worked is not None and worked == self._worked else 0.0
        self._worked = worked
        if self._silent < BUSY_FOR and not (self.has_answered and self._idle >= HANGS_AFTER):
            return None
        self.process.kill()
        self.process.wait()
        return self._again(f"did not answer for {self._silent:.0f} s and was killed")

    def _again(self, why: str) -> str:
        self.process = None
        self._begins = time.monotonic() + self._wait
        told = f"{self.name} {why}; started again in {self._wait:g} s (it said: {self.log})"
        if error := self._last_error():
            told += f": {error}"
        self._wait = min(self._wait * 2, LONGEST_WAIT)
        return told

    def _last_error(self) -> str:
        """The last error in the log since it was started, without its stack; nothing, if there is none."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._said if self._said <= size else 0, size - _LOOKED_THROUGH))
                errors = _ERROR.findall(log.read().decode(errors="replace"))
        except OSError:
            return ""
        return visible(errors[-1], _LONGEST_ERROR) if errors else ""

    def restart(self) -> None:
        """End it in good order; it is started again at once."""
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOPPED_WITHIN)
            self.process.kill()
            self.process.wait()
            self.process, self._begins = None, 0.0


@dataclass(slots=True)
class Supervisor:
    """Watches children until `stop`; does each of `on_ready` once all have answered, and `on_look` at each look."""

    children: Sequence[Child]
    report: Report
    on_ready: Sequence[Callable[[], object]] = ()
    on_look: Sequence[Callable[[], object]] = ()
    _stopping: bool = field(default=False, init=False)

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until `stop`; then all children are ended, and what they started with them."""
        waiting, answered, looked = list(self.on_ready), False, time.monotonic()
        try:
            while not self._stopping:
                now = time.monotonic()
                passed, looked = min(now - looked, _LOOKED_WITHIN), now
                for child in self.children:
                    with self._going_on():
                        if done := child.look(passed):
                            self.report(done)
                answered = answered or all(child.has_answered for child in self.children)
                for begin in waiting[:] if answered else ():
                    with self._going_on():
                        begin()
                        waiting.remove(begin)
                for look in self.on_look:
                    with self._going_on():
                        look()
                time.sleep(ASKED_EVERY if answered else 0.2)
        finally:
            self._end()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """No fault of one look, such as a full disk or a lack of memory, ends the watching."""
        try:
            yield
        except Exception as error:
            self.report(f"could not look: {type(error).__name__}: {error}")

    def _end(self) -> None:
        """Let the children end in good order, then what they started, and kill what is left."""
        running = [child.process for child in self.children if child.process is not None]
        groups = [group for child in self.children for group in child.groups]
        _signal(groups, signal.SIGCONT)
        for process in running:
            process.terminate()
        until = time.monotonic() + STOPPED_WITHIN
        while time.monotonic() < until and any(process.poll() is None for process in running):
            time.sleep(0.1)
        _signal(groups, signal.SIGTERM)
        until = time.monotonic() + STOPPED_WITHIN
        while time.monotonic() < until and any(map(self._still, groups)):
            time.sleep(0.1)
        _signal(groups, signal.SIGKILL)
        for process in running:
            process.wait()

    def _still(self, group: int) -> bool:
        for child in self.children:
            if child.process is not None:
                child.process.poll()  # what has ended, and nobody asked for, counts as there
        return _goes_on(group)


def _signal(groups: Sequence[int], number: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _goes_on(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def processor_used(process: int) -> int | None:
    """How much processor a process has used, in clock ticks; None where nobody can say."""
    try:
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(told[11]) + int(told[12])


def awoken(process: int) -> int | None:
    """How often the main thread of a process has gone to sleep, so how often it awoke; None where nobody can say."""
    try:
        told = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    return int(told.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])


def _described(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
