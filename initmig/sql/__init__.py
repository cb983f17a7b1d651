"""What SQL says, read from its text alone: no server is asked."""
