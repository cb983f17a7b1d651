#!/usr/bin/env python3
"""measure.py [ROUNDS]: compares `docker run` of initmig with a container that does nothing.

The kinds of run alternate, so that noise on the machine affects all of them. It prints medians, and
the median of the ratios within a round. It needs the images initmig, debian:trixie-slim and
postgres:17. Environment variables can name others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

INITMIG = os.environ.get("INITMIG_IMAGE", "initmig")
BASE = os.environ.get("BASE_IMAGE", "debian:trixie-slim")
POSTGRES = os.environ.get("POSTGRES_IMAGE", "postgres:17")
NAME = f"initmig-measure-{os.getpid()}"
URL = f"DATABASE_URL=postgresql://app:secret@{NAME}/app"
RUN = ("run", "--rm", "--pull=never", f"--network={NAME}")
MIGRATE = (*RUN, f"--volume={os.getcwd()}/migrations:/migrations:ro", f"--env={URL}", INITMIG)
RUNS = {
    "nothing": (*RUN, "--entrypoint=/bin/true", BASE),
    "--version": (*RUN, INITMIG, "--version"),
    "no-op migrate": MIGRATE,
}


def docker(*arguments: str) -> float:
    """Run docker; its time in seconds. Raises subprocess.CalledProcessError when it fails."""
    started = time.perf_counter()
    subprocess.run(["docker", *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def start_database() -> None:
    """Start it, and apply the migrations that the measured runs find applied."""
    docker("network", "create", NAME)
    settings = ("USER=app", "PASSWORD=secret", "DB=app")
    env = [f"--env=POSTGRES_{setting}" for setting in settings]
    options = ("--detach", "--pull=never", f"--name={NAME}", f"--network={NAME}")
    docker("run", *options, *env, POSTGRES)
    docker(*MIGRATE)


def measure(rounds: int) -> None:
    """Print a line for each kind of run."""
    times = [{kind: docker(*run) for kind, run in RUNS.items()} for _ in range(rounds)]
    for kind in RUNS:
        ratio = median(one[kind] / one["nothing"] for one in times)
        seconds = median(one[kind] for one in times)
        print(f"{kind:14} {seconds:6.3f} s  {ratio:5.2f} x nothing")  # noqa: T201


def main() -> None:
    """Measure, and leave nothing behind."""
    try:
        start_database()
        measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    finally:
        subprocess.run(["docker", "rm", "-fv", NAME], check=False, capture_output=True)
        subprocess.run(["docker", "network", "rm", NAME], check=False, capture_output=True)


if __name__ == "__main__":
    main()
