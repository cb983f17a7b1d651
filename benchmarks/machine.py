"""A description of the machine without personal data."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.databases import SETTINGS
from dev.programs import find_installation

if TYPE_CHECKING:
    from benchmarks.databases import Databases


def describe_machine(databases: Databases) -> dict[str, str]:
    """The properties that influence the figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "Processor": _processor(),
        "Cores": str(len(os.sched_getaffinity(0))),
        "Memory": f"{memory / 2**30:.0f} GiB",
        "System": f"{_distribution()}, Linux {_first_version(platform.release())}",
        "Data folder on": _file_system(databases.server.data),
        "Load when it began": f"{os.getloadavg()[0]:.1f}",
        "PostgreSQL": _first_version(find_installation().run("postgres", "--version")),
        "Its settings": ", ".join(f"{name} = {value}" for name, value in SETTINGS.items()),
        "Python": platform.python_version(),
        "Node.js": _version_of("node", "--version"),
        "Java": _version_of("java", "-version"),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown"


def _file_system(folder: Path) -> str:
    done = subprocess.run(
        ["stat", "--file-system", "--format=%T", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _version_of(program: str, option: str) -> str:
    if not shutil.which(program):
        return "none"
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    return _first_version(done.stdout + done.stderr)


def _first_version(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else "unknown"
