"""Where things are kept: raw partitions, observations, dataset windows and the ledger of what happened.

Belongs here: the interfaces of the stores and their implementations, each on one kind of back end. Does not belong
here: what is stored when (pipeline.py), or any format that leaves the platform (exporters).
"""


class StoreError(Exception):
    """A store cannot be used, or holds something damaged; the message names the place, the reason and what to do."""
