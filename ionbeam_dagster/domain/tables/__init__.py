"""Tables that others publish, as small files; tools/ has the programs that make them from their publishers' files.

Belongs here: generated data. Does not belong here: what is concluded from them (domain/).
"""
