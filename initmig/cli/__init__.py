"""Takes arguments, renders results, and returns the exit code."""
