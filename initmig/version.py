"""The version, apart from the package, which would import everything for it."""

__version__ = "0.1.0"
