"""``python -m cxr_max``: the command line."""

from cxr_max.cli import main

if __name__ == "__main__":
    main()
