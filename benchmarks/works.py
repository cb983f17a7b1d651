"""The works: each yields the trials to measure in turn."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.bench import EMPTY
from benchmarks.databases import TRUSTED, Watch
from benchmarks.measuring import Command, CommandFailed, Trial, measure, measure_copies
from benchmarks.migrations import idle_migrations, one_migration, small_migrations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench, Project
    from benchmarks.installing import Home
    from benchmarks.link import Link
    from benchmarks.measuring import Sample
    from benchmarks.peers.peer import Peer

    Run = Callable[[], Sample]
    MakeProject = Callable[[], Project]

# The imports of a run that writes, and the same with the driver that it does not need.
ENGINE: Final = {
    "engine": "import initmig.commands.applying",
    "engine and psycopg": "import psycopg, initmig.commands.applying",
}
LIBPQ: Final = Path(__file__).with_name("floor") / "libpq.py"
# The peers of the works that not all peers do: initmig, its lower limits, and some to compare with.
_WITH_A_LOCK: Final = ("initmig", "psycopg-script")
_OF_BIG_FILES: Final = ("psql", "psycopg-script", "initmig", "dbmate", "yoyo")
_OF_MANY_FILES: Final = ("psycopg-script", "initmig", "dbmate", "knex", "node-pg-migrate")
_WITH_OTHER_TABLES: Final = ("psycopg-script", "initmig", "yoyo")


# --- one copy ---


def noop(bench: Bench) -> Iterator[Trial]:
    """A no-op: everything is applied, as at nearly every start of a pod.

    Measured with a password, and with trust authentication.
    """
    migrations = small_migrations(bench.sizes.few)
    for case, purpose in (("", "noop"), ("trust", f"noop{TRUSTED}")):
        for peer in bench.peers:
            make = partial(bench.project, peer, migrations, purpose)
            yield Trial(case, peer.name, bench.rounds("noop", peer), partial(_no_op, make))


def apply(bench: Bench) -> Iterator[Trial]:
    """Apply many small migrations to an empty database."""
    migrations = small_migrations(bench.sizes.many)
    for peer in bench.peers:
        make = partial(bench.project, peer, migrations, "apply")
        yield Trial("", peer.name, bench.rounds("apply", peer), partial(_apply, make))


def _no_op(make: MakeProject, template: str = EMPTY) -> Run:
    project = make()
    project.apply(template=template)
    return partial(measure, project.no_op(project.url()))


def _apply(make: MakeProject, template: str = EMPTY) -> Run:
    return partial(make().apply, template=template)


# --- many copies ---


def crowd(bench: Bench) -> Iterator[Trial]:
    """Copies that start at the same time on an empty database. psql is left out: it has no lock."""
    for peer in bench.peers:
        if peer.name != "psql":
            yield _together(bench, "crowd", peer, bench.sizes.copies)
    for peer in bench.among("initmig"):
        make = partial(bench.project, peer, small_migrations(bench.sizes.some), "alone")
        yield Trial("alone", peer.name, bench.rounds("crowd", peer), partial(_apply, make))
        yield from _starts(bench, "crowd", peer, bench.sizes.copies)


def crowds(bench: Bench) -> Iterator[Trial]:
    """More copies than the server has connections."""
    for copies in bench.sizes.crowds:
        for peer in bench.among(*_WITH_A_LOCK):
            yield _together(bench, "crowds", peer, copies)
        for peer in bench.among("initmig"):
            yield from _starts(bench, "crowds", peer, copies)


def _together(bench: Bench, work: str, peer: Peer, copies: int) -> Trial:
    make = partial(bench.project, peer, small_migrations(bench.sizes.some), f"together {copies}")
    prepare = partial(_apply_together, bench, make, copies)
    return Trial(f"{copies} together", peer.name, bench.rounds(work, peer), prepare)


def _starts(bench: Bench, work: str, peer: Peer, copies: int) -> Iterator[Trial]:
    """The start of *copies* processes, with a query of the database and without."""
    rounds = bench.rounds(work, peer)
    make = partial(bench.project, peer, small_migrations(bench.sizes.some), f"start {copies}")
    yield Trial(f"{copies} no-ops", peer.name, rounds, partial(_no_ops_together, make, copies))
    version = bench.home(peer).program("initmig", "--version")
    run = partial(_all_together, version, copies)
    yield Trial(f"{copies} versions", peer.name, rounds, partial(_ready, run))


def _ready(run: Run) -> Run:
    return run


def _apply_together(bench: Bench, make: MakeProject, copies: int) -> Run:
    project = make()
    # If a tool cannot do it alone, it must not look as if many copies were the problem.
    project.apply()

    def run() -> Sample:
        bench.databases.create(project.database)
        with Watch(bench.databases, project.database) as watch:
            sample = measure_copies(project.migrate(project.url()), copies)
        if sample.good == copies:
            project.check()
        return sample._replace(connections=watch.most)

    return run


def _no_ops_together(make: MakeProject, copies: int) -> Run:
    project = make()
    project.apply()
    return partial(_all_together, project.no_op(project.url()), copies)


def _all_together(command: Command, copies: int) -> Sample:
    sample = measure_copies(command, copies)
    if sample.good != copies:
        raise CommandFailed(f"exit code 0 of {sample.good} of {copies}")
    return sample


# --- a remote server ---


def link(bench: Bench) -> Iterator[Trial]:
    """No-ops and migrations over a link with a delay."""
    migrations = small_migrations(bench.sizes.few)
    for peer in bench.peers:
        rounds = bench.rounds("link", peer)
        far = partial(bench.project, peer, migrations, "far no-op")
        yield Trial("no-op", peer.name, rounds, partial(_no_op_over, bench.link, far))
        far = partial(bench.project, peer, migrations, "far")
        yield Trial("apply", peer.name, rounds, partial(_apply_over, bench.link, far))
        # Separates the queries of a run from the queries of each migration.
        far = partial(bench.project, peer, migrations[:1], "far one")
        yield Trial("apply one", peer.name, 1, partial(_apply_over, bench.link, far))


def _no_op_over(link: Link, make: MakeProject) -> Run:
    project = make()
    project.apply()
    return partial(_counted, link, partial(measure, project.no_op(project.url(link.port))))


def _apply_over(link: Link, make: MakeProject) -> Run:
    return partial(_counted, link, partial(make().apply, port=link.port))


def _counted(link: Link, run: Run) -> Sample:
    link.reset()
    return run()._replace(connections=link.connections, round_trips=link.round_trips)


# --- large amounts ---


def big(bench: Bench) -> Iterator[Trial]:
    """A big file, and a file of many statements."""
    sizes = bench.sizes
    contents = {
        "no-op": small_migrations(sizes.few),
        "big": one_migration("big", statements=sizes.big_statements, size=sizes.big_bytes),
        "many": one_migration("many", statements=sizes.statements, size=100 * sizes.statements),
    }
    for peer in bench.among(*_OF_BIG_FILES):
        # A stock yoyo can take minutes, or more locks than the server has.
        rounds = 1 if peer.name == "yoyo" else bench.rounds("big", peer)
        for case, migrations in contents.items():
            make = partial(bench.project, peer, migrations, f"big {case}")
            prepare = partial(_no_op if case == "no-op" else _apply, make)
            yield Trial(case, peer.name, rounds, prepare, peer.name == "yoyo")


def files(bench: Bench) -> Iterator[Trial]:
    """A no-op with many files."""
    for count in (bench.sizes.few, bench.sizes.files):
        migrations = idle_migrations(count)
        for peer in bench.among(*_OF_MANY_FILES):
            make = partial(bench.project, peer, migrations, f"files {count}")
            yield Trial(str(count), peer.name, bench.rounds("files", peer), partial(_no_op, make))


def tables(bench: Bench) -> Iterator[Trial]:
    """No-ops and migrations in a database with many other tables."""
    few, some = small_migrations(bench.sizes.few), small_migrations(bench.sizes.some)
    for count, template in ((0, EMPTY), (bench.sizes.tables, _with_tables(bench))):
        for peer in bench.among(*_WITH_OTHER_TABLES):
            rounds = bench.rounds("tables", peer)
            make = partial(bench.project, peer, few, f"beside {count} no-op")
            yield Trial(f"no-op, {count}", peer.name, rounds, partial(_no_op, make, template))
            make = partial(bench.project, peer, some, f"beside {count}")
            yield Trial(f"apply, {count}", peer.name, rounds, partial(_apply, make, template))


def _with_tables(bench: Bench) -> str:
    name = "with_tables"
    bench.databases.create(name)
    # in groups, so that there is room for their locks
    for first in range(0, bench.sizes.tables, 1000):
        numbers = range(first, min(first + 1000, bench.sizes.tables))
        script = "".join(f"CREATE TABLE other_{number} (id integer);" for number in numbers)
        bench.databases.execute(name, script)
    return name


# --- where the time of a no-op goes ---


def profile(bench: Bench) -> Iterator[Trial]:
    """Whole commands, each of them a little more than the previous one."""
    parts = {"psql": _psql_parts, "psycopg-script": _psycopg_parts, "initmig": _initmig_parts}
    for peer in bench.among(*parts):
        project = bench.project(peer, small_migrations(bench.sizes.few), "profile")
        project.apply()
        no_op = project.no_op(project.url())
        for case, command in parts[peer.name](bench.home(peer), no_op):
            run = partial(measure, command)
            yield Trial(case, peer.name, bench.rounds("profile", peer), partial(_ready, run))


def _psql_parts(_: Home, no_op: Command) -> Iterator[tuple[str, Command]]:
    yield "start", Command((no_op.argv[0], "--version"), no_op.folder)
    yield "no-op", no_op


def _psycopg_parts(home: Home, no_op: Command) -> Iterator[tuple[str, Command]]:
    for library in home.folder.glob("lib/python*/site-packages/psycopg_binary.libs/libpq-*"):
        alone = ("-I", "-S", str(LIBPQ), str(library))
        yield "libpq", home.program("python", *alone, **no_op.environment)
    yield "import", home.program("python", "-c", "import psycopg")
    yield "no-op", no_op


def _initmig_parts(home: Home, no_op: Command) -> Iterator[tuple[str, Command]]:
    yield "bare python", home.program("python", "-I", "-S", "-c", "pass")
    yield "python", home.program("python", "-c", "pass")
    yield "version", home.program("initmig", "--version")
    yield "no-op", no_op
    for case, code in ENGINE.items():
        yield case, home.program("python", "-c", code)


WORKS: Final = {
    work.__name__: work for work in (noop, apply, crowd, crowds, link, big, files, tables, profile)
}
