"""The message bus: how clients outside reach the platform, and how it reaches them.

Belongs here: judging commands (intake) as they are taken in (receiving, parked), telling what became of them (outbox,
announcing), and the connection that carries both (bridge). What all doors share stands above (doors/intake.py), and
what is remembered in the ledger. Names of queues and the form of messages are `ionbeam_client.wire`'s. Does not belong
here: Dagster, or what happens to observations once they are raw partitions.
"""
