"""The outcome where Kubernetes shows it: the termination message of the container."""

from __future__ import annotations

import os

KUBERNETES_PATH = "/dev/termination-log"
LIMIT_BYTES = 4096
"""https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/"""


def write_outcome(path: str, text: str) -> None:
    """Put *text* into *path*, or where it is empty into Kubernetes' own file if that exists.

    It is cut to 4,096 bytes. A file that cannot be written is no reason to fail: what it would
    say stands in the log.
    """
    path = path or (KUBERNETES_PATH if os.path.exists(KUBERNETES_PATH) else "")
    if not path:
        return
    data = text.encode()[:LIMIT_BYTES].decode(errors="ignore").encode()
    try:
        with open(path, "wb", opener=_open_at_once) as file:
            file.write(data)
    except OSError:
        return


def _open_at_once(path: str, flags: int) -> int:
    """Open *path*, without waiting for a reader of what may be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
