"""Where things are kept: raw partitions, quarantine, observations, dataset windows, and the ledger of what happened.

Belongs here: the interfaces of the stores and their implementations, each on one kind of back end. Does not belong
here: what is stored when (pipeline), or any format that leaves the platform (exporters).
"""
