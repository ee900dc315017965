"""What can be wrong with data.

Belongs here: that error. Does not belong here: faults of requests (`api.exceptions`).
"""


class DataError(ValueError):
    """A value, a time, an id or a report is not what it has to be; nothing was sent."""
