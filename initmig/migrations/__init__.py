"""Reads migration files, and decides which of them to apply or roll back."""
