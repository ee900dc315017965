"""Files that nobody described yet: a proposal of the block that reads them.

Belongs here: what the text, the names and the numbers of files hint at, a module a subject: which files are of one
shape (shapes.py), how lines are written (text_shape.py), times.py, stations.py, columns.py, and the words in which it
is said (statements.py). Does not belong here: reading files in earnest (the readers beside this package). A guess is
shown to a person with its reason, and never used unseen.
"""

from ionbeam_dagster.sources.files.guessing.proposal import Proposal, propose

__all__ = ["Proposal", "propose"]
