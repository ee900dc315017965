"""A stream of items that goes on after its connection broke, with no item lost and none given twice.

Belongs here: where a stream goes on, and the proof that it is the same place. Does not belong here: how an array is cut
into items, or HTTP.

The service promises neither an order of items nor that one can ask for "the rest". So the rest is found in two ways:

- Ask for the same again, and pass over what was given, if these are the same bytes (their number and CRC-32). This is
  right whatever the order of the items, and costs a download of what was had.
- Where that is much, and all items so far were of one series in strict order of time, ask from just before the last
  item, and pass over all up to an item that is equal to it. A service that put its first megabytes in order is taken to
  put all of them in order; should an item then go back in time, that is an error, for another may have been lost.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import replace
from datetime import UTC, timedelta
from operator import lt
from typing import Any

from ionbeam_client.datastore import constants
from ionbeam_client.datastore.calls import is_timestamp, timestamp
from ionbeam_client.datastore.constants import DataResolutions
from ionbeam_client.datastore.errors import ServiceError
from ionbeam_client.datastore.http import READ, BrokenStreamError, Open, Pause, Request, Stream
from ionbeam_client.datastore.stream import ArraySplitter, IncompleteArrayError, Item

_LOG = logging.getLogger(__name__)
_MUCH = 4 << 20
"""Bytes that are not downloaded again where there is another way."""
_NAMES_OF_TIME = ("time", "timestamp", "datetime")


def items(request: Request) -> Stream:
    """The items of one request for data, in lists, as they arrive.

    Raises ServiceError if the connection breaks again and again without one more item, or if the service no longer
    gives what it gave before.
    """
    had = _Had(request)
    while True:
        before = had.items
        try:
            yield from had.rest()
            return
        except (BrokenStreamError, IncompleteArrayError) as error:
            had.note_break(error, had.items > before)
            if had.breaks >= constants.ATTEMPTS:
                raise ServiceError(
                    f"{request.path}: broken off {had.breaks} times without one more item, after {had.items}: "
                    f"{_why(error)}", may_pass=True,
                ) from error  # fmt: skip
        if had.breaks:
            yield Pause(min(constants.FIRST_PAUSE * 2 ** (had.breaks - 1), constants.LONGEST_PAUSE))


class _Had:
    """What a stream has given so far."""

    def __init__(self, request: Request) -> None:
        self.items = 0
        self.breaks = 0
        """In a row, without an item between them."""
        self._request = request
        self._splitter = ArraySplitter()
        self._is_whole = True
        """All that was given came from the beginning of one answer."""
        self._series = _Series(request)

    def note_break(self, error: Exception, went_on: bool) -> None:
        self.breaks = 0 if went_on else self.breaks + 1
        _LOG.warning("%s: broken off after %d items, going on: %s", self._request.path, self.items, _why(error))

    def rest(self) -> Stream:
        """From the beginning, or on from where it broke; the items that were not given before."""
        if not self.items:
            self._splitter = ArraySplitter()
            yield Open(self._request)
            yield from self._read()
        elif self._position > _MUCH and (start := self._series.start_of_rest()):
            yield from self._rest_by_time(start)
        else:
            yield from self._rest_by_bytes()

    @property
    def _position(self) -> float:
        position = self._splitter.position if self._is_whole else None
        return float("inf") if position is None else position

    def _rest_by_bytes(self) -> Stream:
        position, checksum = self._splitter.position, self._splitter.checksum
        if position is None or not self._is_whole:
            raise ServiceError(
                f"{self._request.path}: broken off after {self.items} items that are not in order of time: where to go "
                "on cannot be found. Ask for a shorter range"
            )
        yield Open(self._request)
        seen, checked = b"", 0
        passed = 0
        while passed < position:
            chunk = yield READ
            if not chunk:
                raise BrokenStreamError("the answer ended before the place where it broke off before")
            seen = chunk[: position - passed]
            checked = zlib.crc32(seen, checked)
            passed += len(seen)
        if checked != checksum:
            raise self._changed()
        self._splitter = ArraySplitter(position, checksum)
        yield from self._read(chunk[len(seen) :])

    def _rest_by_time(self, start: str) -> Stream:
        yield Open(replace(self._request, query={**self._request.query, "start_datetime": start}))
        splitter = ArraySplitter()
        rest = None
        while rest is None:
            chunk = yield READ
            found = splitter.feed(chunk) if chunk else splitter.close()
            rest = self._series.after_last(found)
            if rest is None and (not chunk or self._series.is_beyond_last(found)):
                break
        if rest is None and self._is_whole:
            yield from self._rest_by_bytes()
            return
        if rest is None:
            raise self._changed()
        self._is_whole, self._splitter = False, splitter
        if rest:
            yield self._give(rest)
        yield from self._read()

    def _read(self, chunk: bytes = b"") -> Stream:
        while True:
            if chunk and (found := self._splitter.feed(chunk)):
                yield self._give(found)
            chunk = yield READ
            if not chunk:
                break
        if found := self._splitter.close():
            yield self._give(found)

    def _give(self, found: list[Item]) -> list[Item]:
        self._series.note(found)
        if not self._is_whole and not self._series.is_in_order:
            raise ServiceError(
                f"{self._request.path}: after it broke off, items go back in time: none can be said to be complete. "
                "Ask again, for a shorter range"
            )
        self.items += len(found)
        self.breaks = 0
        return found

    def _changed(self) -> ServiceError:
        return ServiceError(
            f"{self._request.path}: broken off after {self.items} items, and the service no longer gives the same "
            "ones: they were changed meanwhile. Ask again", may_pass=True,
        )  # fmt: skip


class _Series:
    """Whether items are of one series in strict order of time, and the last of them."""

    def __init__(self, request: Request) -> None:
        query = request.query
        self.last: Item = {}
        self.is_in_order = (
            query.get("resolution") == DataResolutions.SECOND.value
            and query.get("routed") != "true"
            and not query.keys() & {"agg", "fill_data_method"}
        )
        self._name = ""

    def note(self, found: list[Item]) -> None:
        """Take the next items to account."""
        if not self.is_in_order:
            return
        name = self._name = self._name or next(filter(found[0].get, _NAMES_OF_TIME), "")
        times = [item.get(name) for item in found]
        if self.last:
            times.insert(0, self.last[name])
        self.is_in_order = _ascend(times)
        self.last = found[-1]

    def after_last(self, found: list[Item]) -> list[Item] | None:
        """Those behind the last item that was given; None if it is not among them."""
        return found[found.index(self.last) + 1 :] if self.last in found else None

    def is_beyond_last(self, found: list[Item]) -> bool:
        """Whether the last item that was given should have been seen by now."""
        if not found:
            return False
        time = found[-1].get(self._name)
        return not isinstance(time, str) or time >= self.last[self._name]

    def start_of_rest(self) -> str | None:
        """A moment before the last item from which to ask; None where the order of items does not allow it."""
        if not (self.is_in_order and self.last):
            return None
        try:
            moment = timestamp(self.last[self._name]).astimezone(UTC) - timedelta(seconds=1)
        except (ValueError, OverflowError):
            return None
        return f"{moment:%Y-%m-%d %H:%M:%S}"


def _ascend(times: list[Any]) -> bool:
    """Texts of one form, each after the one before."""
    if set(map(type, times)) != {str} or len(set(map(len, times))) != 1:
        return False
    return all(map(lt, times, times[1:])) and is_timestamp(times[0])


def _why(error: Exception) -> str:
    return str(error) or "the answer ended before its closing bracket"
