"""Giving windows away by WIS2, WMO's information system: files, notifications of them, and records that describe them.

    giving.py         which exports others were not told of: their files and notices
    describing.py     the records of datasets, and when there is another one
    telling.py        one process tells what is due, and notes what arrived
    keeping.py        how long files are kept
    broker.py         the connection to the MQTT broker
    notification.py   the message on one file (WNM), pure
    record.py         the record by which a dataset is found (WCMP2), pure
    places.py         where files and messages lie

Belongs here: what others are told, of which windows, and that nothing is told without its file. Does not belong here:
the files of a format (exporters), or the keys of the YAML (config/wis2.py).
"""
