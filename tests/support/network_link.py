"""A remote host in a network namespace, over a link that can fail silently."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.postgres import Server

# Eight addresses for each link, of the networks for benchmarks (RFC 2544): no real network is
# hidden.
_NETWORKS: Final = ("198.18", "198.19")
_NUMBERS: Final = range(len(_NETWORKS) * 256 * 256 // 8)

# The pipe is closed however this process ends, and then the link is removed. The interface is
# deleted by its name, because a namespace lives as long as a process in it.
_KEEPER = """
read -r _
ip link delete "$1"
ip netns delete "$2"
ip netns delete "$3"
"""


class _Names(NamedTuple):
    """The names that are visible outside of the namespaces."""

    interface: str
    router: str
    far: str


class Link:
    """A link from this machine over a router to a far host, the latter two in namespaces.

    It is cut on the router: a host that drops a packet itself reports an error to the sender.
    """

    def __init__(self, names: _Names, addresses: list[str]) -> None:
        near, near_router, far, far_router, far_network = addresses
        self.near_address = near
        self.far_address = far
        self._router = names.router
        self.prefix = ["ip", "netns", "exec", names.far]
        """The command to put before another command, so that it runs on the far host."""
        _ip("netns", "add", names.far)
        peer = ("type", "veth", "peer", "name")
        _ip("link", "add", names.interface, *peer, "near", "netns", names.router)
        _ip("-n", names.router, "link", "add", "far", *peer, "near", "netns", names.far)
        _set_up([], names.interface, near)
        _set_up(["-n", names.router], "near", near_router)
        _set_up(["-n", names.router], "far", far_router)
        _set_up(["-n", names.far], "near", far)
        _ip("route", "add", far_network, "via", near_router)
        _ip("-n", names.far, "route", "add", "default", "via", far_router)
        self._on_router("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")

    def url(self, server: Server, database: str) -> str:
        """The superuser's URL of *database*, for the far host."""
        return server.url(database, host=self.near_address)

    def let_in(self, server: Server) -> None:
        """Restart *server* with a rule that accepts the far host."""
        with (server.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self.far_address}/32 scram-sha-256\n")
        server.restart()

    def cut(self) -> None:
        """Drop every packet, in both directions, without an error to the sender."""
        self._on_router("iptables", "--policy", "FORWARD", "DROP")

    def restore(self) -> None:
        """Forward packets again."""
        self._on_router("iptables", "--policy", "FORWARD", "ACCEPT")

    def swallow(self, address: str) -> None:
        """Drop every packet from the far host to *address*, without an error to the sender."""
        _ip("-n", self._router, "route", "add", "blackhole", f"{address}/32")

    def _on_router(self, *command: str) -> None:
        _ip("netns", "exec", self._router, *command)


@contextmanager
def working_link() -> Iterator[Link]:
    """Create a link, and remove it at the end; skips the test if that is impossible."""
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    for program, package in (("ip", "iproute2"), ("iptables", "iptables")):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}, of {package}")
    number = _claim_number()
    names = _names(number)
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # so that Ctrl-C does not stop the keeper too early
        start_new_session=True,
    )
    try:
        yield Link(names, _addresses(number))
    finally:
        keeper.communicate()


def _claim_number() -> int:
    """An unused number, claimed by creating its router."""
    while True:
        number = random.choice(_NUMBERS)
        try:
            _ip("netns", "add", _names(number).router)
        except LinkError as error:
            if "File exists" not in str(error):
                pytest.skip(f"no network namespaces here: {error}")
        else:
            return number


class LinkError(Exception):
    """`ip`, or a command that it runs, failed."""


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, check=False, text=True)
    if done.returncode != 0:
        raise LinkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _set_up(where: list[str], interface: str, address: str) -> None:
    _ip(*where, "address", "add", f"{address}/30", "dev", interface)
    _ip(*where, "link", "set", interface, "up")


def _names(number: int) -> _Names:
    return _Names(f"initmig{number}", f"initmig-{number}-router", f"initmig-{number}-far")


def _addresses(number: int) -> list[str]:
    """Addresses: this machine, its router, the far host, its router, and the far network."""
    high, low = divmod(number * 8, 256)
    network = f"{_NETWORKS[high // 256]}.{high % 256}"
    return [
        *(f"{network}.{low + offset}" for offset in (1, 2, 6, 5)),
        f"{network}.{low + 4}/30",
    ]
