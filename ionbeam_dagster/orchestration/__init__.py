"""Dagster's side of the platform: assets, partitions, automation, checks, metadata, sensors and runs.

Belongs here: everything that knows Dagster. Does not belong here: what a step does with a window (pipeline), when a
window is ready (domain/decisions.py), or what there is to do (pipeline/agenda). Modules here ask
those and tell Dagster the answer.
"""
