"""Tools for contributors, which users do not need."""
