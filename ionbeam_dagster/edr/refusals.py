"""Why a request is not answered: the errors that become 400 and 404.

Belongs here: these errors. Does not belong here: the sentences, which stand where a fault is found.
"""

from __future__ import annotations


class BadRequest(ValueError):
    """A request that cannot be answered; the message is a sentence for the person who asked."""


class NotFound(LookupError):
    """What was asked for does not exist."""
