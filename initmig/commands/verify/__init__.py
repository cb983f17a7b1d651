"""`verify`: does each rollback undo its migration? Tried on a database that is thrown away."""
