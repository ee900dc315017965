"""What the tests of whoever follows windows share: a platform's service, started once, over a folder of windows."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "edr"), str(TESTS)]
collect_ignore_glob = [] if all(map(find_spec, ("pygeoapi", "orjson", "waitress"))) else ["test_*.py"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A service of the datasets ``net`` and ``other``, each with a window that was there before it began."""
    from serving import Serving
    from windows import write_window

    made = Serving(tmp_path_factory.mktemp("followed"), ["net", "other"])
    for name in ("net", "other"):
        write_window(made.windows / name, 0)
    with made:
        yield made


@pytest.fixture
def root(serving):
    """The folder of its windows, of which ``net`` has three and nobody confirmed any."""
    from windows import write_window

    for path in [*serving.windows.glob("net/*"), *serving.windows.glob(".confirmed/*/*")]:
        path.unlink()
    for hour in range(3):
        write_window(serving.windows / "net", hour)
    return serving.windows


@pytest.fixture(params=["service", "folder"])
def address(request, serving, root):
    return serving.url if request.param == "service" else str(root)
