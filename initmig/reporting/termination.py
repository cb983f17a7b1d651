"""Writes the outcome to the container's termination message, which Kubernetes shows."""

from __future__ import annotations

import os

KUBERNETES_PATH = "/dev/termination-log"
LIMIT_BYTES = 4096
"""https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/"""


def write_outcome(path: str, text: str) -> None:
    """Write *text* to *path*. If *path* is empty, use Kubernetes' default file if it exists.

    The text is cut to 4,096 bytes. If the file cannot be written, nothing is raised, because the
    log also has the outcome.
    """
    path = path or (KUBERNETES_PATH if os.path.exists(KUBERNETES_PATH) else "")
    if not path:
        return
    data = text.encode()[:LIMIT_BYTES].decode(errors="ignore").encode()
    try:
        with open(path, "wb", opener=_open_without_waiting) as file:
            file.write(data)
    except OSError:
        return


def _open_without_waiting(path: str, flags: int) -> int:
    """Open *path*, which may be a pipe, without waiting for a reader."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
