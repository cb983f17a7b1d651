"""initmig in processes that skip its start, for tests that run it hundreds of times."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading
from typing import TYPE_CHECKING

from tests.support.processes import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.support.processes import Processes
    from tests.support.proxy import Message, Proxy, Verdict

# Each order is a line of JSON; the answers are the process id, and then the exit code.
_FORKING = """
import gc, json, os, sys
from contextlib import nullcontext
from importlib import import_module
around = import_module(sys.argv[3]).around if sys.argv[3:] else nullcontext
import initmig.cli, initmig.engine.python_migration, initmig.engine.sql_parts, initmig.intake
import initmig.postgres.refusals, initmig.queue, initmig.runner, initmig.writer
import difflib, pgparse, psycopg, tenacity
gc.freeze()
orders, answers = (open(path, mode) for path, mode in zip(sys.argv[1:], "rw"))
for line in orders:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = 70
        try:
            with around(order["env"]):
                code = initmig.cli.main(order["argv"], order["env"])
        finally:
            os._exit(code)
    print(pid, file=answers, flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
"""


class Forking:
    """Runs initmig's `main` in a fork of a process that has imported it, one at a time.

    Such a run is killed with SIGKILL as any other process, and takes a tenth of the time.
    """

    def __init__(self, processes: Processes, *around: str) -> None:
        """Each run is inside of `around(env)` of the module *around*, if that is given."""
        name = secrets.token_hex(4)
        self._err = processes.folder / f"{name}.err"
        orders, answers = (processes.folder / f"{name}.{each}" for each in ("orders", "answers"))
        os.mkfifo(orders)
        os.mkfifo(answers)
        processes.start([sys.executable, "-c", _FORKING, str(orders), str(answers), *around])
        self._orders = orders.open("w")
        self._answers = answers.open()
        self._pid = 0
        self._started = threading.Event()

    def run(self, *argv: str, url: str, folder: Path, env: Mapping[str, str] = {}) -> Result:
        """Run to the end."""
        environ = {"DATABASE_URL": url, "INITMIG_MIGRATIONS": str(folder), **env}
        self._err.unlink(missing_ok=True)
        print(
            json.dumps({"argv": argv, "env": environ, "err": str(self._err)}),
            file=self._orders,
            flush=True,
        )
        self._pid = int(self._answers.readline())
        self._started.set()
        code = int(self._answers.readline())
        self._started.clear()
        return Result(code, "", self._err.read_text(), 0.0)

    @property
    def said(self) -> str:
        """What the run that is going on has written to stderr so far."""
        if not self._started.is_set():
            return ""
        try:
            return self._err.read_text()
        except FileNotFoundError:
            return ""  # it has yet to begin

    def kill(self) -> None:
        """SIGKILL the run that is going on."""
        self._started.wait()
        os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        self._orders.close()
        self._answers.close()


class Blow:
    """Does something to a run when its message *number*, counted from here, passes the proxy.

    A farewell does not count: nobody waits for it, so it may overtake, or be overtaken.

    *first* is called when it is due, while the message is held back.
    """

    def __init__(
        self, proxy: Proxy, number: int, *, first: Callable[[], object] = lambda: None
    ) -> None:
        self._proxy = proxy
        self._left = number
        self._first = first
        self.struck = False

    def kill_before(self, run: Forking) -> None:
        """SIGKILL it, and let the server never see the message."""

        def before(message: Message) -> Verdict:
            if self._is_due(message):
                run.kill()
                return "drop"
            return "forward"

        self._proxy.before = before

    def kill_after(self, run: Forking) -> None:
        """SIGKILL it after the server has answered, before it can hear of that."""

        def after(message: Message) -> None:
            if self._is_due(message):
                run.kill()

        self._proxy.after = after

    def cut_before(self) -> None:
        """Close the connection, and let the server never see the message."""
        self._proxy.before = lambda message: "cut" if self._is_due(message) else "forward"

    def cut_after(self) -> None:
        """Close the connection after the server has answered, before the client hears of that."""

        def after(message: Message) -> None:
            if self._is_due(message):
                self._proxy.cut()

        self._proxy.after = after

    def _is_due(self, message: Message) -> bool:
        if message.type == "X":
            return False
        self._left -= 1
        due = self._left == 0
        if due:
            self._first()
        self.struck = self.struck or due
        return due
