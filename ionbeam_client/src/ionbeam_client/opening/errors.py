"""What can go wrong as a dataset is opened or read, and what its reader is told besides."""

from __future__ import annotations

from ionbeam_client.errors import IonbeamError


class OpenError(IonbeamError, ValueError):
    """A dataset cannot be opened or read, or a question makes no sense; the message says what would be right."""


class OpenWarning(UserWarning):
    """Something is left out of what is read: a window that went meanwhile, or that is damaged."""


class Replaced(Exception):
    """A window's file is another one than when it was opened; it is to be read from its beginning."""
