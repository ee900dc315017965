"""PyGeoAPI's plugins: an EDR provider and a Features provider over windows.

Belongs here: what PyGeoAPI calls, in its own words. Does not belong here: queries and answers. A PyGeoAPI that
somebody else runs takes them by name from its configuration; `ionbeam serve` answers queries before they get here,
since PyGeoAPI hands on neither all parameters nor the form of the answer.
"""

from __future__ import annotations

import json
from typing import Any

from pygeoapi.provider.base import BaseProvider, ProviderInvalidQueryError, ProviderItemNotFoundError
from pygeoapi.provider.base_edr import BaseEDRProvider

from ionbeam_dagster.edr import answers
from ionbeam_dagster.edr.pages import item, page
from ionbeam_dagster.edr.refusals import BadRequest
from ionbeam_dagster.edr.requests import read_request
from ionbeam_dagster.edr.search import listed, places, run
from ionbeam_dagster.edr.service import collection_of


def _refused(error: BadRequest) -> ProviderInvalidQueryError:
    return ProviderInvalidQueryError(str(error), user_msg=str(error))


class _Windows:
    """What both providers share: their collection and its fields."""

    def _open(self, provider_def: dict[str, Any]) -> None:
        self.collection = collection_of(str(provider_def.get("name")), provider_def)

    def _fields_of_windows(self) -> dict[str, Any]:
        return {
            id: {"type": "number", "title": one.description, "x-ogc-unit": one.unit}
            for id, one in self.collection.parameters().items()
        }


class WindowsEDR(_Windows, BaseEDRProvider):  # type: ignore[misc]  # PyGeoAPI has no types
    """EDR over a folder of windows (``data``)."""

    def __init__(self, provider_def: dict[str, Any]) -> None:
        super().__init__(provider_def)
        self._open(provider_def)
        self.get_fields()

    def get_fields(self) -> dict[str, Any]:
        self._fields = self._fields_of_windows()
        return self._fields

    def position(self, **given: Any) -> Any:
        return self._coverages("position", given)

    def radius(self, **given: Any) -> Any:
        return self._coverages("radius", given)

    def area(self, **given: Any) -> Any:
        return self._coverages("area", given)

    def cube(self, **given: Any) -> Any:
        return self._coverages("cube", given)

    def trajectory(self, **given: Any) -> Any:
        return self._coverages("trajectory", given)

    def locations(self, **given: Any) -> Any:
        if given.get("location_id") is not None:
            return self._coverages("locations", given)
        request = self._request("locations", given)
        found = places(self.collection, request.query)
        shown = listed(found, None, request.limit)
        return _plain(answers.locations(shown, "locations", [], found.table.num_rows))

    def _coverages(self, kind: str, given: dict[str, Any]) -> Any:
        found = run(self.collection, self._request(kind, given).query)
        if given.get("location_id") is not None and not found.table.num_rows:
            raise ProviderItemNotFoundError(f"no observation of location {given['location_id']}")
        return _plain(answers.covjson(found))

    def _request(self, kind: str, given: dict[str, Any]) -> Any:
        said = {
            "coords": given["wkt"].wkt if given.get("wkt") is not None and kind not in ("cube", "locations") else None,
            "bbox": ",".join(map(str, given["bbox"])) if given.get("bbox") and kind in ("cube", "locations") else None,
            "datetime": given.get("datetime_"),
            "parameter-name": ",".join(given.get("select_properties") or ()) or None,
            "z": given.get("z"),
            "within": given.get("within"),
            "within-units": given.get("within_units"),
            "limit": str(given["limit"]) if kind == "locations" and given.get("limit") else None,
        }
        try:
            named = {key: str(value) for key, value in said.items() if value is not None}
            return read_request(self.collection, kind, named, given.get("location_id"))
        except BadRequest as error:
            raise _refused(error) from error


class WindowsFeatures(_Windows, BaseProvider):  # type: ignore[misc]  # PyGeoAPI has no types
    """Every observation of a folder of windows (``data``) as a feature."""

    def __init__(self, provider_def: dict[str, Any]) -> None:
        super().__init__(provider_def)
        self._open(provider_def)
        self.get_fields()

    def get_fields(self) -> dict[str, Any]:
        texts = {name: {"type": "string"} for name in self.collection.described()}
        self._fields = {"datetime": {"type": "string", "format": "date-time"}, **texts, **self._fields_of_windows()}
        return self._fields

    def query(
        self,
        offset: int = 0,
        limit: int = 10,
        resulttype: str = "results",
        bbox: Any = (),
        datetime_: str | None = None,
        properties: Any = (),
        **_: Any,
    ) -> Any:
        said = {"offset": str(offset), "limit": str(max(1, limit))}
        said |= {"bbox": ",".join(map(str, bbox))} if bbox else {}
        said |= {"datetime": datetime_} if datetime_ else {}
        try:
            request = read_request(self.collection, "items", said)
        except BadRequest as error:
            raise _refused(error) from error
        one = page(self.collection, request.query, request.limit, request.offset)
        if resulttype == "hits":
            return {"type": "FeatureCollection", "features": [], "numberMatched": one.matched or 0, "numberReturned": 0}
        return _plain(answers.features(one.found, matched=one.matched))

    def get(self, identifier: str, **_: Any) -> Any:
        found = item(self.collection, str(identifier))
        if not found.table.num_rows:
            raise ProviderItemNotFoundError(f"no observation {identifier}")
        return _plain(answers.features(found)["features"][0])


def _plain(document: dict[str, Any]) -> Any:
    """Without NumPy, which PyGeoAPI does not write."""
    return json.loads(answers.as_json(document))
