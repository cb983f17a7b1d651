"""Apply PostgreSQL migrations before the application starts."""

__all__ = ["InitmigError", "migrate", "rollback", "status", "verify"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initmig.api import migrate, rollback, status, verify
    from initmig.core.errors import InitmigError


def __getattr__(name: str) -> object:
    # only where it is asked for: the command starts with every pod, and needs nothing of it
    if name == "InitmigError":
        from initmig.core import errors

        return errors.InitmigError
    if name in __all__:
        from initmig import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
