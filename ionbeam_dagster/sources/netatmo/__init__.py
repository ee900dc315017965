"""Netatmo's stations as MET Norway passes them on in E-SOH: EDR over HTTP, MQTT, and an archive of files.

Belongs here: the three sources (edr.py, mqtt.py, archive.py) and what they share. Does not belong here: CoverageJSON as
such (sources/coverage_json.py).
"""
