"""From studies to a release. Import as ``cxr_max.builders``."""
