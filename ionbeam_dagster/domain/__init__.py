"""What Ionbeam knows about weather observations and time, as pure functions.

Belongs here: windows and cycles, `decide`, records, canonical columns, times and places, quality control. CF names and
units are `ionbeam_client.cf`'s: clients check them, too. Does not belong here: anything that reads a clock, opens a
file or a connection, or imports Dagster.
"""
