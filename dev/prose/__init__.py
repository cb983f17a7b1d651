"""Checks the plain English of pages, messages and code, by the rules in dev/words.toml."""
