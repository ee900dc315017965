"""What can go wrong, by name, so that callers can tell the cases apart.

Belongs here: every exception that leaves this package. Does not belong here: when they are raised.
"""

from __future__ import annotations


class IonbeamError(Exception):
    """The root of this package's errors."""


class DataError(IonbeamError, ValueError):
    """Rows, columns, units or names are not what they should be; nothing was sent."""


class OutboxFullError(IonbeamError):
    """The outbox has no room: the broker has been away for too long, or one ingestion is larger than the outbox."""


class MessageError(IonbeamError, ValueError):
    """A message cannot be understood, or is refused; it will not become better by being delivered again."""


class PayloadError(IonbeamError):
    """A payload that a message names cannot be read."""


class NotConnectedError(IonbeamError):
    """The broker is away. Nothing is known of the message: it has to be sent again."""


class RefusedError(IonbeamError):
    """The broker did not take a message: no queue for it, or too large."""
