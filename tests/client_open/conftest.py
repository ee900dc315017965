"""What the tests of opened datasets share: windows of one dataset in a folder, and a service over them."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "edr"), str(TESTS)]
collect_ignore_glob = [] if all(map(find_spec, ("pygeoapi", "orjson", "waitress"))) else ["test_*.py"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A service of the dataset ``net``: hours with and without flags, one in another unit, one of moving stations."""
    from serving import Serving
    from windows import write_window

    made = Serving(tmp_path_factory.mktemp("opened"), ["net"])
    for hour in range(4):
        write_window(
            made.windows / "net", hour, flags=hour < 2, unit="K" if hour == 2 else "degC", move=0.01 * (hour == 3)
        )
    with made:
        yield made


@pytest.fixture(params=["service", "folder"])
def where(request, serving):
    return f"{serving.url}/collections/net" if request.param == "service" else str(serving.windows / "net")
