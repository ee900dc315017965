"""What stations are called in an ODB file: `statid` and `wigosid`.

Belongs here: how an id fits into the columns, and what is to be told of ids that had to be changed. Does not belong
here: the shortening that ODB shares with other formats (exporters/stations.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_dagster.exporters.odb.tables import STATION_ID_WIDTH, WIGOS_ID_WIDTH
from ionbeam_dagster.exporters.stations import fitting, is_wigos_id, position_ids

_WMO_NUMBER = r"0-20000-0-([0-9]{5})"


def _encoded(names: pa.Array) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The different names, and for each row which of them it has."""
    encoded = pc.dictionary_encode(names)
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


class StationIds:
    """What stations are called: the same in every window.

    `statid` has 8 characters, to the right as in IFS's files. A longer id loses its separators (``ab-12-cd-34`` is
    ``ab12cd34``), and where that is not enough, or it has letters that ASCII has nothing for, it becomes 8 letters and
    digits of its SHA-256 (see `fitting`). WMO's ``0-20000-0-06260`` is ``06260``. A station without an id is called by
    its position in the same way. `wigosid` is the id of a station whose id is a WIGOS one.
    """

    def __init__(self) -> None:
        self._fitted: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._places: set[str] = set()

    def of(
        self,
        names: pa.Array,
        lat: npt.NDArray[np.float64],
        lon: npt.NDArray[np.float64],
        wigos_ids: pa.Array | None = None,
    ) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.bytes_]]:
        """`statid` and `wigosid` for an array of names, nulls included; where a WIGOS id is given, it is `wigosid`, and
        WMO's station number in it is `statid`."""
        names = names.cast(pa.string())
        wigos = names if wigos_ids is None else pc.coalesce(wigos_ids.cast(pa.string()), names, "")
        if wigos_ids is not None:
            numbered = pc.match_substring_regex(wigos, f"^{_WMO_NUMBER}$")
            names = pc.if_else(pc.fill_null(numbered, False), wigos, names)
        absent = pc.fill_null(pc.equal(names, ""), True).to_numpy(zero_copy_only=False)
        if absent.any():
            places = pa.array(position_ids(lat[absent], lon[absent]).astype(str))
            self._places.update(pc.unique(places).to_pylist())
            names = pc.replace_with_mask(names, pa.array(absent), places)
        known, number = _encoded(names)
        statid = np.array([self._fit(name) for name in known], f"S{STATION_ID_WIDTH}")
        called, place = (known, number) if wigos_ids is None else _encoded(wigos)
        wigosid = np.array([name if is_wigos_id(name) else "" for name in called], f"S{WIGOS_ID_WIDTH}")
        return statid[number], wigosid[place]

    @property
    def count(self) -> int:
        return len(self._fitted)

    def facts(self) -> dict[str, object]:
        shared = len(self._fitted) - len(set(self._fitted.values()))
        facts: dict[str, object] = {"station ids changed": len(self._changed - self._places)}
        facts |= {"station ids shared by several stations": shared} if shared else {}
        return facts | ({"stations without an id": "called by their position"} if self._places else {})

    def _fit(self, name: str) -> bytes:
        if name not in self._fitted:
            name_of_wmo = re.fullmatch(_WMO_NUMBER, name)
            as_it_is = len(name) <= STATION_ID_WIDTH and name.isascii() and name.isprintable()
            if not as_it_is:
                self._changed.add(name)
            short = name_of_wmo[1] if name_of_wmo else name
            fitted = name if as_it_is else fitting(short, STATION_ID_WIDTH)
            self._fitted[name] = fitted.rjust(STATION_ID_WIDTH).encode()
        return self._fitted[name]


def statids(stations: Mapping[str, str | None]) -> dict[str, str]:
    """The `statid` of each of these stations (ids, with the WIGOS id beside each), without blanks."""
    ids = StationIds()
    called = {}
    for name, wigos_id in stations.items():
        numbered = wigos_id is not None and re.fullmatch(_WMO_NUMBER, wigos_id)
        called[name] = ids._fit(wigos_id if numbered and wigos_id else name).decode().strip()
    return called


def shared_statids(stations: Mapping[str, str | None]) -> dict[str, list[str]]:
    """The `statid` that several of these stations (ids, with the WIGOS id beside each) would have, and which."""
    called: dict[str, list[str]] = {}
    for name, statid in statids(stations).items():
        called.setdefault(statid, []).append(name)
    return {statid: names for statid, names in called.items() if len(names) > 1}
