"""Runs one program of the specification with our package or with `restreamsolutions`, in the environment it is in.

Belongs here: the three shims that the other package needs (its name, its variable of the token, the names of two
arguments). Does not belong here: any comparison.
"""

import functools
import os
import sys
import time
import types
from pathlib import Path


def peer() -> types.ModuleType:
    import restreamsolutions

    os.environ["RESTREAM_AUTH_TOKEN"] = os.environ["TALLY_AUTH_TOKEN"]
    for model in (restreamsolutions.Site, restreamsolutions.Pad):
        model.get_stages_metadata = _renamed(model.get_stages_metadata)
    return restreamsolutions


def _renamed(method):
    names = {"start_date": "start", "end_date": "end"}

    @functools.wraps(method)
    def with_names(self, **named):
        return method(self, **{names.get(name, name): value for name, value in named.items()})

    return with_names


def main(side: str, program: str) -> None:
    if side == "peer":
        sys.modules["datastore_sdk"] = peer()
    else:
        sys.path.insert(0, side)
    time.sleep = lambda seconds: None
    exec(compile(Path(program).read_text(), program, "exec"), {"__name__": "program"})


if __name__ == "__main__":
    main(*sys.argv[1:])
