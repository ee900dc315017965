"""The import name of the specification for ionbeam_client.influx; the classes are the same objects."""

from ionbeam_client.influx import *  # noqa: F403
