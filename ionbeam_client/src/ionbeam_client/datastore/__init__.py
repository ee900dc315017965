"""A client of the Restream service: pads, sites, their stages and states, their data, and the changes of these data.

Belongs here: the names that users import. Does not belong here: code. `datastore_sdk` is another name of this package.
"""

from ionbeam_client.datastore.constants import (
    DataAggregations,
    DataFillMethods,
    DataResolutions,
    StageNameFilters,
)
from ionbeam_client.datastore.data import Data, DataAsync
from ionbeam_client.datastore.errors import (
    APICompatibilityError,
    APIConcurrencyLimitError,
    AuthError,
    DatastoreError,
    ServiceError,
)
from ionbeam_client.datastore.models import DataChange, DataChanges, Pad, Site, State

__all__ = [
    "APICompatibilityError",
    "APIConcurrencyLimitError",
    "AuthError",
    "Data",
    "DataAggregations",
    "DataAsync",
    "DataChange",
    "DataChanges",
    "DataFillMethods",
    "DataResolutions",
    "DatastoreError",
    "Pad",
    "ServiceError",
    "Site",
    "StageNameFilters",
    "State",
]
