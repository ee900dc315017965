"""A JSON array of objects, cut into its items while it arrives.

Belongs here: the splitter, which holds one incomplete item and no more. Does not belong here: where the bytes come
from, or what is done when they end too early.

It need not understand JSON to cut: a piece that ends in `}` and is valid JSON between brackets ends where an item ends,
for in the middle of a text or of an inner object it would not be valid.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import Any

import ijson
import ijson.common
import orjson

from ionbeam_client.datastore.errors import APICompatibilityError
from ionbeam_client.reported_errors import reported_error, shown

Item = dict[str, Any]

_MOST_PENDING = 1 << 20
"""Bytes without the end of an item after which an incremental parser takes over."""
_LARGEST_ITEM = 256 << 20
"""Bytes without the end of an item after which this is no array of items that anybody meant."""
_DEEPEST = 256
"""Objects and arrays in one another; the cost of reading them grows with the square."""
_NO_NUMBER = frozenset(("Infinity", "-Infinity", "NaN"))
_SPACE = b" \t\r\n"


class IncompleteArrayError(Exception):
    """The bytes ended before the array did."""


class ArraySplitter:
    """`feed` it bytes and it gives the items that are complete; `close` it when there are no more bytes.

    `position` is the number of bytes up to the end of the last item given, and `checksum` the CRC-32 of these bytes.
    With both, another splitter goes on at that very place. `position` is None once that place is no longer known.
    """

    def __init__(self, position: int = 0, checksum: int = 0) -> None:
        self.position: int | None = position
        self.checksum = checksum
        self.is_complete = False
        self._pending = b""
        self._parser: _Incremental | None = None
        self._opening = b""

    def feed(self, chunk: bytes) -> list[Item]:
        """The items that end in `chunk`.

        Raises APICompatibilityError where this can be no array of objects.
        """
        if self._parser:
            return self._parser.feed(chunk)
        self._pending += chunk
        begin = self._find_next()
        found = self._longest(begin) if begin is not None else None
        if found is None:
            return self._hand_over() if len(self._pending) > _MOST_PENDING else []
        items, end = found
        self._drop(end)
        self._find_next()  # the end of the array may be here already
        return items

    def close(self) -> list[Item]:
        """The items that only the end made clear.

        Raises IncompleteArrayError if the array has not ended, APICompatibilityError if it is not valid.
        """
        if self.is_complete:
            return []
        position = self.position
        items = [] if self._parser else self._hand_over()
        assert self._parser is not None
        try:
            self._parser.close()
        except IncompleteArrayError:
            self.position = position
            raise
        self.is_complete = True
        return items

    def _find_next(self) -> int | None:
        """Where the next item may begin in what is pending; None if there is none, or not yet."""
        rest = self._pending.lstrip(_SPACE)
        begin = len(self._pending) - len(rest) + 1
        if self.is_complete:
            self._end(rest)
        elif not rest:
            pass
        elif self.position == 0:
            if rest[:1] != b"[":
                raise APICompatibilityError(f"an array of objects was expected, and not {_shown(rest)}")
            inside = rest[1:].lstrip(_SPACE)
            if inside[:1] != b"]":
                return begin
            self._end(inside[1:])
        elif rest[:1] == b",":
            return begin
        elif rest[:1] == b"]":
            self._end(rest[1:])
        else:
            raise APICompatibilityError(f"a comma or the end of the array was expected, and not {_shown(rest)}")
        return None

    def _end(self, rest: bytes) -> None:
        if rest.strip(_SPACE):
            raise APICompatibilityError(f"something follows the end of the array: {_shown(rest)}")
        self.is_complete = True
        self._pending = b""

    def _longest(self, begin: int) -> tuple[list[Item], int] | None:
        """The complete items from `begin` on, and where the last one ends; None if no end was found."""
        data = self._pending
        ends = [data.rfind(b"}", begin)]
        if self._opening:  # the last `}` may be an inner one: look before the last that begins as the first item did
            ends.append(data.rfind(b"}", begin, max(data.rfind(self._opening, begin), begin)))
        for end in ends:
            if end < 0:
                continue
            piece = b"".join((b"[", data[begin : end + 1], b"]"))
            try:
                items = orjson.loads(piece)
            except orjson.JSONDecodeError:
                continue
            _check_objects(items)
            if not self._opening:
                self._opening = piece[1:].lstrip(_SPACE).partition(b":")[0]
            if b'Infinity"' in piece or b'"NaN"' in piece:
                items = [_without_no_numbers(item) for item in items]
            return items, end + 1
        return None

    def _drop(self, end: int) -> None:
        """What is before `end` has been given."""
        assert self.position is not None
        self.checksum = zlib.crc32(memoryview(self._pending)[:end], self.checksum)
        self.position += end
        self._pending = self._pending[end:]

    def _hand_over(self) -> list[Item]:
        """Let the incremental parser go on, from what is pending."""
        self._parser = _Incremental()
        begun = self._pending
        if self.position:  # the parser wants an array from its beginning: an empty object stands for the items before
            begun = b"[{}" + begun
        items = self._parser.feed(begun)[1 if self.position else 0 :]
        self.position, self._pending = None, b""
        return items


class _Incremental:
    """ijson, which reads items of any shape, at a fraction of the speed."""

    def __init__(self) -> None:
        self._items = ijson.sendable_list()
        into = ijson.common.items_basecoro(self._items, "item")
        bounded = _not_deep(ijson.common.parse_basecoro(into))
        next(bounded)
        self._parser = ijson.basic_parse_coro(bounded, use_float=True)
        self._without_end = 0

    def feed(self, chunk: bytes) -> list[Item]:
        try:
            if chunk:  # none would be the end
                self._parser.send(chunk)
        except ijson.JSONError as error:
            raise APICompatibilityError(f"the answer is not valid JSON: {' '.join(str(error).split())}") from None
        items = list(self._items)
        del self._items[:]
        self._without_end = 0 if items else self._without_end + len(chunk)
        if self._without_end > _LARGEST_ITEM:
            raise APICompatibilityError(f"{self._without_end >> 20} MiB came without the end of an item")
        _check_objects(items)
        return [_without_no_numbers(item) for item in items]

    def close(self) -> None:
        try:
            self._parser.close()
        except ijson.JSONError:
            raise IncompleteArrayError from None


def _not_deep(target: Generator[None, tuple[str, Any], None]) -> Generator[None, tuple[str, Any], None]:
    """Hand on what a parser finds, as long as it is not deep. Raises APICompatibilityError."""
    depth = 0
    while True:
        event, value = yield
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
        if depth > _DEEPEST:
            raise APICompatibilityError(f"more than {_DEEPEST} objects or arrays are in one another")
        target.send((event, value))


def _check_objects(items: list[Any]) -> None:
    if not set(map(type, items)) <= {dict}:
        strange = next(item for item in items if type(item) is not dict)
        raise APICompatibilityError(f"an array of objects was expected; one of its items is {shown(strange)}")
    if error := reported_error(items, "time"):
        raise APICompatibilityError(f"the service reports an error among its items: {error}")


def _without_no_numbers(item: Item) -> Item:
    """Infinity and NaN, which the service gives as texts, are missing values."""
    return {name: None if isinstance(value, str) and value in _NO_NUMBER else value for name, value in item.items()}


def _shown(data: bytes) -> str:
    """The beginning of what came, for a message."""
    return repr(data[:80].decode(errors="replace"))
