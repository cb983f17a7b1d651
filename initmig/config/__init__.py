"""Parses arguments and environment variables into one frozen Config."""
