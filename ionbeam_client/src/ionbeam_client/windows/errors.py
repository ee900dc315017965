"""What can go wrong between a program and the windows of a platform."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ionbeam_client.errors import IonbeamError


class WindowsError(IonbeamError):
    """The windows cannot be had: no such dataset, a service or folder that is away, or that refuses.

    `status` is the HTTP status, where that was the reason; `may_pass` says whether asking again may help.
    """

    def __init__(self, message: str, *, status: int | None = None, may_pass: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.may_pass = may_pass


@contextmanager
def writing(place: str | os.PathLike[str]) -> Iterator[None]:
    """Raise WindowsError, which names `place`, where the system cannot write there: a disk is full, for example."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise WindowsError(f"{place}: cannot be written ({error}); what was there before stays") from error
