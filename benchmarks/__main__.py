"""Measure, and report: `python -m benchmarks run`, `python -m benchmarks report`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from benchmarks.bench import FULL, SMOKE, Bench
from benchmarks.databases import running_databases
from benchmarks.imports import imports_of_a_no_op
from benchmarks.installing import KEPT, REPOSITORY, install
from benchmarks.link import Link
from benchmarks.machine import describe_machine
from benchmarks.measuring import CommandFailed, Figure, take_turns
from benchmarks.peers import PEERS
from benchmarks.report import tables, write_document
from benchmarks.results import Results
from benchmarks.works import WORKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Sizes
    from benchmarks.peers.peer import Peer

RESULTS: Final = KEPT / "results.json"
DELAY_SECONDS: Final = 0.005
_SMOKE_PEERS: Final = ["psql", "psycopg-script", "initmig", "dbmate", "yoyo"]


def main() -> int:
    """Run the command line; return 1 if something could not be measured."""
    signal.signal(signal.SIGTERM, _leave)
    asked = _parser().parse_args()
    if asked.command == "report":
        write_document(Results.load(RESULTS))
        return 0
    names = asked.peers or (_SMOKE_PEERS if asked.smoke else list(_PEERS))
    works = asked.works or list(WORKS)
    sizes = SMOKE if asked.smoke else FULL
    if asked.rounds:
        sizes = sizes._replace(rounds=dict.fromkeys(WORKS, asked.rounds))
    results = _measure([_PEERS[name] for name in names], works, sizes, asked.source)
    # Figures of a few tools, or of other sizes, are only printed.
    with_all = set(names) == set(_PEERS) and not (asked.smoke or asked.rounds)
    if with_all and set(works) != set(WORKS) and RESULTS.exists():
        results = Results.load(RESULTS).renewed(results)
    if with_all and results.works == set(WORKS):
        results.save(RESULTS)
        write_document(results)
    else:
        print(tables(results))
    for figure in results.missing:
        _say(f"not measured: {figure.work} {figure.case} {figure.peer}")
    return 1 if results.missing else 0


_PEERS: Final = {peer.name: peer for peer in PEERS}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure initmig and other migration tools, and write the page of benchmarks.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("report", help="write docs/explanation/benchmarks.md from the last results")
    run = commands.add_parser("run", help="measure; by default every tool and every work")
    run.add_argument(
        "--peers",
        type=_Names(list(_PEERS)),
        help=f"measure only these tools, separated by commas: {', '.join(_PEERS)}",
    )
    run.add_argument(
        "--works",
        type=_Names(list(WORKS)),
        help=f"do only these works, separated by commas: {', '.join(WORKS)}",
    )
    run.add_argument("--rounds", type=int, help="rounds of each work")
    run.add_argument("--smoke", action="store_true", help="use small sizes, to check that it works")
    run.add_argument(
        "--source",
        type=Path,
        default=REPOSITORY,
        help="folder of initmig's source code (default: this repository)",
    )
    return parser


class _Names:
    """Reads names, separated by commas or spaces."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        asked = text.replace(",", " ").split()
        if unknown := [name for name in asked if name not in self._known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return [name for name in self._known if name in asked]


def _measure(peers: Sequence[Peer], works: Sequence[str], sizes: Sizes, source: Path) -> Results:
    _say("setting up")
    installed = install(peers, source.resolve())
    for name, reason in installed.left_out.items():
        _say(f"left out: {name}: {reason}")
    present = [peer for peer in peers if peer.name in installed.homes]
    with (
        running_databases() as databases,
        Link(databases.server.port, delay=DELAY_SECONDS) as link,
    ):
        bench = Bench(present, installed, databases, link, sizes)
        machine = describe_machine(databases)
        figures = [figure for work in works for figure in _do(bench, work)]
        imports = imports_of_a_no_op(bench)
    return Results(machine, installed.versions, installed.left_out, sizes, figures, imports)


def _do(bench: Bench, work: str) -> list[Figure]:
    _say(work)
    try:
        return take_turns(work, WORKS[work](bench), _say)
    except CommandFailed as error:
        return [Figure(work, "", "", why_not=str(error))]
    finally:
        bench.databases.clear()


def _leave(*_: object) -> NoReturn:
    # so that the server does not outlive this process
    sys.exit(143)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
