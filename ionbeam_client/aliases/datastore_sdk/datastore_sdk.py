"""`ionbeam_client.datastore` under the name that its specification has.

Belongs here: the name. Does not belong here: anything else.
"""

import sys
from importlib import import_module

sys.modules[__name__] = import_module("ionbeam_client.datastore")
for _part in ("constants", "data", "errors", "models"):  # else they would be loaded again, with classes of their own
    sys.modules[f"{__name__}.{_part}"] = import_module(f"ionbeam_client.datastore.{_part}")
