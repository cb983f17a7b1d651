"""The migration files, and the decision what to do with them."""
