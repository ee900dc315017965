"""Pictures for people: of dataset windows, of what quality control flagged, of exports.

Belongs here: drawing, one module a kind of picture. Does not belong here: where the pictures are shown.
"""
