"""Modules that every other package uses: errors, events, records, and time."""
