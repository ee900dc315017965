"""The sources `sensor_community` and `sensor_community_live`: a citizens' network of dust and climate sensors.

Belongs here: the archive of whole days (archive.py, with its listings and what is kept of a day half fetched), the live
feed (live.py), and what both share: quantities, names and the identity of a sensor (sensors.py).
"""
