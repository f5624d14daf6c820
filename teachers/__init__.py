"""The models that are asked, one file per wire format. Import as ``cxr_max.teachers``."""
