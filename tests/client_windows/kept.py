"""A copy of a dataset, kept as its reader writes it, blocking and with asyncio.

Belongs here: the program of docs/following-windows.md, and what a copy holds. Does not belong here: any test.
"""

from __future__ import annotations

from pathlib import Path

from ionbeam_client.windows import Dataset


def keep(dataset: Dataset, copy: Path) -> int:
    """What a scientist writes; the number of changes."""
    events, _ = dataset.get_data_changes()
    for event in events:
        place = copy / f"{event.window}.parquet"
        if event.is_removed:
            place.unlink(missing_ok=True)
        else:
            event.get_data().save(place, overwrite=True)
        event.confirm_data_received()
    return len(events)


async def akeep(dataset: Dataset, copy: Path) -> int:
    events, _ = await dataset.aget_data_changes()
    for event in events:
        place = copy / f"{event.window}.parquet"
        if event.is_removed:
            place.unlink(missing_ok=True)
        else:
            await (await event.aget_data()).asave(place, overwrite=True)
        await event.aconfirm_data_received()
    return len(events)


def contents(folder: Path, dataset: str = "net") -> dict[str, bytes]:
    """The windows of a copy, or of a platform."""
    return {path.name.removeprefix(f"{dataset}_"): path.read_bytes() for path in folder.glob("*.parquet")}
