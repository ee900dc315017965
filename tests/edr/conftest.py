"""A service as people start it: `ionbeam serve` over windows in a folder, asked over HTTP.

The service's tests need the extra ``edr``; without it they are left out.
"""

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if all(map(find_spec, ("pygeoapi", "orjson", "waitress"))) else ["test_*.py"]


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A service of one dataset, ``net``: three hours of seven stations, with flags."""
    from serving import Serving
    from windows import write_window

    serving = Serving(tmp_path_factory.mktemp("served"), ["net"])
    for hour in range(3):
        write_window(serving.windows / "net", hour, flags=True)
    with serving:
        yield serving
