"""Starts copies of a command and measures each; for `python -I -S stopwatch.py`.

It is a separate, small process for two reasons. The peak memory of a child starts with that of the
process that starts it. And no other code may delay the interpreter while it waits for a child.
"""

import json
import os
import sys
import time


def main() -> None:
    """Run the request from stdin, as JSON; print a list with the figures of each copy."""
    request = json.load(sys.stdin)
    os.chdir(request["folder"])
    output = (
        os.POSIX_SPAWN_OPEN,
        1,
        request["output"],
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        0o600,
    )
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        output,
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    argv = request["argv"]
    begun = time.perf_counter()
    for _ in range(request["copies"]):
        os.posix_spawnp(argv[0], argv, request["environment"], file_actions=files)
    json.dump([_next_end(begun) for _ in range(request["copies"])], sys.stdout)


def _next_end(begun: float) -> dict[str, float]:
    _, status, usage = os.wait4(-1, 0)
    seconds = time.perf_counter() - begun
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "wall_seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


if __name__ == "__main__":
    main()
