"""`migrate` tokenizes each SQL file only once, and no part of it twice."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from initmig.cli.main import main
from initmig.sql import masking, scanner
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from initmig.sql.scanner import CopyData
    from tests.support.databases import Database

# The tests check the client, which does not depend on the server's version.
pytestmark = pytest.mark.any_version

TABLE = "CREATE TABLE a (id text);\n"
COPY = "COPY a FROM stdin;\n1\n2;\n\\.\n"
NOT_TRANSACTIONAL = "-- transactional: false\n"
FILES = {
    "plain": TABLE,
    "comments only": "-- nothing yet\n;;\n/* really */",
    "several statements": f"{TABLE}INSERT INTO a VALUES (1); SELECT ';', $$;$$;;\nSELECT 2",
    "directives": f"-- breaking: true\n-- depends:\n{TABLE}",
    "COPY": f"{TABLE}{COPY}SELECT 1;",
    "not transactional": f"{NOT_TRANSACTIONAL}{TABLE}CREATE INDEX CONCURRENTLY i ON a (id);",
    "not transactional, with COPY": f"{NOT_TRANSACTIONAL}{TABLE}{COPY}SELECT 1;",
    "not transactional, in a block": f"{NOT_TRANSACTIONAL}BEGIN;\n{TABLE}SELECT 1;\nCOMMIT;",
    "BEGIN and COMMIT around it": f"BEGIN;\n{TABLE}SELECT 1;\nCOMMIT;\n",
    "a function with a body": f"{TABLE}CREATE FUNCTION f() RETURNS int BEGIN /* ; */ ATOMIC"
    " SELECT 1; SELECT 2; END;\nSELECT 1;",
    "words that need a scan": f"{TABLE}SELECT 'commit;\nend', '\\', 'stdin', 'discard';\nSELECT",
    "markers of another tool": f"/*\n-- +goose Up\n*/\n{TABLE}SELECT '\n-- migrate:down\n';",
    "pg_dump's commands": f"\\restrict a\n{TABLE}{COPY}\\unrestrict a\n",
    "a byte order mark": f"\ufeff-- depends:\n{TABLE}SELECT '\\';",
    "a long file": f"{TABLE}{COPY}" + "SELECT 'stdin', '\\';\n" * 1000,
}
ROLLBACK = "DROP TABLE IF EXISTS a; -- \\ stdin\nSELECT 1;"


class Scans:
    """Records the scanned texts and their scanned parts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        self.parts: list[tuple[int, int, int]] = []
        """The number of the text, and the start and end of a statement, a comment or COPY data."""
        scans = self

        class Recorded(scanner.Scanner):
            def __init__(self, text: str, *arguments: object) -> None:
                super().__init__(text, *arguments)  # type: ignore[arg-type]
                self.number = len(scans.texts)
                scans.texts.append(text)

            def _statement_end(self, start: int) -> int:
                end = super()._statement_end(start)
                scans.parts.append((self.number, start, end))
                return end

            def _gaps(self) -> Iterator[tuple[int, int]]:
                for start, end in super()._gaps():
                    scans.parts.append((self.number, start, end))
                    yield start, end

        def copied(text: str, start: int, end: int) -> CopyData | None:
            data = copy_data(text, start, end)
            if data:
                scans.parts.append((self.texts.index(text), data.start, data.end))
            return data

        copy_data = scanner._copy_data
        for module in ("initmig.sql.scanner.Scanner", "initmig.sql.source.Scanner"):
            monkeypatch.setattr(module, Recorded)
        monkeypatch.setattr(scanner, "_copy_data", copied)
        monkeypatch.setattr(masking, "tokens", self._tokens)

    def _tokens(self, text: str, start: int, end: int) -> Iterator[scanner.Token]:
        pytest.fail(f"{text[start:end]} is tokenized a second time")


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    return Scans(monkeypatch)


def migrate(database: Database, folder: Path) -> int:
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder)}
    return main(["migrate"], env)


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_each_file_is_scanned_once(
    database: Database, folder: Path, scans: Scans, text: str
) -> None:
    folder.mkdir(exist_ok=True)
    write(folder, {"0001_a.sql": text, "0001_a.rollback.sql": ROLLBACK})

    assert migrate(database, folder) == 0

    assert scans.texts == [text.removeprefix("\ufeff"), ROLLBACK]
    parts = sorted(scans.parts)
    for (number, start, end), (following, after, _) in pairwise(parts):
        assert start < end
        assert number < following or end <= after, "read twice"


def test_file_without_relevant_words_is_only_scanned_until_its_first_statement(
    database: Database, folder: Path, scans: Scans
) -> None:
    folder.mkdir(exist_ok=True)
    write(folder, {"0001_a.sql": f"-- c\n{TABLE}SELECT 1;"})

    assert migrate(database, folder) == 0

    assert max(end for _, _, end in scans.parts) == len("-- c\n")


def test_warning_about_a_directive_scans_the_header_again_to_mask_it(
    database: Database, folder: Path, scans: Scans
) -> None:
    folder.mkdir(exist_ok=True)
    header = "/* licence */\n-- transactional: false\n"
    write(folder, {"0001_a.sql": f"{header}{TABLE}"})

    assert migrate(database, folder) == 0

    assert scans.texts == [f"{header}{TABLE}", header, ""]
