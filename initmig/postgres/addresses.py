"""List the addresses of a connection. Imported only if there are several."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_DEFAULT_PORT = "5432"


def attempts(given: Mapping[str, str], ports: str, silent: Collection[str]) -> list[dict[str, str]]:
    """The parameters for each attempt to connect, in order.

    They replace the hosts, addresses and *ports* in *given*. Addresses in *silent* are skipped. If
    a host is empty, or the lists do not match, the result is one attempt without replacements, so
    that libpq reports the error.
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
    host_addresses = given.get("hostaddr", "").split(",")
    count = max(len(names), len(host_addresses))
    port_list = ports.split(",")
    port_list = port_list * count if len(port_list) == 1 else port_list
    names = names if "host" in given else [""] * count
    host_addresses = host_addresses if "hostaddr" in given else [""] * count
    fit = len(names) == len(host_addresses) == len(port_list)
    # an empty host is libpq's default socket
    if not (fit and all(any(each) for each in zip(names, host_addresses, strict=True))):
        if not silent:
            yield {}
        return
    for name, host_address, port_text in zip(names, host_addresses, port_list, strict=True):
        port = {"port": port_text or _DEFAULT_PORT}
        host = {"host": name or host_address} if "host" in given else {}
        found = [host_address] if host_address else _look_up(name)
        for address in found:
            if address not in silent:
                yield {**host, **({"hostaddr": address} if address else {}), **port}


def _look_up(name: str) -> list[str]:
    """The addresses of the host *name*. For a socket, or if the lookup fails, an empty address."""
    if name[:1] in ("/", "@"):
        return [""]
    try:
        # as bytes, because Python rejects some names that libpq looks up
        found = socket.getaddrinfo(
            name.encode(errors="surrogateescape"), None, type=socket.SOCK_STREAM
        )
    except OSError:
        return [""]
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
