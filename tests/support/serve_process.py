"""A `serve` that a test has started, and HTTP clients for it."""

from __future__ import annotations

import os
import re
import socket
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from http.client import HTTPMessage

    from tests.support.processes import Result, Running


class Reply(NamedTuple):
    status: int
    headers: HTTPMessage
    body: str


class ServeProcess:
    """A started `serve` that is listening."""

    def __init__(self, running: Running) -> None:
        self.running = running
        line = running.wait_for_line("listening on ")
        place = line.split("listening on ")[1].split(": /")[0]
        self.port = int(place.rpartition(":")[2])

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        host: str = "127.0.0.1",
        source: str = "",
        body: bytes | None = None,
    ) -> Reply:
        """The answer to a request from the address *source*."""
        place = (source, 0) if source else None
        connection = HTTPConnection(host, self.port, timeout=20, source_address=place)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    def is_ready(self) -> bool:
        return self.ask("/readyz").status == 200

    def metrics(self) -> dict[str, float]:
        """The samples by name, followed by the values of their labels."""
        families = text_string_to_metric_families(self.ask("/metrics").body)
        return {
            "/".join([sample.name, *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
        }

    def connect(self, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        """Connect a client that has only sent *sent* so far."""
        place = ("127.0.0.1", self.port)
        client = socket.create_connection(place, timeout=20, source_address=(source, 0))
        client.sendall(sent)
        return client

    def half_a_request(self) -> socket.socket:
        """Connect a client that has sent only a part of its request."""
        return self.connect(b"GET /readyz HT")

    def say(self, *parts: bytes, is_over: bool = False) -> bytes:
        """The complete answer to *parts*; with *is_over*, the client closes its sending side."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            if is_over:
                client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()

    def descriptors(self) -> int:
        """The number of open file descriptors of its process."""
        return len(list(Path(f"/proc/{self.running.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """The CPU time that its process has used so far."""
        fields = Path(f"/proc/{self.running.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def most_memory(self) -> int:
        """The peak memory of its process in KiB."""
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])

    def stop(self) -> Result:
        """Send SIGTERM, and return the result. Raises AssertionError if that takes 5 seconds."""
        sent = time.monotonic()
        self.running.terminate()
        result = self.running.result()
        assert time.monotonic() - sent < 5
        return result
