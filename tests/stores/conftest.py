"""The servers that the stores' contract suites run on."""

from backends import influxdb, redis, s3  # noqa: F401
