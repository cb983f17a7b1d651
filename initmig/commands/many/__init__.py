"""`migrate` for many databases or schemas in one run."""
