"""Pads, sites, their states and the changes of their data, as objects.

Belongs here: what a user calls, every call with its twin for asyncio, whose name begins with an `a`. Does not belong
here: what is sent for it (calls.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ionbeam_client.datastore import calls
from ionbeam_client.datastore.calls import Fields
from ionbeam_client.datastore.constants import (
    DataAggregations,
    DataFillMethods,
    DataResolutions,
    StageNameFilters,
)
from ionbeam_client.datastore.data import Data, DataAsync
from ionbeam_client.datastore.errors import APICompatibilityError
from ionbeam_client.datastore.http import Call, Request, Stream, arun, run
from ionbeam_client.datastore.model import Model, Resource
from ionbeam_client.datastore.resume import items
from ionbeam_client.datastore.twins import data_twins, twins


class State(Resource):
    """What a site does now. `update()` asks again."""

    _kind = "states"

    site: dict[str, Any]
    site_component_configuration: dict[str, Any]
    truth_table: dict[str, Any]
    current_state: str
    actual_stage_number: int
    completed_stage_number: int
    calculated_stage_number: int
    site_name: str
    date_created: datetime | None
    last_updated: datetime | None
    last_state_update: datetime | None
    truth_table_calculating: bool
    state_change_primary_field_values: dict[str, Any]
    last_state_update_system_time: datetime | None
    last_state_confirmation_time: datetime | None
    previous_state: int | None

    @classmethod
    def get_models(
        cls, auth_token: str | None = None, as_dict: bool = False,
        stage_name_filter: StageNameFilters | None = None, **filters: Any,
    ) -> Any:  # fmt: skip
        """A list of the states of all sites that you may see, or of those in one kind of stage."""
        return run(cls._get_models(auth_token, as_dict, {**filters, "current_state_search": stage_name_filter}))

    @classmethod
    async def aget_models(
        cls, auth_token: str | None = None, as_dict: bool = False,
        stage_name_filter: StageNameFilters | None = None, **filters: Any,
    ) -> Any:  # fmt: skip
        """`get_models`, for asyncio."""
        return await arun(cls._get_models(auth_token, as_dict, {**filters, "current_state_search": stage_name_filter}))


class DataChange(Model):
    """Something that changed the data of a site between two moments, until it is confirmed."""

    created_at: datetime | None
    modification_type: str
    modification_subtype: str
    start_date: datetime | None
    end_date: datetime | None
    site: int
    update_received: bool

    def __init__(self, id: int, auth_token: str | None = None, **fields: Any) -> None:
        self.update_received = False
        super().__init__(id, auth_token, **fields)

    def _update(self) -> Call[None]:
        """Load what the service says of it now; one that it no longer lists has been confirmed."""
        self._take_from((yield from calls.changes("sites", self.site, self._auth_token, {})))

    def _confirm_data_received(self) -> Call[bool]:
        """Say that the data were received: `get_data_changes` no longer gives this event.

        True if the service agrees. It may be called again, after an error too; once confirmed it asks nothing.
        """
        if not self.update_received:
            self._take_from((yield from calls.confirm(self.site, self.id, self._auth_token)))
        return self.update_received

    def _get_data(self) -> Callable[[], Stream]:
        """The data of its range as they are now, not yet asked for."""
        changed = calls.merged([vars(self)])
        return lambda: _data_of(changed, self._auth_token)

    update, aupdate = twins(_update)
    confirm_data_received, aconfirm_data_received = twins(_confirm_data_received)
    get_data, aget_data = data_twins(_get_data)

    def _take_from(self, unconfirmed: list[Fields]) -> None:
        own = next((fields for fields in unconfirmed if str(fields.get("id")) == str(self.id)), None)
        if own is not None:
            self._take(own)
        self.update_received = own is None


DataChanges = DataChange
"""One class under both of the names that are in use."""


def _data_of(changed: list[calls.Range], auth_token: str | None) -> Stream:
    for one in changed:
        query = calls.data_query(start_datetime=one.start, end_datetime=one.end)
        yield from items(Request("sites/{id}/data/", one.site, auth_token, query, is_streamed=True))


class _PadOrSite(Resource):
    def _get_fields_metadata(self, **filters: Any) -> Call[list[Fields]]:
        """The fields that its data may have: a list of dicts."""
        return (yield from calls.many(f"{self._kind}/{{id}}/fields/", self._auth_token, filters, self.id))

    def _get_stages_metadata(
        self, start_date: datetime | None = None, end_date: datetime | None = None, stage_number: int | None = None,
        stage_name_filter: StageNameFilters | None = None, add_aggregations: bool = False, *,
        start: datetime | None = None, end: datetime | None = None, **filters: Any,
    ) -> Call[list[Fields]]:  # fmt: skip
        """Past stages: a list of dicts, each with its `aggregations` (or None) if `add_aggregations`.

        `start` and `end` are other names for `start_date` and `end_date`.

        Raises ValueError for a datetime without a zone, TypeError for both names of one thing.
        """
        if (start and start_date) or (end and end_date):
            raise TypeError("start is another name for start_date, and end for end_date: give one of the two")
        start, end = start or start_date, end or end_date
        calls.in_order("start_date", start, "end_date", end)
        asked = {**filters, "start": start, "end": end, "stage_number": stage_number, "state": stage_name_filter}
        return (yield from calls.stages(self._kind, self.id, self._auth_token, asked, add_aggregations))

    get_fields_metadata, aget_fields_metadata = twins(_get_fields_metadata)
    get_stages_metadata, aget_stages_metadata = twins(_get_stages_metadata)

    def get_data_changes(self, as_dict: bool = False, **filters: Any) -> tuple[list[Any], Data]:
        """The changes of data that were not confirmed yet: the events, and the data of all of them together.

        A moment that several events changed is in the data once. The data are not yet asked for. An event that cannot
        be followed (no range, an end before its start) is told as a RuntimeWarning and left out, so that it is not
        confirmed with the others.
        """
        found, events = self._followed(run(calls.changes(self._kind, self.id, self._auth_token, filters)))
        return found if as_dict else events, Data(lambda: _data_of(calls.merged(found), self._auth_token))

    async def aget_data_changes(self, as_dict: bool = False, **filters: Any) -> tuple[list[Any], DataAsync]:
        """`get_data_changes`, for asyncio."""
        found, events = self._followed(await arun(calls.changes(self._kind, self.id, self._auth_token, filters)))
        return found if as_dict else events, DataAsync(lambda: _data_of(calls.merged(found), self._auth_token))

    def _followed(self, told: list[Fields]) -> tuple[list[Fields], list[DataChange]]:
        """The events that can be followed, as the service tells them and as objects."""
        found, events = [], []
        for fields in told:
            try:
                calls.range_of(fields)
                events += DataChange._all_of([fields], self._auth_token)
                found.append(fields)
            except APICompatibilityError as error:
                warnings.warn(f"{self!r}: {error}; it is left out and stays unconfirmed: ask the service's support",
                              RuntimeWarning, stacklevel=3)  # fmt: skip
        return found, events

    def _stream(self, **asked: Any) -> Callable[[], Stream]:
        request = Request(
            f"{self._kind}/{{id}}/data/", self.id, self._auth_token, calls.data_query(**asked), is_streamed=True
        )
        return lambda: items(request)


class Site(_PadOrSite):
    """A well."""

    _kind = "sites"

    name: str
    date_created: datetime | None
    latitude: float | None
    longitude: float | None
    lease_name: str
    operator_name: str
    metadata: dict[str, Any]
    well_api: str | None
    pad_id: int | None
    is_demo_site: bool
    stage_total: int | None
    timezone: str | None
    current_stage_number: int | None
    current_state: str | None

    def _get_state(self, as_dict: bool = False) -> Call[Any]:
        """What it does now: a `State`, or None where the site is not configured."""
        found = yield from State._get_models(self._auth_token, as_dict, {"site__id": self.id})
        return found[0] if found else None

    def _get_pad(self, as_dict: bool = False) -> Call[Any]:
        """The pad it belongs to, or None."""
        if "pad_id" not in vars(self):
            yield from self._update()
        pad_id = getattr(self, "pad_id", None)
        return None if pad_id is None else (yield from Pad._get_model(pad_id, self._auth_token, as_dict, {}))

    def _get_measurement_sources_metadata(self) -> Call[dict[str, list[Fields]]]:
        """Its measurement sources by category: those of its pad that are attached to it."""
        pad = yield from self._get_pad()
        if pad is None:
            return {}
        of_pad = yield from pad._get_measurement_sources_metadata()
        try:
            return {
                category: [_without_sites(source) for source in sources if self.id in source["attached_sites"]]
                for category, sources in of_pad.items()
            }
        except (KeyError, TypeError):
            raise APICompatibilityError(f"{pad!r}: a measurement source does not say its attached_sites") from None

    def _get_data(
        self,
        start_datetime: datetime | None = None,
        end_datetime: datetime | None = None,
        stage_number: int | None = None,
        stage_name_filter: StageNameFilters | None = None,
        resolution: DataResolutions = DataResolutions.SECOND,
        aggregation: DataAggregations | None = None,
        fields: str | list[str] | None = None,
        si_units: bool = False,
        fill_data_method: DataFillMethods | None = None,
        fill_data_limit: int | None = None,
        inside_area_only: bool = True,
    ) -> Callable[[], Stream]:
        """Its data between two moments, both of them included, not yet asked for.

        `fields` are names from `get_fields_metadata()`. `stage_number` needs `stage_name_filter`. `fill_data_method`
        fills gaps of up to `fill_data_limit` seconds, between values only if `inside_area_only`.

        Raises ValueError for a datetime without a zone, and for choices that do not go together.
        """
        return self._stream(**_given(locals()))

    get_state, aget_state = twins(_get_state)
    get_pad, aget_pad = twins(_get_pad)
    get_measurement_sources_metadata, aget_measurement_sources_metadata = twins(_get_measurement_sources_metadata)
    get_data, aget_data = data_twins(_get_data)


class Pad(_PadOrSite):
    """Several wells in one place."""

    _kind = "pads"

    name: str
    lease_name: str
    customer_name: str
    simops_config: dict[str, Any] | None
    completion_date: datetime | None
    wireline_enabled: bool

    def _get_sites(self, as_dict: bool = False, **filters: Any) -> Call[Any]:
        """A list of its sites."""
        return (yield from Site._get_models(self._auth_token, as_dict, {**filters, "pad__id": self.id}))

    def _get_states(
        self, stage_name_filter: StageNameFilters | None = None, as_dict: bool = False, **filters: Any
    ) -> Call[Any]:
        """A list of the states of its sites that are configured, or of those in one kind of stage."""
        asked = {**filters, "pad__id": self.id, "current_state_search": stage_name_filter}
        return (yield from State._get_models(self._auth_token, as_dict, asked))

    def _get_measurement_sources_metadata(self) -> Call[dict[str, list[Fields]]]:
        """Its measurement sources by category; none where it is not configured for several at once."""
        if "simops_config" not in vars(self):
            yield from self._update()
        config = getattr(self, "simops_config", None)
        if config is None:
            return {}
        if not isinstance(config, dict) or not isinstance(config.get("measurement_sources"), dict):
            raise APICompatibilityError(f"{self!r}: simops_config has no measurement_sources")
        return config["measurement_sources"]  # type: ignore[no-any-return]

    def _get_data(
        self,
        start_datetime: datetime | None = None,
        end_datetime: datetime | None = None,
        stage_number: int | None = None,
        stage_name_filter: StageNameFilters | None = None,
        resolution: DataResolutions = DataResolutions.SECOND,
        aggregation: DataAggregations | None = None,
        fields: str | list[str] | None = None,
        si_units: bool = False,
        measurement_sources_names: str | list[str] | None = None,
        is_routed: bool = False,
        fill_data_method: DataFillMethods | None = None,
        fill_data_limit: int | None = None,
        inside_area_only: bool = True,
    ) -> Callable[[], Stream]:
        """Its data between two moments, both of them included, not yet asked for.

        With `is_routed` an item is of one site; else it is of the whole pad, and the fields of a measurement source
        begin with its name. `stage_number` needs `is_routed` and `stage_name_filter`. All else as for a site.

        Raises ValueError for a datetime without a zone, and for choices that do not go together.
        """
        return self._stream(**_given(locals()))

    get_sites, aget_sites = twins(_get_sites)
    get_states, aget_states = twins(_get_states)
    get_measurement_sources_metadata, aget_measurement_sources_metadata = twins(_get_measurement_sources_metadata)
    get_data, aget_data = data_twins(_get_data)


def _without_sites(source: Fields) -> Fields:
    return {name: value for name, value in source.items() if name != "attached_sites"}


def _given(names: Fields) -> Fields:
    return {name: value for name, value in names.items() if name != "self"}
