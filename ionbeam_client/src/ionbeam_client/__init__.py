"""Ionbeam's client library: the models that clients and the platform share."""
