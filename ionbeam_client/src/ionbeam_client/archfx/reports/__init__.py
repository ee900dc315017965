"""Streamer reports. Belongs here: readings and their encoding. Does not belong here: how they travel."""
