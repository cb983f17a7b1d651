"""Reads SQL without a server."""
