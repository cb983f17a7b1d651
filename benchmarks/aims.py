"""initmig's goals in figures, and whether the results reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers import PEERS
from benchmarks.results import ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.results import Results


class Aim(NamedTuple):
    """A *value*, None if not measured, and its upper *limit*."""

    work: str
    words: str
    limit: float
    value: float | None

    @property
    def verdict(self) -> str:
        """Whether the value is within the limit; "-" if it was not measured."""
        if self.value is None:
            return "-"
        return "yes" if self.value <= self.limit else "no"


def aims(results: Results) -> list[Aim]:
    """All goals, in the order of the works."""
    parts = (_noop, _apply, _crowd, _crowds, _link, _big, _files, _tables)
    return [aim for part in parts for aim in part(results)]


def start_and_work(results: Results, work: str, copies: int) -> float | None:
    """Seconds of one copy alone, plus those of *copies* that find nothing to do."""
    alone = results.median("crowd", "alone", "initmig")
    start = results.median(work, f"{copies} no-ops", "initmig")
    return alone + start if alone and start else None


def growth(results: Results, peer: str) -> float | None:
    """The additional peak memory of *peer* for 20 MB, as a multiple of the file's size."""
    peak = results.median("big", "big", peer, "memory")
    usual = results.median("big", "no-op", peer, "memory")
    return (peak - usual) / results.sizes.big_bytes if peak and usual else None


def trips_each(results: Results, peer: str) -> float | None:
    """The round trips that each additional migration costs."""
    all_in_all = results.median("link", "apply", peer, "round_trips")
    for_one = results.median("link", "apply one", peer, "round_trips")
    if all_in_all is None or for_one is None:
        return None
    return (all_in_all - for_one) / (results.sizes.few - 1)


def _noop(results: Results) -> Iterator[Aim]:
    ours = results.median("noop", "", "initmig")
    dbmate = results.median("noop", "", "dbmate")
    interpreted = [
        median
        for peer in PEERS
        if peer.kind == "interpreted" and peer.name != "initmig"
        if (median := results.median("noop", "", peer.name))
    ]
    fastest = min(interpreted, default=None)
    yield Aim("noop", "against the fastest interpreted tool", 1, ratio(ours, fastest))
    yield Aim("noop", "with a password, against dbmate", 1.25, ratio(ours, dbmate))
    ours, dbmate = (results.median("noop", "trust", peer) for peer in ("initmig", "dbmate"))
    yield Aim("noop", "without a password, against dbmate", 1.4, ratio(ours, dbmate))


def _apply(results: Results) -> Iterator[Aim]:
    for peer, limit in (("psycopg-script", 1.05), ("dbmate", 1)):
        for field, words in (("wall", "time"), ("cpu", "processor time")):
            ours, theirs = (results.median("apply", "", who, field) for who in ("initmig", peer))
            yield Aim("apply", f"{words} against {peer}", limit, ratio(ours, theirs))


def _crowd(results: Results) -> Iterator[Aim]:
    yield from _of_crowd(results, "crowd", results.sizes.copies)


def _crowds(results: Results) -> Iterator[Aim]:
    for copies in results.sizes.crowds:
        yield from _of_crowd(results, "crowds", copies)
        most = results.median("crowds", f"{copies} together", "initmig", "connections")
        yield Aim("crowds", f"{copies} at once: connections for each", 1, ratio(most, copies))


def _of_crowd(results: Results, work: str, copies: int) -> Iterator[Aim]:
    figure = results.figure(work, f"{copies} together", "initmig")
    samples = figure.samples if figure else ()
    failed = max((copies - sample.good for sample in samples), default=None)
    yield Aim(work, f"{copies} at once: copies that fail", 0, failed)
    last = results.median(work, f"{copies} together", "initmig")
    words = f"{copies} at once: last exit against one alone and {copies} no-ops"
    yield Aim(work, words, 1.3, ratio(last, start_and_work(results, work, copies)))


def _link(results: Results) -> Iterator[Aim]:
    trips = results.median("link", "no-op", "initmig", "round_trips")
    yield Aim("link", "round trips of a no-op, once connected", 1, trips)
    yield Aim("link", "round trips for each migration", 3, trips_each(results, "initmig"))


def _big(results: Results) -> Iterator[Aim]:
    for case, words in (("big", "20 MB"), ("many", "10,000 statements")):
        ours, theirs = (results.median("big", case, peer) for peer in ("initmig", "psql"))
        yield Aim("big", f"{words}: time against psql", 1.1, ratio(ours, theirs))
    yield Aim(
        "big", "20 MB: memory above a no-op's, in sizes of the file", 6, growth(results, "initmig")
    )


def _files(results: Results) -> Iterator[Aim]:
    counts = (results.sizes.files, results.sizes.few)
    many, few = (results.median("files", str(count), "initmig") for count in counts)
    yield Aim("files", f"{counts[0]:,} files against {counts[1]}", 1.5, ratio(many, few))


def _tables(results: Results) -> Iterator[Aim]:
    for case, words in (("no-op", "no-op"), ("apply", f"{results.sizes.some} migrations")):
        with_others, alone = (
            results.median("tables", f"{case}, {count}", "initmig")
            for count in (results.sizes.tables, 0)
        )
        # The times should be equal; 10 % is for variation between runs.
        yield Aim(
            "tables", f"{words}: with the tables against without", 1.1, ratio(with_others, alone)
        )
