"""Cards of the sources, and the template of a release's card, as package data."""
