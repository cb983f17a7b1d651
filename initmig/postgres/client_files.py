"""Check the client's files for a connection: TLS files and the password file.

libpq silently continues without many of them, or prints a warning to stderr at each attempt.
"""

from __future__ import annotations

import os
import stat

from initmig.config.dsn import mask_secrets
from initmig.core.errors import ConfigError
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from initmig.core.events import ParameterIgnored

_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir")
_LONGEST_PASSWORD_BYTES = 1023  # OpenSSL's PEM_BUFSIZE minus one
_NO_FILE = f"{os.devnull}/none"
"""A path that cannot exist: libpq then uses no other file, and prints no warning."""


def check_tls_files(given: Mapping[str, str]) -> None:
    """Check the TLS files that *given* names.

    :raises ConfigError: TLS may be used, and a named file is not usable
    """
    if given.get("sslmode") == "disable" or not _has_network_host(given):
        return
    for name in _TLS_FILES:
        path = given.get(name, "")
        if reason := _tls_file_problem(name, path):
            raise ConfigError(
                "tls-file",
                mask_secrets(f"{name} names {path}, which {reason}"),
                hint="check the path, and make the file readable by the user of this process",
            )


def _has_network_host(given: Mapping[str, str]) -> bool:
    """Whether a host is not a Unix socket. Sockets are the default, and never use TLS."""
    hosts = given.get("host", "").split(",")
    return bool(given.get("hostaddr")) or not all(each[:1] in ("", "/", "@") for each in hosts)


def _tls_file_problem(name: str, path: str) -> str:
    """The reason why *path* is not usable for the parameter *name*; empty if libpq decides."""
    if not path or (name == "sslrootcert" and path == "system"):
        return ""
    try:
        return _file_type_problem(name, path, os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        # the key of an OpenSSL engine is not a file
        engine = name == "sslkey" and ":" in path
        return "" if engine else f"cannot be used: {_os_reason(error)}"


def _file_type_problem(name: str, path: str, mode: int) -> str:
    """The reason why the existing *path* with *mode* is not usable for the parameter *name*."""
    is_folder = name == "sslcrldir"
    if stat.S_ISDIR(mode) != is_folder:
        return "is not a directory" if is_folder else "is a directory"
    if not os.access(path, os.R_OK | (os.X_OK if is_folder else 0)):
        return "cannot be read by this user"
    if name == "sslcrl" and not _holds_revocations(path):
        return "contains no PEM list of revoked certificates: libpq would check none"
    return ""


def _os_reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _holds_revocations(path: str) -> bool:
    with open(path, "rb") as file:
        return b"-----BEGIN X509 CRL-----" in file.read()


def ignored_parameters(
    given: Mapping[str, str], *, has_password: bool
) -> tuple[dict[str, str], tuple[ParameterIgnored, ...]]:
    """Find the parameters that libpq would ignore with a warning on stderr.

    Return replacements that prevent the warnings, and an event for each parameter. With
    *has_password*, libpq does not look for a password file.
    """
    found = []
    if not has_password:
        found.append(("passfile", _NO_FILE, _password_file_problem(given.get("passfile", ""))))
    found.append(("sslkeylogfile", os.devnull, _key_log_problem(given.get("sslkeylogfile", ""))))
    key = given.get("sslpassword", "").encode(errors="surrogateescape")
    if len(key) > _LONGEST_PASSWORD_BYTES:
        short = key[:_LONGEST_PASSWORD_BYTES].decode(errors="ignore")
        reason = f"it is longer than {_LONGEST_PASSWORD_BYTES} bytes, so the rest is cut off"
        found.append(("sslpassword", short, reason))
    unusable = [each for each in found if each[-1]]
    if not unusable:
        return {}, ()
    # imported on demand: it defines the events of all commands
    from initmig.core.events import ParameterIgnored

    return {name: value for name, value, _ in unusable}, tuple(
        ParameterIgnored(name, mask_secrets(reason)) for name, _, reason in unusable
    )


def _password_file_problem(path: str) -> str:
    """The reason why libpq ignores the password file at *path*, by default the user's."""
    named = bool(path)
    path = path or os.path.expanduser("~/.pgpass")
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        return f"cannot use the password file {path}: {_os_reason(error)}" if named else ""
    if not stat.S_ISREG(mode):
        return f"the password file {path} is not a regular file"
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"other users can access the password file {path}: set its mode to 600"
    if not os.access(path, os.R_OK):
        return f"this user cannot read the password file {path}"
    return ""


def _key_log_problem(path: str) -> str:
    """The reason why libpq cannot write TLS session keys to *path*."""
    if not path:
        return ""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except (OSError, ValueError) as error:
        return f"cannot write to {path}: {_os_reason(error)}"
    return ""
