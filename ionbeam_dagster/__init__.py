"""Ionbeam: crowd-sourced and IoT weather observations as canonical datasets, window by window, on Dagster."""

from importlib.metadata import version

__version__ = version("ionbeam-dagster")
