"""Streamer reports. Belongs here: readings and their encoding. Does not belong here: how they travel."""

from ionbeam_client.archfx import needs

needs("dateutil", "msgpack")
