"""The windows on the web: queries by place and time over GeoParquet files, as OGC API EDR and Features.

Belongs here: the query engine (files, regions, parameters, query), the reading of requests and the writing of answers
(asked, answers), what the service tells of itself (documents), PyGeoAPI's plugins and server, the map page. Does not
belong here: how a GeoParquet file is written (exporters/geoparquet.py). Nothing outside needs this room but the asset
of the configuration and the command that serves. PyGeoAPI itself is imported by `provider` and `server` alone.
"""

from importlib.util import find_spec


def lacking() -> str | None:
    """What is to be installed before windows can be served, and how; None where nothing is."""
    if any(find_spec(name) is None for name in ("pygeoapi", "waitress", "orjson")):
        return "PyGeoAPI; pip install 'ionbeam-dagster[edr]'"
    return None
