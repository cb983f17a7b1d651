"""The history in the database: which migrations are applied, and which schema holds it."""
