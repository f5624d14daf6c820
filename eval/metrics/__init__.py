"""Metrics as pure functions of arrays: one file per family. Import from the files."""
