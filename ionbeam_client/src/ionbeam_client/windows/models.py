"""Datasets and the changes of their windows, as objects: what a user calls, with a twin for asyncio.

Belongs here: names and their meaning. Does not belong here: how windows are had (places.py), or their rows (data.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ionbeam_client.windows import feed
from ionbeam_client.windows.data import Data, DataAsync
from ionbeam_client.windows.errors import WindowsError
from ionbeam_client.windows.feed import Change
from ionbeam_client.windows.places import Place, place_of

LOG = logging.getLogger("ionbeam_client.windows")


@dataclass
class WindowChange:
    """A window that is another one now than this client has, until it says that it has it.

    `window` is its name, by start and span; `start` and `end` (not included) are its times, `modification_type` is
    ``new``, ``changed`` or ``removed``.
    """

    dataset: str
    client: str
    window: str
    version: str | None
    modification_type: str
    start: datetime
    end: datetime
    update_received: bool = False
    _place: Place = field(repr=False, kw_only=True)

    @property
    def is_removed(self) -> bool:
        """Whether the window is gone, such as by retention."""
        return self.version is None

    def get_data(self) -> Data:
        """The window as it is when it is fetched."""
        return Data(self._place, self.dataset, [self.window])

    async def aget_data(self) -> DataAsync:
        """`get_data`, for asyncio."""
        return DataAsync(self._place, self.dataset, [self.window])

    def confirm_data_received(self) -> bool:
        """Say that this version was received. A window that changed meanwhile is told again.

        It may be called again, after an error too. Raises WindowsError.
        """
        self._place.confirm(self.dataset, self.client, {self.window: self.version})
        self.update_received = True
        return True

    async def aconfirm_data_received(self) -> bool:
        """`confirm_data_received`, for asyncio."""
        return await asyncio.to_thread(self.confirm_data_received)


class Dataset:
    """A dataset of a platform, followed by one client.

    `address` is that of `ionbeam serve`, or the folder of the exports (``data-projections/pygeoapi``, or
    ``s3://bucket/prefix/pygeoapi``). What a `client` has confirmed is remembered there, under its name.
    """

    def __init__(self, name: str, address: str, client: str | None = None) -> None:
        self.name = name
        self.client = None if client is None else feed.checked_client(client)
        self._place = place_of(address)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r})"

    @classmethod
    def get_models(cls, address: str, client: str | None = None) -> list[Dataset]:
        """All datasets at an address. Raises WindowsError, as everything here does."""
        return [cls(name, address, client) for name in place_of(address).datasets()]

    @classmethod
    async def aget_models(cls, address: str, client: str | None = None) -> list[Dataset]:
        """`get_models`, for asyncio."""
        return await asyncio.to_thread(cls.get_models, address, client)

    def get_data(self, start_datetime: datetime | None = None, end_datetime: datetime | None = None) -> Data:
        """The windows that overlap a time, None for an open end, without regard to what is confirmed.

        Raises ValueError for a datetime without a zone.
        """
        return Data(self._place, self.name, self._overlapping(start_datetime, end_datetime))

    async def aget_data(
        self, start_datetime: datetime | None = None, end_datetime: datetime | None = None
    ) -> DataAsync:
        """`get_data`, for asyncio."""
        windows = await asyncio.to_thread(self._overlapping, start_datetime, end_datetime)
        return DataAsync(self._place, self.name, windows)

    def begin_anew(self) -> None:
        """Have all windows told as new, for a copy that is empty: what was confirmed by this name is forgotten.

        It warns where there was any, since another copy may have the name. Raises WindowsError.
        """
        client = feed.checked_client(self.client)
        new = {one.window for one in self._place.changes(self.name, client) if one.kind == "new"}
        has = [one.window for one in self._place.changes(self.name, None) if one.window not in new]
        if not has:
            return
        LOG.warning(
            "%s has confirmed %d windows of %s before, and is told all again; another copy that is kept by this name "
            "misses what this one confirms: give each copy a name of its own", client, len(has), self.name,
        )  # fmt: skip
        self._place.confirm(self.name, client, dict.fromkeys(has))

    async def abegin_anew(self) -> None:
        """`begin_anew`, for asyncio."""
        await asyncio.to_thread(self.begin_anew)

    def get_data_changes(self, all_may_be_gone: bool = False) -> tuple[list[WindowChange], Data]:
        """The windows that this client does not have as they are now, and the rows of all of them together.

        Where no window is left at all, a folder was lost rather than every window removed: that is a WindowsError,
        unless somebody knows better and says `all_may_be_gone`.
        """
        events = self._events(all_may_be_gone)
        return events, Data(self._place, self.name, _there(events))

    async def aget_data_changes(self, all_may_be_gone: bool = False) -> tuple[list[WindowChange], DataAsync]:
        """`get_data_changes`, for asyncio."""
        events = await asyncio.to_thread(self._events, all_may_be_gone)
        return events, DataAsync(self._place, self.name, _there(events))

    def confirm(self, events: Sequence[WindowChange]) -> None:
        """Confirm many changes at once."""
        self._place.confirm(self.name, feed.checked_client(self.client), {one.window: one.version for one in events})
        for one in events:
            one.update_received = True

    async def aconfirm(self, events: Sequence[WindowChange]) -> None:
        """`confirm`, for asyncio."""
        await asyncio.to_thread(self.confirm, events)

    def _events(self, all_may_be_gone: bool) -> list[WindowChange]:
        client = feed.checked_client(self.client)
        events = [self._event(client, one) for one in self._place.changes(self.name, client)]
        none_left = events and all(one.is_removed for one in events) and not self._place.changes(self.name, None)
        if none_left and not all_may_be_gone:
            raise WindowsError(
                f"{self.name}: all {len(events)} windows that {client} has are gone at once, as where a folder was "
                "lost or not restored; the copy stays. Where that is meant: get_data_changes(all_may_be_gone=True)"
            )
        return events

    def _event(self, client: str, one: Change) -> WindowChange:
        start, end = feed.times_of(one.window)
        return WindowChange(self.name, client, one.window, one.version, one.kind, start, end, _place=self._place)

    def _overlapping(self, start: datetime | None, end: datetime | None) -> list[str]:
        for name, moment in (("start_datetime", start), ("end_datetime", end)):
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{name}={moment.isoformat()} has no time zone: give it one, such as tzinfo={UTC!r}")
        known = ((one.window, *feed.times_of(one.window)) for one in self._place.changes(self.name, None))
        return [
            window for window, first, last in known if (start is None or last > start) and (end is None or first < end)
        ]


def _there(events: Sequence[WindowChange]) -> list[str]:
    return [event.window for event in events if not event.is_removed]
