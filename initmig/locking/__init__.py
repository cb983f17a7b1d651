"""One migrator at a time: the migration lock, its holder, and its queue."""
