"""initmig in forks of a process that has imported it, for tests that run it hundreds of times."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from select import select
from typing import TYPE_CHECKING, BinaryIO

from tests.support.command import Initmig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.support.processes import Processes, Result, Running
    from tests.support.proxy import Message, Proxy, Verdict

_ORDER_BYTES = 1 << 16
# Each order has stdout, stderr, and a pipe for the process id and then the exit code.
_FORKING = f"""
import gc, json, os, socket, sys, traceback
from contextlib import nullcontext
from importlib import import_module
from pkgutil import walk_packages
from select import select
around = import_module(sys.argv[2]).around if sys.argv[2:] else nullcontext
import difflib, pgparse, psycopg, tenacity
import initmig
for module in walk_packages(initmig.__path__, "initmig."):
    if module.name != "initmig.__main__":
        import_module(module.name)
gc.freeze()

def run(order, out, err, end):
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = order["argv"]
    os.write(end, b"%d\\n" % os.getpid())
    os.closerange(3, end + 1)
    try:
        with around(os.environ):
            initmig.cli.process.run()
    except SystemExit as ended:
        return ended.code
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()

orders = socket.socket(fileno=int(sys.argv[1]))
running = {{}}
while True:
    for each in select([orders, *running], [], [])[0]:
        if each is not orders:
            pid, end = running.pop(each)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(end, b"%d\\n" % code)
            os.close(end)
            os.close(each)
            continue
        order, files, *_ = socket.recv_fds(orders, {_ORDER_BYTES}, 3)
        if not order:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = run(json.loads(order), *files)
            finally:
                os._exit(code)
        out, err, end = files
        os.close(out)
        os.close(err)
        running[os.pidfd_open(pid)] = pid, end
"""


class ForkedProcess:
    """A run in a fork, as a `processes.Process`."""

    def __init__(self, end: int) -> None:
        self._end = os.fdopen(end, "rb", buffering=0)
        self.pid = int(self._end.readline())
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and select([self._end], [], [], 0)[0]:
            self.wait()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            if not select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("initmig", timeout or 0)
            self._code = int(self._end.readline())
            self._end.close()
        return self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Runs the command in forks of a process that has imported it: a `processes.Start`.

    Such a run gets signals and ends like any other process, and takes a third of the time.
    """

    def __init__(self, *around: str) -> None:
        """With the name of a module in *around*, each run is inside its `around(environ)`."""
        self._orders, orders = socket.socketpair(type=socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-P", "-c", _FORKING, str(orders.fileno()), *around]
        self._process = subprocess.Popen(
            argv, pass_fds=[orders.fileno()], start_new_session=True, cwd="/"
        )
        orders.close()

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdout: BinaryIO,
        stderr: BinaryIO,
        env: Mapping[str, str],
        cwd: Path,
    ) -> ForkedProcess:
        order = json.dumps({"argv": argv, "env": env, "cwd": str(cwd)}).encode()
        assert len(order) <= _ORDER_BYTES
        end, reported = os.pipe()
        socket.send_fds(self._orders, [order], [stdout.fileno(), stderr.fileno(), reported])
        os.close(reported)
        return ForkedProcess(end)

    def close(self) -> None:
        """Stop the process; its runs continue."""
        self._orders.close()
        self._process.wait()


class KillableRuns:
    """Runs the command with *fork*, one run at a time. Another thread may kill the run."""

    def __init__(self, processes: Processes, fork: ForkServer) -> None:
        self._initmig = Initmig(processes, fork)
        self._running: Running | None = None
        self._started = threading.Event()

    def run(self, *argv: str, url: str, folder: Path, env: Mapping[str, str] = {}) -> Result:
        """Run until it exits."""
        self._running = self._initmig.start(*argv, url=url, folder=folder, env=env)
        self._started.set()
        result = self._running.result(None)
        self._started.clear()
        return result

    @property
    def err(self) -> str:
        """The stderr of the current run so far."""
        return self._running.err if self._running and self._started.is_set() else ""

    def kill(self) -> None:
        """SIGKILL the current run."""
        self._started.wait()
        assert self._running
        self._running.send(signal.SIGKILL)


class Interruption:
    """Interrupts a run when its message *number*, counted from here, passes the proxy.

    A farewell does not count: no side waits for it, so its order is not deterministic.

    *first* is called just before, while the message is held back.
    """

    def __init__(
        self, proxy: Proxy, number: int, *, first: Callable[[], object] = lambda: None
    ) -> None:
        self._proxy = proxy
        self._left = number
        self._first = first
        self.happened = False

    def kill_before(self, run: KillableRuns) -> None:
        """SIGKILL the run, and keep the message from the server."""

        def before(message: Message) -> Verdict:
            if self._is_reached(message):
                run.kill()
                return "drop"
            return "forward"

        self._proxy.before = before

    def kill_after(self, run: KillableRuns) -> None:
        """SIGKILL the run after the server has answered, before it receives the answer."""

        def after(message: Message) -> None:
            if self._is_reached(message):
                run.kill()

        self._proxy.after = after

    def cut_before(self) -> None:
        """Close the connection, and keep the message from the server."""
        self._proxy.before = lambda message: "cut" if self._is_reached(message) else "forward"

    def cut_after(self) -> None:
        """Close the connection after the server has answered, before the client gets the answer."""

        def after(message: Message) -> None:
            if self._is_reached(message):
                self._proxy.cut()

        self._proxy.after = after

    def _is_reached(self, message: Message) -> bool:
        if message.type == "X":
            return False
        self._left -= 1
        is_reached = self._left == 0
        if is_reached:
            self._first()
        self.happened = self.happened or is_reached
        return is_reached
