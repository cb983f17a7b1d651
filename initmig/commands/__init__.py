"""One module or package for each command; each returns a result."""
