"""The checks of ``cxr-max verify``, one file per kind; ``release_check`` runs them all."""
