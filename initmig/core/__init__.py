"""What every other package uses: errors, events, records, and time."""
