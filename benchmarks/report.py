"""The report: tables and plots in a template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import cells
from benchmarks.aims import aims, growth, start_and_work, trips_each
from benchmarks.installing import REPOSITORY
from benchmarks.plots import Bar, bar_chart
from benchmarks.results import ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measuring import Figure
    from benchmarks.results import Results

TEMPLATE: Final = Path(__file__).with_name("report.md")
DOCUMENT: Final = REPOSITORY / "docs" / "explanation" / "benchmarks.md"
PLOTS: Final = REPOSITORY / "docs" / "explanation" / "benchmarks"


def write_document(results: Results) -> None:
    """Write docs/explanation/benchmarks.md and its plots."""
    PLOTS.mkdir(exist_ok=True)
    for name, plot in _PLOTS.items():
        (PLOTS / f"{name}.svg").write_text(plot(results))
    marker = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)
    text = marker.sub(lambda found: _SECTIONS[found[1]](results), TEMPLATE.read_text())
    DOCUMENT.write_text(text)


def tables(results: Results) -> str:
    """The goals and tables of the works that were done, for a terminal."""
    works = results.works
    sections = ["aims", *(name for name in _SECTIONS if _PART_OF.get(name, name) in works)]
    return "\n\n".join(f"{name}\n\n{_SECTIONS[name](results)}" for name in sections)


# --- sections ---


def _machine(results: Results) -> str:
    return cells.table(("machine", ""), results.machine.items(), words=2)


def _peers(results: Results) -> str:
    left_out = [f"- {peer}: {_brief(reason)}" for peer, reason in results.left_out.items()]
    table = cells.table(("tool", "version"), results.versions.items())
    return "\n".join([table, "", "Left out:", "", *left_out]) if left_out else table


def _aims(results: Results) -> str:
    rows = [
        (
            aim.work,
            aim.words,
            f"{aim.limit:g}",
            cells.short(aim.value),
            aim.verdict,
        )
        for aim in aims(results)
        if aim.work in results.works
    ]
    return cells.table(("work", "goal", "at most", "measured", "reached"), rows, words=2)


def _noop(results: Results) -> str:
    def row(peer: str) -> Sequence[str]:
        trusted = (results.median("noop", "trust", peer, field) for field in ("wall", "cpu"))
        return (*_one_copy(results, "noop", peer, ("psql",)), *map(cells.seconds, trusted))

    trusted = ("without a password: time", "processor time")
    head = ("tool", "against psql", "time", "processor time", "memory", *trusted)
    return _ranking(results, "noop", "", head, row)


def _apply(results: Results) -> str:
    floors = ("psql", "psycopg-script")
    head = ("tool", *(f"against {name}" for name in floors), "time", "processor time", "memory")
    return _ranking(
        results, "apply", "", head, lambda peer: _one_copy(results, "apply", peer, floors)
    )


def _one_copy(results: Results, work: str, peer: str, floors: Sequence[str]) -> Sequence[str]:
    """The cells of *peer* in a table of *work*: against each of *floors*, time and memory."""
    wall, cpu, memory = (results.median(work, "", peer, f) for f in ("wall", "cpu", "memory"))
    against = (ratio(wall, results.median(work, "", floor)) for floor in floors)
    ratios = map(cells.number, against)
    return (peer, *ratios, cells.seconds(wall), cells.seconds(cpu), cells.mebibytes(memory))


def _crowd(results: Results) -> str:
    copies = results.sizes.copies
    case = f"{copies} together"

    def row(peer: str) -> Sequence[str]:
        wall = results.median("crowd", case, peer)
        most = results.median("crowd", case, peer, "connections")
        return (
            peer,
            _exits(results.figure("crowd", case, peer)),
            cells.seconds(wall),
            cells.count(most),
        )

    head = ("tool", f"exit 0, of {copies}", "last exit", "connections at once")
    return _ranking(results, "crowd", case, head, row)


def _crowd_parts(results: Results) -> str:
    return _parts_of_crowds(results, "crowd", (results.sizes.copies,))


def _crowds(results: Results) -> str:
    rows = []
    for copies in results.sizes.crowds:
        case = f"{copies} together"
        for peer in results.peers("crowds", case):
            figure = results.figure("crowds", case, peer)
            most = results.median("crowds", case, peer, "connections")
            wall = results.median("crowds", case, peer)
            rows.append((peer, str(copies), _exits(figure), cells.seconds(wall), cells.count(most)))
    table = cells.table(("tool", "copies", "exit 0", "last exit", "connections at once"), rows)
    return (
        _with_notes(results, "crowds", table)
        + "\n\n"
        + _parts_of_crowds(results, "crowds", results.sizes.crowds)
    )


def _parts_of_crowds(results: Results, work: str, crowds: Sequence[int]) -> str:
    """The parts of the time to the last exit, for initmig."""
    rows = []
    for copies in crowds:
        parts = {
            "alone": results.median("crowd", "alone", "initmig"),
            "no-ops": results.median(work, f"{copies} no-ops", "initmig"),
            "versions": results.median(work, f"{copies} versions", "initmig"),
            "together": results.median(work, f"{copies} together", "initmig"),
        }
        whole = ratio(parts["together"], start_and_work(results, work, copies))
        rows.append((str(copies), *map(cells.seconds, parts.values()), cells.number(whole)))
    head = ("copies", "one alone", "no-ops at once", "`--version` at once", "last exit", "ratio")
    return cells.table(head, rows)


def _link(results: Results) -> str:
    def row(peer: str) -> Sequence[str]:
        def median(case: str, field: str) -> float | None:
            return results.median("link", case, peer, field)

        return (
            peer,
            cells.count(median("no-op", "connections")),
            cells.count(median("no-op", "round_trips")),
            cells.seconds(median("no-op", "wall")),
            cells.count(median("apply one", "round_trips")),
            cells.number(trips_each(results, peer)),
            cells.seconds(median("apply", "wall")),
        )

    few = results.sizes.few
    no_op = ("no-op: connections", "round trips", "time")
    head = ("tool", *no_op, "apply 1: round trips", "each more", f"apply {few}: time")
    return _ranking(results, "link", "no-op", head, row)


def _big(results: Results) -> str:
    def row(peer: str) -> Sequence[str]:
        found = [peer]
        for case in ("big", "many"):
            wall = results.median("big", case, peer)
            against = ratio(wall, results.median("big", case, "psql"))
            found += [cells.seconds(wall), cells.number(against)]
        return (*found, cells.number(growth(results, peer)))

    head = ("tool", "20 MB: time", "against psql", "10,000 statements: time", "against psql")
    return _ranking(results, "big", "big", (*head, "20 MB: memory, in sizes of the file"), row)


def _files(results: Results) -> str:
    few, many = results.sizes.few, results.sizes.files

    def row(peer: str) -> Sequence[str]:
        times = [results.median("files", str(count), peer) for count in (few, many)]
        return peer, *map(cells.seconds, times), cells.number(ratio(times[1], times[0]))

    return _ranking(
        results, "files", str(few), ("tool", f"{few} files", f"{many:,} files", "ratio"), row
    )


def _tables(results: Results) -> str:
    count = results.sizes.tables

    def row(peer: str) -> Sequence[str]:
        found = [peer]
        for case in ("no-op", "apply"):
            alone = results.median("tables", f"{case}, 0", peer)
            with_others = results.median("tables", f"{case}, {count}", peer)
            found += [
                cells.seconds(alone),
                cells.seconds(with_others),
                cells.number(ratio(with_others, alone)),
            ]
        return found

    some = results.sizes.some
    with_others = (f"with {count:,} tables", "ratio")
    head = ("tool", "no-op", *with_others, f"apply {some}", *with_others)
    return _ranking(results, "tables", "no-op, 0", head, row)


def _profile(results: Results) -> str:
    cpu = dict(_parts(results, "cpu"))
    rows = [
        (name, cells.seconds(wall), cells.seconds(cpu[name]))
        for name, wall in _parts(results, "wall")
    ]
    return _with_notes(results, "profile", cells.table(("part", "time", "processor time"), rows))


def _floor(results: Results) -> str:
    cases = (
        ("psql starts and prints its version", "start", "psql"),
        ("psql connects, queries and exits", "no-op", "psql"),
        (
            "Python starts without `site`; libpq connects, queries and exits",
            "libpq",
            "psycopg-script",
        ),
        ("Python starts and imports psycopg", "import", "psycopg-script"),
        ("psycopg-script: all of this, and reads the history", "no-op", "psycopg-script"),
        ("initmig: a complete no-op", "no-op", "initmig"),
    )
    rows = [
        (words, *(cells.seconds(results.median("profile", case, peer, f)) for f in ("wall", "cpu")))
        for words, case, peer in cases
    ]
    return cells.table(("command", "time", "processor time"), rows)


def _engine(results: Results) -> str:
    cases = (
        ("Python starts and imports the engine", "engine"),
        ("the same, and psycopg, which Python steps need", "engine and psycopg"),
    )
    rows = [
        (words, *(_seconds_of(results, case, field) for field in ("wall", "cpu")))
        for words, case in cases
    ]
    return cells.table(("command", "time", "processor time"), rows)


def _seconds_of(results: Results, case: str, field: str) -> str:
    return cells.seconds(results.median("profile", case, "initmig", field))


def _imports(results: Results) -> str:
    rows = [(f"`{name}`", cells.seconds(own / 1e6)) for name, own in results.imports.slowest]
    intro = f"A no-op of initmig imports {results.imports.number} modules. These are the slowest,"
    return f"{intro} each without its imports:\n\n{cells.table(('module', 'time'), rows)}"


def _parts(results: Results, field: str) -> list[tuple[str, float | None]]:
    """The steps of initmig's no-op, as differences of whole commands."""
    cases = ("bare python", "python", "version", "no-op")
    medians = [results.median("profile", case, "initmig", field) for case in cases]
    before = [0.0, *medians]
    steps = (
        "the interpreter",
        "`site`, and the virtual environment",
        "initmig's command, until its arguments are read",
    )
    names = (*steps, "the rest: settings, files, libpq, connecting, querying, exiting")
    return [
        (name, None if now is None or then is None else now - then)
        for name, now, then in zip(names, medians, before, strict=False)
    ]


# --- plots ---


def _plot_time(results: Results, work: str, title: str) -> str:
    medians = {peer: results.median(work, "", peer) for peer in results.peers(work, "")}
    known = {peer: seconds for peer, seconds in medians.items() if seconds is not None}
    psql = known.get("psql")
    bars = [
        Bar(
            peer,
            seconds,
            f"{cells.seconds(seconds)}  ({cells.number(ratio(seconds, psql))} times psql)",
        )
        for peer, seconds in sorted(known.items(), key=lambda item: item[1])
    ]
    return bar_chart(title, bars, highlighted="initmig", cut=True)


def _plot_noop(results: Results) -> str:
    return _plot_time(results, "noop", "A no-op, time")


def _plot_apply(results: Results) -> str:
    return _plot_time(results, "apply", f"{results.sizes.many} small migrations, time")


def _plot_crowd(results: Results) -> str:
    copies = results.sizes.copies
    case = f"{copies} together"
    bars = []
    for peer in results.peers("crowd", case):
        figure = results.figure("crowd", case, peer)
        good = min((sample.good for sample in figure.samples), default=0) if figure else 0
        bars.append(Bar(peer, good, f"{_exits(figure)} of {copies}"))
    bars.sort(key=lambda bar: -bar.value)
    return bar_chart(f"{copies} copies at once: how many exit 0", bars, highlighted="initmig")


def _plot_profile(results: Results) -> str:
    bars = [
        Bar(name.replace("`", ""), seconds, cells.seconds(seconds))
        for name, seconds in _parts(results, "wall")
        if seconds is not None
    ]
    return bar_chart("initmig's no-op, part by part", bars)


_PLOTS: Final[dict[str, Callable[[Results], str]]] = {
    "noop": _plot_noop,
    "apply": _plot_apply,
    "crowd": _plot_crowd,
    "profile": _plot_profile,
}
_SECTIONS: Final[dict[str, Callable[[Results], str]]] = {
    "machine": _machine,
    "peers": _peers,
    "aims": _aims,
    "noop": _noop,
    "apply": _apply,
    "crowd": _crowd,
    "crowd_parts": _crowd_parts,
    "crowds": _crowds,
    "link": _link,
    "big": _big,
    "files": _files,
    "tables": _tables,
    "profile": _profile,
    "floor": _floor,
    "imports": _imports,
    "engine": _engine,
}
_PART_OF: Final = {
    "crowd_parts": "crowd",
    "floor": "profile",
    "imports": "profile",
    "engine": "profile",
}


# --- words and cells ---


def _ranking(
    results: Results,
    work: str,
    case: str,
    head: Sequence[str],
    row: Callable[[str], Sequence[str]],
) -> str:
    """A table of the tools with the *case* of *work*, best first, and why some are missing."""

    def place(peer: str) -> tuple[float, float]:
        good, wall = (results.median(work, case, peer, field) for field in ("good", "wall"))
        return -(good or 0), wall or 0

    peers = sorted(results.peers(work, case), key=place)
    rows = [row(peer) for peer in peers]
    return _with_notes(results, work, cells.table(head, map(_stressed, rows)))


def _stressed(row: Sequence[str]) -> Sequence[str]:
    return [f"**{cell}**" for cell in row] if row[0] == "initmig" else row


def _with_notes(results: Results, work: str, table: str) -> str:
    figures = [figure for figure in results.figures if figure.work == work]
    rounds = max((len(figure.samples) for figure in figures), default=0)
    notes = [
        f"- {figure.peer}, {figure.case or work}: {_brief(figure.why_not)}"
        for figure in figures
        if figure.why_not
    ]
    rounds_note = "One round." if rounds == 1 else f"Medians of {rounds} rounds."
    return "\n".join([table, "", rounds_note, *(["", *notes] if notes else [])])


def _brief(reason: str) -> str:
    """The first line and the last error of a command, without the folders of this machine."""
    first, *output = reason.splitlines()
    errors = [line.strip() for line in output if "error" in line.lower()]
    words = f"{first}: {errors[-1]}" if errors else first
    return words.replace(str(REPOSITORY), "…")


def _exits(figure: Figure | None) -> str:
    if not figure or not figure.samples:
        return cells.NOTHING
    good = [sample.good for sample in figure.samples]
    return str(min(good)) if min(good) == max(good) else f"{min(good)} to {max(good)}"
