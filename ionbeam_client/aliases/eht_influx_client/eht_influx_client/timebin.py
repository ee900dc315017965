"""The import name of the specification for ionbeam_client.influx.timebin."""

from ionbeam_client.influx.timebin import TimeBin as TimeBin
