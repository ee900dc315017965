"""Data that is downloaded when somebody looks at it: item by item, or into a file.

Belongs here: the two faces of a stream, one that blocks and one for asyncio. Does not belong here: what is asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing

from ionbeam_client.datastore.http import Stream, arun_stream, run_stream
from ionbeam_client.datastore.stream import Item
from ionbeam_client.saved_file import SavedFile


class Data:
    """Data of a pad, a site or of changes, not yet asked for. It can be read or saved as often as one likes."""

    def __init__(self, make_stream: Callable[[], Stream]) -> None:
        self._make_stream = make_stream

    @property
    def data_fetcher(self) -> Generator[Item, None, None]:
        """The items, each a dict of the fields at one moment, while they are downloaded; a new download each time.

        "Infinity" and "NaN", which the service writes for values that are none, are None. A connection that breaks is
        opened again, and the items go on where they stopped.

        Raises AuthError, APICompatibilityError, APIConcurrencyLimitError or ServiceError while it is read.
        """
        return self._items()

    def _items(self) -> Generator[Item, None, None]:
        with closing(run_stream(self._make_stream())) as batches:
            for items in batches:
                yield from items

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Download into a file, .json or .csv, whose folders are made if need be.

        The file appears when it is complete; if the download fails, one that was there stays as it was.

        Raises ValueError for another ending, FileExistsError without `overwrite`, and what `data_fetcher` raises.
        """
        file = SavedFile(path, overwrite)
        try:
            with closing(run_stream(self._make_stream())) as batches:
                for items in batches:
                    file.write(items)
            file.finish()
        finally:
            file.discard()


class DataAsync:
    """`Data` for asyncio."""

    def __init__(self, make_stream: Callable[[], Stream]) -> None:
        self._make_stream = make_stream

    @property
    def data_fetcher(self) -> AsyncGenerator[Item, None]:
        """`Data.data_fetcher`, for ``async for``."""
        return self._items()

    async def _items(self) -> AsyncGenerator[Item, None]:
        async with aclosing(arun_stream(self._make_stream())) as batches:
            async for items in batches:
                for item in items:
                    yield item

    async def asave(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """`Data.save`."""
        file = SavedFile(path, overwrite)
        try:
            async with aclosing(arun_stream(self._make_stream())) as batches:
                async for items in batches:
                    file.write(items)
            await asyncio.to_thread(file.finish)
        finally:
            file.discard()
