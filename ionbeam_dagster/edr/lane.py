"""A lane for large answers, so that small ones never wait behind them.

Belongs here: who may make a large answer now. Does not belong here: which answers are large (search.py, service.py).
"""

from __future__ import annotations

import threading

PLACES = 2
WAITING = 4
"""Requests that wait for a place: fewer, with the places, than the server has threads."""
PATIENCE = 20.0  # s


class Busy(Exception):
    """There is no place, and there will be none soon."""


class Lane:
    """`places` large answers at a time; `waiting` further ones wait for a place, no longer than `patience` seconds."""

    def __init__(self, places: int = PLACES, waiting: int = WAITING, patience: float = PATIENCE) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._waiting = threading.BoundedSemaphore(waiting)
        self._patience = patience

    def enter(self) -> None:
        """Raises Busy."""
        if self._places.acquire(blocking=False):
            return
        if not self._waiting.acquire(blocking=False):
            raise Busy
        try:
            if not self._places.acquire(timeout=self._patience):
                raise Busy
        finally:
            self._waiting.release()

    def leave(self) -> None:
        self._places.release()


class Turn:
    """One request's way through the lane: it takes a place once, when it turns out to be large, and gives it back."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._has_place = False

    def take(self) -> None:
        """Raises Busy."""
        if not self._has_place:
            self._lane.enter()
            self._has_place = True

    def end(self) -> None:
        if self._has_place:
            self._has_place = False
            self._lane.leave()
