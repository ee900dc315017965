"""The service's tests need the extra ``edr``; without it they are left out."""

from importlib.util import find_spec

collect_ignore_glob = [] if all(map(find_spec, ("pygeoapi", "orjson", "waitress"))) else ["test_*.py"]
