"""What libpq itself takes: connect, ask one question, leave; for `python -I -S`, through ctypes."""

import ctypes
import os
import sys


def main(library: str, url: str) -> int:
    """The exit code: 0 if the question was answered."""
    libpq = ctypes.CDLL(library)
    for name in ("PQconnectdb", "PQexec"):
        getattr(libpq, name).restype = ctypes.c_void_p
    connection = ctypes.c_void_p(libpq.PQconnectdb(url.encode()))
    result = ctypes.c_void_p(libpq.PQexec(connection, b"SELECT 1"))
    rows: int = libpq.PQntuples(result)
    libpq.PQfinish(connection)
    return 0 if rows == 1 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ["DATABASE_URL"]))
