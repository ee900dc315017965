"""The import name of the specification for ionbeam_client.influx.times."""

from ionbeam_client.influx.times import *  # noqa: F403
