"""Doors: where others bring observations, and hear of what is built.

Belongs here: one thin module or package a transport, in front of one intake. Does not belong here: what happens to
observations once they are taken in (pipeline).
"""
