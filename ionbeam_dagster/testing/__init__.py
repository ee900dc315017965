"""Suites that the author of a source, an exporter or a store runs against an implementation of their own.

Belongs here: one module for each interface, with a class of pytest's that says what the platform relies on (a subclass
gives what is to be tried; our own implementations pass the same suites), and a web service that misbehaves on demand.
Does not belong here: anything that the platform needs to run: nothing outside this room imports it. pytest and
hypothesis come with the extra ``testing``; the service needs neither.
"""

try:
    import pytest
except ImportError:
    pass
else:
    for suite in ("exporters", "files", "ledger", "sources", "timeseries"):
        pytest.register_assert_rewrite(f"{__name__}.{suite}")  # what differs is shown, as in tests of one's own
