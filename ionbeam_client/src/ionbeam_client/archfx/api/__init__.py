"""Requests to the service. Belongs here: the connection and its errors. Does not belong here: what is sent."""

from ionbeam_client.archfx import needs

needs("requests")
