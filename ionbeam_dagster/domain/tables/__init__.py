"""Tables that others publish, as small text files, each with the script that makes it from its publisher's file.

Belongs here: generated data and their makers. Does not belong here: what is concluded from them (domain/).
"""
