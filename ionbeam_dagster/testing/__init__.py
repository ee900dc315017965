"""Suites that the author of a source, an exporter or a store runs against an implementation of their own.

Belongs here: one module for each interface, with a class of pytest's that says what the platform relies on; a subclass
gives what is to be tried. Our own implementations pass the same suites. Does not belong here: anything that the
platform needs to run. pytest and hypothesis come with the extra ``testing``, and nothing outside this room imports it.
"""

try:
    import pytest
except ImportError as error:
    raise ImportError(f"{error}; pip install 'ionbeam-dagster[testing]'") from error

pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("exporters", "files", "ledger", "sources", "timeseries"))
)
