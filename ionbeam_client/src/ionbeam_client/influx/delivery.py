"""Bringing rows to one server, part by part, from left to right, each part durable before the next.

Belongs here: what is done about each answer, so that one bad row neither holds up nor takes along the others. Does not
belong here: where the rows come from: the log (sender.py) or a file (replay.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ionbeam_client.influx.log import Position
from ionbeam_client.influx.state import Refusal
from ionbeam_client.influx.targets import Answer, Done, Later


@dataclass
class Chunk:
    """Some consecutive rows: as they stand in their file, where each ends, and their lines (None: there is none)."""

    raw: list[bytes]
    ends: list[Position]
    lines: list[bytes | None]
    reasons: Mapping[int, str]
    """Why there is no line, by place."""
    end: Position | None = None
    """Where the chunk ends, when that is behind its last row."""


class Writes(Protocol):
    """What takes lines."""

    def send(self, lines: list[bytes]) -> Answer: ...


@dataclass
class Delivery:
    """How a chunk is brought to one server.

    `commit(position, delivered, refusals)` makes progress durable. `later(answer, attempt)` tells and waits; False ends
    it.
    """

    server: Writes
    commit: Callable[[Position, int, list[Refusal]], None]
    later: Callable[[Later, int], bool]
    deadline: float | None = None

    def run(self, chunk: Chunk) -> bool:
        """Bring all rows; True when each is either on the server or refused."""
        parts: list[tuple[int, int, dict[int, str]]] = [(0, len(chunk.raw), dict(chunk.reasons))] if chunk.raw else []
        attempt, failing_since = 0, None
        while parts:
            begin, end, refused = parts.pop()
            places = [place for place in range(begin, end) if place not in refused]
            answer = self.server.send([chunk.lines[place] or b"" for place in places]) if places else Done()
            if isinstance(answer, Done):
                self._commit(chunk, begin, end, refused)
            elif isinstance(answer, Later):
                attempt += 1
                failing_since = failing_since or time.monotonic()
                if self.deadline is not None and time.monotonic() - failing_since > self.deadline:
                    gone = f"given up after {self.deadline:g} s: {answer.reason}"
                    self._commit(chunk, begin, end, dict.fromkeys(places, gone) | refused)
                    continue
                if not self.later(answer, attempt):
                    return False
                parts.append((begin, end, refused))
                continue
            elif answer.bad:
                parts.append((begin, end, refused | {places[place]: why for place, why in answer.bad.items()}))
            elif len(places) == 1:
                self._commit(chunk, begin, end, refused | {places[0]: answer.reason})
            else:
                middle = places[len(places) // 2]
                parts.append((middle, end, {place: why for place, why in refused.items() if place >= middle}))
                parts.append((begin, middle, {place: why for place, why in refused.items() if place < middle}))
            attempt, failing_since = 0, None
        return True

    def _commit(self, chunk: Chunk, begin: int, end: int, refused: Mapping[int, str]) -> None:
        refusals = [Refusal(chunk.raw[place], chunk.ends[place], refused[place]) for place in sorted(refused)]
        self.commit(chunk.ends[end - 1], end - begin - len(refusals), refusals)


def pause_before(attempt: int, answer: Later, longest: float, chance: Callable[[], float]) -> float:
    """Seconds until the next try: what the server asks for, else 1, 2, 4, ... with up to half of it at random less."""
    if answer.seconds is not None:
        return answer.seconds
    return min(longest, 2.0 ** min(attempt - 1, 30)) * (1 - chance() / 2)
