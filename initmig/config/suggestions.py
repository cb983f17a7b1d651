"""Suggests what to write instead of a command or flag that initmig does not have.

Imported only for an unknown command or flag. initmig only suggests, and never runs a guess.
"""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHORTEST_PREFIX = 3
_MOST = 3
"""The most suggestions; a prefix that more words share is too vague."""


class Elsewhere(Record):
    """Words of other tools, separated by spaces, and what to use in initmig instead."""

    words: str
    hint: str
    takes_value: bool = False
    """Whether the next argument is its value."""


_SETTINGS = "run `initmig help settings` for all of them"

COMMANDS_ELSEWHERE = (
    Elsewhere("up upgrade apply update deploy sync migration migrations", "use `initmig migrate`"),
    Elsewhere(
        "down downgrade revert undo",
        "use `initmig rollback` with --steps N, --to ID or --all",
    ),
    Elsewhere(
        "redo reapply develop",
        "run `initmig rollback --steps 1`, then `initmig migrate`",
    ),
    Elsewhere(
        "create generate revision make makemigrations add init",
        "use `initmig new NAME`",
    ),
    Elsewhere(
        "force repair resolve fix",
        "fix the cause and run `initmig migrate` again, there is nothing to repair;"
        " to record migrations without running them, use `initmig baseline --to ID`",
    ),
    Elsewhere(
        "info history current heads list ls show log showmigrations",
        "use `initmig status`",
    ),
    Elsewhere(
        "validate check lint",
        "use `initmig status --check`, or `initmig plan` for the SQL and its locks",
    ),
    Elsewhere("test", "use `initmig verify`, or `initmig rehearse`"),
    Elsewhere(
        "clean drop reset fresh",
        "use `initmig rollback --all`; initmig never drops a database or schema",
    ),
    Elsewhere("goto to", "use `initmig migrate --to ID` or `initmig rollback --to ID`"),
    Elsewhere("stamp mark fake", "use `initmig baseline --to ID`"),
    Elsewhere("unmark", "use `yoyo unmark`; initmig then sees the migration as pending"),
    Elsewhere("dry-run dryrun simulate", "use `initmig plan` or `initmig rehearse`"),
    Elsewhere("break-lock release-lock", "use `initmig unlock`"),
    Elsewhere("run start server", "use `initmig exec -- CMD`, or `initmig serve`"),
    Elsewhere("config env", f"use flags or environment variables; {_SETTINGS}"),
)

FLAGS_ELSEWHERE = (
    Elsewhere(
        "--dry-run --dryrun --dryRun --simulate --plan --preview --sql-only",
        "use `initmig plan`, or `initmig rehearse` to run the migrations and roll them back",
    ),
    Elsewhere("--verbose -v -vv -vvv --debug", "use --log-level=debug"),
    Elsewhere("--quiet -q --silent", "use --log-level=warning"),
    Elsewhere("-V -version", "use --version"),
    Elsewhere("-help -?", "use --help"),
    Elsewhere(
        "--config --config-file --configFiles -c --env-file --env -e -env",
        f"use flags or environment variables, there is no configuration file; {_SETTINGS}",
        takes_value=True,
    ),
    Elsewhere(
        "--dir --directory --path --folder --source --sources --locations --migrations-dir"
        " --migration-dir -dir -path -source -locations",
        "use --migrations",
        takes_value=True,
    ),
    Elsewhere(
        "--url --database --dsn --db --uri --connection --connection-string --postgres -u"
        " -url -database -dsn",
        "use DATABASE_URL, or --database-url",
        takes_value=True,
    ),
    Elsewhere(
        "-d",
        "use --migrations for a folder, DATABASE_URL for the database",
        takes_value=True,
    ),
    Elsewhere(
        "-m --message --name -name",
        "write the name as an argument: `initmig new NAME`",
        takes_value=True,
    ),
    Elsewhere(
        "--host --port --user --username --dbname --password -user -password -U -P -H",
        "use DATABASE_URL, or libpq's variables, such as PGHOST, PGPORT, PGUSER and PGDATABASE",
        takes_value=True,
    ),
    Elsewhere(
        "--table --migrations-table --migration-table -table",
        "use --history-table",
        takes_value=True,
    ),
    Elsewhere(
        "--target --revision -r --version-to --to-version -target",
        "use --to",
        takes_value=True,
    ),
    Elsewhere("--count --number --limit -n", "use `initmig rollback --steps`", takes_value=True),
    Elsewhere(
        "--prompt-password -p -W",
        "use PGPASSWORD_FILE, --password-command, libpq's password file, or DATABASE_URL",
    ),
    Elsewhere("--yes -y --batch -b --no-input --noinput", "leave it out; initmig asks nothing"),
    Elsewhere(
        "--force -f --repair",
        "fix the cause and run again, there is nothing to repair; to record migrations without"
        " running them, use `initmig baseline --to ID`",
    ),
    Elsewhere("--fake --fake-initial", "use `initmig baseline --to ID`"),
    Elsewhere("--wait", "leave it out; initmig waits for the database, see --wait-timeout"),
    Elsewhere(
        "--timeout --connect-timeout --lock-wait-timeout",
        "use --wait-timeout for the database, --queue-timeout for another migrator,"
        " --lock-timeout or --statement-timeout for SQL",
        takes_value=True,
    ),
    Elsewhere(
        "--format --output -o",
        "use --json for results, --log-format for logs",
        takes_value=True,
    ),
    Elsewhere("--allow-missing --outOfOrder -outOfOrder", "use --out-of-order=allow"),
    Elsewhere("--strict", "use --out-of-order=fail"),
    Elsewhere("--single-transaction", "use --transaction=all"),
    Elsewhere("--no-transaction", "put `-- transactional: false` at the top of the migration"),
)


def elsewhere(word: str, table: Iterable[Elsewhere]) -> Elsewhere | None:
    """The row of *table* that contains *word*; case matters only for flags."""
    words = {word} if word.startswith("-") else {word, word.lower().replace("_", "-")}
    return next((row for row in table if words & set(row.words.split())), None)


def nearest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """The words of *known* that *word* may be a typo of: the nearest ones, at most three.

    A typo is one edit, or two edits in words of five or more characters. A swap of two neighbours
    is one edit. A word that is a prefix of the other, of three or more characters, also counts.
    """
    typed = word.lower().replace("_", "-")
    scores = {each: _score(typed, each) for each in known}
    best = min(scores.values(), default=_NONE)
    found = tuple(each for each, score in scores.items() if score == best < _NONE)
    return found if len(found) <= _MOST else ()


_NONE = 9


def _score(typed: str, known: str) -> int:
    if typed.startswith("-") != known.startswith("-"):
        return _NONE
    typed, known = typed.lstrip("-"), known.lstrip("-")
    shorter = min(len(typed), len(known))
    edits = _edits(typed, known)
    if edits <= (2 if shorter >= 5 else 1 if shorter >= 2 else 0):
        return edits
    is_prefix = typed.startswith(known) or known.startswith(typed)
    return 3 if is_prefix and shorter >= _SHORTEST_PREFIX else _NONE


def _edits(one: str, other: str) -> int:
    """The number of characters to insert, delete, replace, or swap with their neighbour."""
    if abs(len(one) - len(other)) > 2:
        return _NONE
    rows = list(_rows(one, other))
    return rows[-1][-1]


def _rows(one: str, other: str) -> Iterator[list[int]]:
    above: list[int] = []
    row = list(range(len(other) + 1))
    yield row
    for i, a in enumerate(one, 1):
        above, before, row = row, above, [i]
        for j, b in enumerate(other, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        yield row
