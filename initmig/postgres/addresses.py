"""Where a connection can be tried, address by address; imported where there is more than one."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_DEFAULT_PORT = "5432"


def attempts(given: Mapping[str, str], ports: str, silent: Collection[str]) -> list[dict[str, str]]:
    """What to connect with instead of what is *given*, with *ports*, one after the other.

    Without the addresses that were *silent*. Without any at all where libpq itself has to say
    what is wrong.
    """
    addresses = list(_addresses(given, ports, silent))
    if given.get("load_balance_hosts") == "random":
        random.shuffle(addresses)
    if given.get("target_session_attrs") == "prefer-standby":
        rounds = ("standby", "any")
        return [{**each, "target_session_attrs": mode} for mode in rounds for each in addresses]
    return addresses


def _addresses(
    given: Mapping[str, str], ports: str, silent: Collection[str]
) -> Iterator[dict[str, str]]:
    names = given.get("host", "").split(",")
    numbers = given.get("hostaddr", "").split(",")
    count = max(len(names), len(numbers))
    doors = ports.split(",")
    doors = doors * count if len(doors) == 1 else doors
    names = names if "host" in given else [""] * count
    numbers = numbers if "hostaddr" in given else [""] * count
    fit = len(names) == len(numbers) == len(doors)
    # an empty one stands for libpq's own socket
    if not (fit and all(any(each) for each in zip(names, numbers, strict=True))):
        if not silent:
            yield {}
        return
    for name, number, door in zip(names, numbers, doors, strict=True):
        port = {"port": door or _DEFAULT_PORT}
        host = {"host": name or number} if "host" in given else {}
        found = [number] if number else _look_up(name)
        for address in found:
            if address not in silent:
                yield {**host, **({"hostaddr": address} if address else {}), **port}


def _look_up(name: str) -> list[str]:
    """The addresses of the host *name*; of a socket, or where there are none, an empty one."""
    if name[:1] in ("/", "@"):
        return [""]
    try:
        # as bytes: Python would refuse some names that libpq looks up
        found = socket.getaddrinfo(
            name.encode(errors="surrogateescape"), None, type=socket.SOCK_STREAM
        )
    except OSError:
        return [""]
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
