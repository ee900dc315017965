"""What Ionbeam knows about weather observations and time, as pure functions.

Belongs here: windows, canonical columns, CF names and units, quality control. Does not belong here: anything that reads
a clock, opens a file or a connection, or imports Dagster.
"""
