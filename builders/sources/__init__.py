"""Data sets, one file each: an iterator of Study."""
