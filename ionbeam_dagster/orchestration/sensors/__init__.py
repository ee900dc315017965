"""Sensors: what makes the platform work when something outside it changes.

Belongs here: thin fronts that turn what changed into run requests, bounded in each tick. Does not belong here: how a
change is noticed (the source tells), or when windows are due by the clock (automation.py).
"""
