"""The time-series store in InfluxDB 2.

Belongs here: all that knows InfluxDB; store.py says how points lie there. Does not belong here: other stores.
"""
