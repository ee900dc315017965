"""Pictures for people: of dataset windows, of what quality control flagged, of exports, of which stations were heard.

Belongs here: drawing, one module a kind of picture. Does not belong here: where the pictures are shown.
"""
