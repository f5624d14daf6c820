"""Scores of teachers and students on the same ruler. Import as ``cxr_max.eval``."""
