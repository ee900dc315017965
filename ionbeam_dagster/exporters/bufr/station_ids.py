"""What stations are called in BUFR: WIGOS ids, long names, and the short ones of mobile stations.

Belongs here: the identifiers of stations, and the account of those that had to be changed. Does not belong here: what
makes a name fit, which ODB shares (exporters/stations.py).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam_dagster.domain.station_entries import WIGOS_ID
from ionbeam_dagster.exporters.bufr.settings import WMO_STATIONS, BufrSettings
from ionbeam_dagster.exporters.bufr.templates import (
    LOCAL_ID,
    MISSING,
    MOBILE_ID,
    STATION_NAME,
    WIGOS_ISSUE,
    WIGOS_ISSUER,
    WIGOS_SERIES,
    WMO_BLOCK,
    WMO_STATION_NUMBER,
)
from ionbeam_dagster.exporters.stations import fitting, position_ids

CALLED_BY = (WIGOS_SERIES, WIGOS_ISSUER, WIGOS_ISSUE, LOCAL_ID, STATION_NAME)
"""What tells stations apart; the name is blank where the WIGOS id tells it already."""
LONGEST_NAME, LONGEST_LOCAL_ID, LONGEST_MOBILE_ID = 40, 16, 9


class StationIds:
    """What stations are called: the same in every window.

    A WIGOS id is given to a station whose id is one, and to the others only under the operator's own issuer; the local
    id of those is the id without separators, or else 16 characters of its SHA-256 (see `fitting`). The long name is the
    station's own id, where no WIGOS id tells that already. A mobile station's 9 characters are made in the same way. A
    station without an id is called by its position, in units of 1e-5 degrees from the south pole and the date line.
    """

    def __init__(self, settings: BufrSettings) -> None:
        self._settings = settings
        self._changed: dict[tuple[int, str], str] = {}
        self._unnamed = False

    def of(
        self,
        names: pa.Array,
        lat: npt.NDArray[np.float64],
        lon: npt.NDArray[np.float64],
        mobile: npt.NDArray[np.bool_],
        wigos_ids: pa.Array | None = None,
    ) -> dict[int, npt.NDArray[Any]]:
        """The identifiers by descriptor, for an array of ids, nulls included; `wigos_ids` are those that are known
        beside the ids."""
        names = names.cast(pa.string())
        absent = pc.fill_null(pc.equal(names, ""), True).to_numpy(zero_copy_only=False)
        if absent.any():
            self._unnamed = True
            names = pc.replace_with_mask(
                names, pa.array(absent), pa.array(position_ids(lat[absent], lon[absent]).astype(str))
            )
        encoded = pc.dictionary_encode(names)
        called = encoded if wigos_ids is None else pc.dictionary_encode(pc.coalesce(wigos_ids.cast(pa.string()), names))
        number = called.indices.to_numpy()
        identifiers = {code: column[number] for code, column in self._wigos(called.dictionary).items()}
        name = self._fitted(encoded.dictionary, LONGEST_NAME)
        name[pc.match_substring_regex(encoded.dictionary, WIGOS_ID).to_numpy(zero_copy_only=False)] = b""
        identifiers[STATION_NAME] = name[encoded.indices.to_numpy()]
        identifiers[STATION_NAME][identifiers[STATION_NAME] == identifiers[LOCAL_ID]] = b""
        identifiers[MOBILE_ID] = np.zeros(len(names), f"S{LONGEST_MOBILE_ID}")
        if mobile.any():
            moving = pc.dictionary_encode(names.filter(pa.array(mobile)))
            short = self._fitted(moving.dictionary, LONGEST_MOBILE_ID)
            identifiers[MOBILE_ID][mobile] = short[moving.indices.to_numpy()]
        return identifiers

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = {}
        for width, what in (
            (LONGEST_NAME, "station names"),
            (LONGEST_LOCAL_ID, "WIGOS local ids"),
            (LONGEST_MOBILE_ID, "mobile ids"),
        ):
            made = [new for (of_width, _), new in self._changed.items() if of_width == width]
            facts |= {f"{what} changed": len(made)} if made else {}
            shared = len(made) - len(set(made))
            facts |= {f"{what} shared by several stations": shared} if shared else {}
        return facts | ({"stations without an id": "called by their position"} if self._unnamed else {})

    def _wigos(self, names: pa.Array) -> dict[int, npt.NDArray[Any]]:
        """Series, issuer, issue number and local id, and WMO's block and station number, as far as there are any."""
        codes = WIGOS_SERIES, WIGOS_ISSUER, WIGOS_ISSUE, WMO_BLOCK, WMO_STATION_NUMBER
        parts = {code: np.full(len(names), MISSING) for code in codes}
        local = np.zeros(len(names), f"S{LONGEST_LOCAL_ID}")
        own = pc.match_substring_regex(names, WIGOS_ID).to_numpy(zero_copy_only=False)
        if self._settings.wigos_issuer is not None:
            minted = ~own
            parts[WIGOS_SERIES][minted] = 0
            parts[WIGOS_ISSUER][minted] = self._settings.wigos_issuer
            parts[WIGOS_ISSUE][minted] = self._settings.wigos_issue_number
            local[minted] = self._fitted(names.filter(pa.array(minted)), LONGEST_LOCAL_ID, plain=True)
        for place in np.flatnonzero(own).tolist():
            series, issuer, issue, text = names[place].as_py().split("-")
            parts[WIGOS_SERIES][place], parts[WIGOS_ISSUER][place] = int(series), int(issuer)
            parts[WIGOS_ISSUE][place] = int(issue)
            local[place] = text.encode()
            if int(issuer) == WMO_STATIONS and int(issue) == 0 and re.fullmatch(r"[0-9]{5}", text):
                parts[WMO_BLOCK][place], parts[WMO_STATION_NUMBER][place] = int(text[:2]), int(text[2:])
        return {**parts, LOCAL_ID: local}

    def _fitted(self, names: pa.Array, width: int, plain: bool = False) -> npt.NDArray[np.bytes_]:
        """Names in `width` characters (see `fitting`). Most fit as they are, and cost no loop."""
        printable = pc.ascii_is_alnum(names) if plain else pc.ascii_is_printable(names)
        fits = pc.and_(printable, pc.less_equal(pc.binary_length(names), width)).to_numpy(zero_copy_only=False)
        fitted = np.zeros(len(names), f"S{width}")
        fitted[fits] = names.filter(pa.array(fits)).to_numpy(zero_copy_only=False).astype(f"S{width}")
        for place in np.flatnonzero(~fits).tolist():
            name = names[place].as_py()
            fitted[place] = self._changed.setdefault((width, name), fitting(name, width, plain)).encode()
        return fitted
