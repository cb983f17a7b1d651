"""The time of libpq alone: connect, send one query, disconnect. For `python -I -S`, with ctypes."""

import ctypes
import os
import sys


def main(library: str, url: str) -> int:
    """Return the exit code: 0 if the query was answered."""
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
