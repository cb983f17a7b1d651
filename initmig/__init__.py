"""Apply PostgreSQL migrations before the application starts."""

__version__ = "0.1.0"

__all__ = ["InitmigError", "migrate", "rollback", "status", "verify"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initmig.errors import InitmigError
    from initmig.library import migrate, rollback, status, verify


def __getattr__(name: str) -> object:
    # only where it is asked for: the command starts with every pod, and needs nothing of it
    if name == "InitmigError":
        from initmig import errors

        return errors.InitmigError
    if name in __all__:
        from initmig import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
