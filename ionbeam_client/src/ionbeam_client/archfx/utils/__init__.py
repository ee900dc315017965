"""What scripts need besides. Belongs here: ids, and the frame of a script. Does not belong here: requests."""
