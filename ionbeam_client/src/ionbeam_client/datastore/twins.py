"""A call as two methods: one that blocks, and one to await, whose name begins with an `a`.

Belongs here: how the two are made of one generator. Does not belong here: any call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ionbeam_client.datastore.data import Data, DataAsync
from ionbeam_client.datastore.http import Call, Stream, arun, run

P = ParamSpec("P")
T = TypeVar("T")


def twins(call: Callable[P, Call[T]]) -> tuple[Callable[P, T], Callable[P, Coroutine[Any, Any, T]]]:
    """The call as two methods: one that blocks, one to await."""

    def blocking(*args: P.args, **named: P.kwargs) -> T:
        return run(call(*args, **named))

    async def awaited(*args: P.args, **named: P.kwargs) -> T:
        return await arun(call(*args, **named))

    _look_like(call, blocking, awaited)
    return blocking, awaited


def data_twins(
    prepare: Callable[P, Callable[[], Stream]],
) -> tuple[Callable[P, Data], Callable[P, Coroutine[Any, Any, DataAsync]]]:
    """What prepares a stream, as two methods: one that gives `Data`, one to await that gives `DataAsync`."""

    def blocking(*args: P.args, **named: P.kwargs) -> Data:
        return Data(prepare(*args, **named))

    async def awaited(*args: P.args, **named: P.kwargs) -> DataAsync:
        return DataAsync(prepare(*args, **named))

    _look_like(prepare, blocking, awaited)
    return blocking, awaited


def _look_like(model: Callable[..., Any], blocking: Callable[..., Any], awaited: Callable[..., Any]) -> None:
    """Name, parameters and documentation of the methods, for `help()` and editors."""
    signature = inspect.signature(model).replace(return_annotation=inspect.Signature.empty)
    for method, prefix in ((blocking, ""), (awaited, "a")):
        functools.update_wrapper(method, model)
        method.__name__ = prefix + model.__name__.removeprefix("_")
        method.__qualname__ = model.__qualname__.replace(model.__name__, method.__name__)
        vars(method)["__signature__"] = signature
