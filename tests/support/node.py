"""The node of a one-node cluster on this machine, broken on purpose and always repaired."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# The pipe is closed however this process ends, and then the node is repaired.
_KEEPER = "trap '%s' EXIT; %s; echo broken; read -r _"
_RULES = " && ".join(
    f'iptables --wait --%s FORWARD --{side} "$1" --jump DROP' for side in ("source", "destination")
)


def why_no_node() -> str:
    """The reason why no node can be broken here; "" if one can."""
    if os.geteuid() != 0:
        return "only root can break a node"
    if shutil.which("iptables") is None:
        return "needs iptables"
    if not _kubelet_pid().exists():
        return "there is no kubelet.pid next to KUBECONFIG: the node is not this machine"
    return ""


def kill_container(id: str) -> None:
    """SIGKILL every process of a container. Raises AssertionError if it has no process."""
    found = [entry for entry in Path("/proc").iterdir() if _is_in_container(entry, id)]
    assert found, f"no process in container {id}"
    for entry in found:
        with suppress(ProcessLookupError):
            os.kill(int(entry.name), signal.SIGKILL)


@contextmanager
def cut_off(address: str) -> Iterator[None]:
    """Drop every packet to and from the pod with *address*, without an error to anyone."""
    with _fault(_RULES % ("insert", "insert"), _RULES % ("delete", "delete"), address):
        yield


@contextmanager
def stopped_kubelet() -> Iterator[None]:
    """Stop the kubelet for a short time.

    Stopped instead of killed: with a killed one, the `kubectl port-forward` of other tests would
    end. After 40 s, Kubernetes counts every pod of the node as not ready.
    """
    with _fault('kill -STOP "$1"', 'kill -CONT "$1"', _kubelet_pid().read_text().strip()):
        yield


def _kubelet_pid() -> Path:
    return Path(os.environ.get("KUBECONFIG", "/nowhere")).with_name("kubelet.pid")


def _is_in_container(process: Path, id: str) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return id in (process / "cgroup").read_text()
    return False


@contextmanager
def _fault(begin: str, end: str, argument: str) -> Iterator[None]:
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER % (end, begin), "keeper", argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # so that Ctrl-C does not stop the keeper too early
        start_new_session=True,
    )
    assert keeper.stdout is not None
    began = keeper.stdout.readline()
    try:
        if began:
            yield
    finally:
        _, errors = keeper.communicate()
    assert began, errors
