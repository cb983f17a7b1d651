"""Compares initmig with the tools that users choose instead: `make bench`."""
