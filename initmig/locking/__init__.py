"""The migration lock: one migrator at a time, its holder, and its queue."""
