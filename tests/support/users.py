"""Commands under another user id, as container platforms start them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys

import pytest


def uid_without_passwd_entry() -> int:
    """A user id that has no name and no home on this machine."""
    named = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(23456, 65000) if uid not in named)


def as_uid(uid: int) -> list[str]:
    """The command to put before another command, so that it runs as *uid* and in no group.

    It can read every file, even if this Python and pytest's folders are closed to other users.
    Skips the test if this process is not root, or if setpriv is not installed.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can run a command as another user")
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, of util-linux")
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    # A container has the second capability if it lacks the first.
    for capability in ("dac_read_search", "dac_override"):
        attempt = [*prefix, f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
        if _finds_python(attempt):
            return attempt
    pytest.skip(f"uid {uid} cannot run this Python")


def _finds_python(prefix: list[str]) -> bool:
    code = "import sys, psycopg; print(sys.base_prefix)"
    probe = [*prefix, sys.executable, "-c", code]
    done = subprocess.run(probe, capture_output=True, check=False, cwd="/", text=True)
    return done.returncode == 0 and done.stdout.strip() == sys.base_prefix
