"""Apply PostgreSQL migrations before the application starts."""

__all__ = ["InitmigError", "__version__", "migrate", "rollback", "status", "verify"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initmig.api import migrate, rollback, status, verify
    from initmig.core.errors import InitmigError
    from initmig.version import __version__


def __getattr__(name: str) -> object:
    # imported on demand: the command does not use these names, and it runs at the start of each pod
    if name == "__version__":
        from initmig.version import __version__

        return __version__
    if name == "InitmigError":
        from initmig.core import errors

        return errors.InitmigError
    if name in __all__:
        from initmig import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
