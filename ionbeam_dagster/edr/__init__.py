"""The windows on the web: queries by place and time over GeoParquet files, as OGC API EDR and Features.

    files, footers, parameters, collection    what there is
    requests, coordinates, crs, filters       what is asked: from text to a Query, or a refusal
    query, reading, matching, search, pages, regions    the rows that answer it
    answers, streams, documents, map_page, api_page   what is sent
    service, lane, server                     who answers whom, and PyGeoAPI around it
    provider                                  plug-ins of PyGeoAPI, for one that somebody else runs
    about, extents, configuration, served     what the service is told of the platform's datasets
    mirror                                    exports in S3, fetched into a folder
    conformance                               whether a service, ours or any other, keeps to the standards

Belongs here: everything of the service. Does not belong here: how a GeoParquet file is written (the exporters' room).
Nothing outside needs this room but the asset of the configuration and the commands that serve and check. PyGeoAPI
itself is imported by `provider` and `server` alone.
"""

from importlib.util import find_spec


def lacking() -> str | None:
    """What is to be installed before windows can be served, and how; None where nothing is."""
    if any(find_spec(name) is None for name in ("pygeoapi", "waitress", "orjson")):
        return "PyGeoAPI; pip install 'ionbeam-dagster[edr]'"
    return None
