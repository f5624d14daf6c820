"""Chest radiographs in, reasoning trajectories of many teachers out, a student trained and scored on them."""

__version__ = "0.1.0"
