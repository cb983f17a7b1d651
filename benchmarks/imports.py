"""The modules that a no-op imports, and the times of the slowest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.measuring import output_of
from benchmarks.migrations import small_migrations

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_LINE = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)


class Imports(NamedTuple):
    """The number of modules, and the slowest with their own microseconds."""

    number: int
    slowest: list[tuple[str, int]]


def imports_of_a_no_op(bench: Bench) -> Imports:
    """The figures of `python -X importtime` for initmig's no-op."""
    for peer in bench.among("initmig"):
        project = bench.project(peer, small_migrations(bench.sizes.few), "imports")
        project.apply()
        no_op = project.no_op(project.url())
        home = bench.home(peer)
        traced = home.program("python", "-X", "importtime", *no_op.argv, **no_op.environment)
        output_of(traced)
        found = [(name, int(own)) for own, name in _LINE.findall(output_of(traced))]
        return Imports(len(found), sorted(found, key=lambda module: -module[1])[:10])
    return Imports(0, [])
