import os
from pathlib import Path

import pytest

from initmig.core.errors import ConfigError, Place, Problem
from initmig.core.model import MigrationFile
from initmig.migrations.files import checksum, dependencies, list_files, parse_sql, read
from initmig.sql.source import Header
from tests.support.migrations import write


def problems_of_listing(*folders: Path) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        list_files([str(folder) for folder in folders])
    return caught.value.problems


def ids(*folders: Path) -> list[str]:
    return [file.id for file in list_files([str(folder) for folder in folders]).migrations]


def problems_of(tmp_path: Path, content: str | bytes) -> tuple[Problem, ...]:
    write(tmp_path, {"x.sql": content})
    [file] = list_files([str(tmp_path)]).migrations
    with pytest.raises(ConfigError) as caught:
        parse_sql(read(file))
    return caught.value.problems


def test_migrations_are_listed_folder_by_folder_and_sorted_by_name(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"0002_b.py": "", "0010_c.sql": "", "0001_z.sql": ""})
    other = write(tmp_path / "other", {"0001_a.sql": ""})
    assert ids(one, other) == ["0001_z", "0002_b", "0010_c", "0001_a"]


def test_migration_has_its_file_rollback_file_and_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a.sql": "", "a.rollback.sql": "", "b.py": ""})
    folder = str(tmp_path)
    assert list_files([folder]).migrations == (
        MigrationFile("a", f"{folder}/a.sql", f"{folder}/a.rollback.sql", folder),
        MigrationFile("b", f"{folder}/b.py", "", folder),
    )


def test_other_files_are_ignored(tmp_path: Path) -> None:
    others = {"README.md": "", "a.sql~": "", "b.SQL": "", "_tmp_yoyonew1.py": "", "c.sql/d": ""}
    assert ids(write(tmp_path, {**others, "a.sql": ""})) == ["a"]


def test_post_apply_files_are_hooks(tmp_path: Path) -> None:
    write(tmp_path, {"a.sql": "", "post-apply.sql": "", "post-apply-b.py": ""})
    listing = list_files([str(tmp_path)])
    assert [file.id for file in listing.migrations] == ["a"]
    assert [file.id for file in listing.hooks] == ["post-apply-b", "post-apply"]


def test_wildcards_in_a_path_are_literal(tmp_path: Path) -> None:
    assert ids(write(tmp_path / "v[12]*?", {"a.sql": ""})) == ["a"]


def test_configmap_is_listed_once(tmp_path: Path) -> None:
    write(tmp_path / "..2026_01_01", {"a.sql": ""})
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "a.sql").symlink_to("..data/a.sql")
    assert ids(tmp_path) == ["a"]


def test_dangling_symlink_is_an_unreadable_migration(tmp_path: Path) -> None:
    (tmp_path / "a.sql").symlink_to("nowhere")
    [file] = list_files([str(tmp_path)]).migrations
    with pytest.raises(ConfigError, match=r"cannot read .*a\.sql: No such file"):
        parse_sql(read(file))


def test_fifo_with_a_migration_name_is_ignored(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.sql")
    assert ids(tmp_path) == []


def test_every_unreadable_folder_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"file": ""})
    missing, file = problems_of_listing(tmp_path / "missing", tmp_path / "file")
    assert missing.message.endswith("/missing: No such file or directory")
    assert file.message.endswith("/file: Not a directory")
    assert missing.hint


def test_duplicate_id_is_refused_with_both_file_names(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a.sql": "", "a.py": "", "b.sql": ""})
    other = write(tmp_path / "other", {"b.py": ""})
    messages = [problem.message for problem in problems_of_listing(one, other)]
    assert messages == [
        f"{one}/a.py and {one}/a.sql have the same id, a",
        f"{one}/b.sql and {other}/b.py have the same id, b",
    ]


@pytest.mark.parametrize("others", [{}, {"a.py": ""}, {"A.sql": ""}], ids=str)
def test_rollback_without_its_migration_is_refused(tmp_path: Path, others: dict[str, str]) -> None:
    [problem] = problems_of_listing(write(tmp_path, {**others, "a.rollback.sql": ""}))
    assert problem == Problem(
        "rollback-without-migration",
        f"{tmp_path}/a.rollback.sql is the rollback of a.sql, which does not exist",
        hint="add a.sql, or remove the rollback file",
    )


@pytest.mark.parametrize("name", [b"0001_\xe9t\xe9.sql", b"0001_a\nb.sql", b"0001_\x1b[2J.sql"])
def test_file_name_with_invalid_or_control_characters_is_refused(
    tmp_path: Path, name: bytes
) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("")
    [problem] = problems_of_listing(tmp_path)
    shown = {0xE9: "\\udce9", 0x0A: "\\n", 0x1B: "\\x1b"}
    seen = "".join(shown.get(byte, chr(byte)) for byte in name)
    assert problem == Problem(
        "invalid-file-name",
        f"the name of {tmp_path}/{seen} is not UTF-8, or contains control characters",
        hint="rename it, preferably in ASCII",
    )


def test_checksum_depends_on_the_exact_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"lf.sql": b"SELECT 1\n", "crlf.sql": b"SELECT 1\r\n"})
    assert checksum(str(tmp_path / "lf.sql")) != checksum(str(tmp_path / "crlf.sql"))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_directives_are_read_after_a_byte_order_mark_and_with_any_line_end(
    tmp_path: Path, mark: bytes, end: bytes
) -> None:
    lines = [b"-- transactional: FALSE", b"--breaking:true", b"-- depends: b c", b"SELECT 1", b""]
    write(tmp_path, {"a.sql": mark + end.join(lines)})
    [file] = list_files([str(tmp_path)]).migrations
    files = parse_sql(read(file))
    assert files.header == Header(False, True, frozenset({"b", "c"}))
    assert files.apply == end.join(lines)


@pytest.mark.parametrize(
    ("content", "line", "column"),
    [
        (b"SELECT '\xe9'", 1, 9),
        ("-- é\nSELECT 'é".encode() + b"\xff'", 2, 10),
        (b"\xef\xbb\xbfa\xff", 1, 2),
        (b"a\r\n\r\n\xc3", 3, 1),
    ],
)
def test_first_invalid_utf8_byte_is_located(
    tmp_path: Path, content: bytes, line: int, column: int
) -> None:
    [problem] = problems_of(tmp_path, content)
    assert problem.id == "not-utf8"
    assert "0x" in problem.message
    assert problem.place == Place(f"{tmp_path}/x.sql", line, column)
    assert "iconv" in problem.hint


@pytest.mark.parametrize(
    ("line", "column", "message", "hint"),
    [
        (
            "-- transational: false",
            4,
            "unknown directive 'transational'",
            "write `-- transactional: false`",
        ),
        (
            "--Transactional: false",
            3,
            "unknown directive 'Transactional'",
            "write `-- transactional: false`",
        ),
        ("-- braking: true", 4, "unknown directive 'braking'", "write `-- breaking: true`"),
        (
            "-- transactional: flase",
            4,
            "directive 'transactional' is 'flase', but must be true or false",
            "write `-- transactional: true` or `-- transactional: false`, once",
        ),
        ("-- bréaking: true", 4, "unknown directive 'bréaking'", "write `-- breaking: true`"),
        (
            "-- transactional: 漢🐘",
            4,
            "directive 'transactional' is '漢🐘', but must be true or false",
            "write `-- transactional: true` or `-- transactional: false`, once",
        ),
        (
            "-- breaking: yes",
            4,
            "directive 'breaking' is 'yes', but must be true or false",
            "write `-- breaking: true` or `-- breaking: false`, once",
        ),
    ],
)
def test_misspelt_directive_or_value_is_located(
    tmp_path: Path, line: str, column: int, message: str, hint: str
) -> None:
    problems = problems_of(tmp_path, f"-- why\n{line}\nSELECT 1;\n")
    [problem] = problems
    assert problem.id == ("unknown-directive" if "unknown" in message else "invalid-directive")
    assert problem[1:4] == (message, hint, Place(f"{tmp_path}/x.sql", 2, column, line))


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("SELECT 'é漢🐘'; COMMIT;", 15, "COMMIT would end the transaction that initmig opened"),
        ("SELECT '漢';\n  \\café x", 3, "\\café is a psql command"),
        ("/* 🐘 */ \\🐘", 9, "\\🐘 is a psql command"),
        ("/* é */ DISCARD ALL", 9, "DISCARD ALL would release the migration lock"),
    ],
)
def test_column_of_a_refused_statement_counts_characters(
    tmp_path: Path, line: str, column: int, message: str
) -> None:
    [problem] = problems_of(tmp_path, f"-- é漢\n{line}\n")
    assert problem.message.startswith(message)
    assert problem.place
    assert (problem.place.column, problem.place.source) == (
        column,
        line.rsplit("\n", maxsplit=1)[-1],
    )


@pytest.mark.parametrize("before", [*range(65520, 65545), 3 * 65536])
def test_invalid_utf8_byte_is_found_at_any_offset(tmp_path: Path, before: int) -> None:
    for letter in ("x", "é", "漢", "🐘"):
        text = f"-- {letter * (before // len(letter.encode()))}\n"
        [problem] = problems_of(tmp_path, text.encode() + letter.encode() + b"\xe9")
        assert problem.id == "not-utf8"
        assert problem.place == Place(f"{tmp_path}/x.sql", 2, 2)


def test_duplicate_directive_is_refused(tmp_path: Path) -> None:
    [problem] = problems_of(tmp_path, "-- transactional: true\n-- transactional: false\n")
    assert problem.id == "invalid-directive"
    assert problem.message == "directive 'transactional' appears 2 times"


def test_comment_with_a_colon_is_not_a_directive(tmp_path: Path) -> None:
    write(tmp_path, {"a.sql": "-- note: read this\n-- see: transaction\nSELECT 1;"})
    [file] = list_files([str(tmp_path)]).migrations
    assert parse_sql(read(file)).header == Header(True, False, frozenset())


def test_nul_character_is_located(tmp_path: Path) -> None:
    [problem] = problems_of(tmp_path, "SELECT 1;\n\0SELECT 2;")
    assert problem.id == "nul-character"
    assert str(problem.place) == f"{tmp_path}/x.sql:2:1"


def test_all_problems_of_a_migration_are_reported_together(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.sql": "-- transational: false\n-- breaking: maybe\nCOMMIT;\n\\d\n",
            "a.rollback.sql": "ROLLBACK;",
        },
    )
    [file] = list_files([str(tmp_path)]).migrations
    with pytest.raises(ConfigError) as caught:
        parse_sql(read(file))
    places = {str(problem.place).removeprefix(f"{tmp_path}/") for problem in caught.value.problems}
    assert places == {"a.sql:1:4", "a.sql:2:4", "a.sql:3:1", "a.sql:4:1", "a.rollback.sql:1:1"}


def test_non_transactional_file_may_commit(tmp_path: Path) -> None:
    write(tmp_path, {"a.sql": "-- transactional: false\nBEGIN; SELECT 1; COMMIT;"})
    [file] = list_files([str(tmp_path)]).migrations
    assert not parse_sql(read(file)).header.transactional


@pytest.mark.parametrize(
    ("name", "text", "depends"),
    [
        ("x.sql", "-- depends: a b\nSELECT 1", {"a", "b"}),
        ("x.sql", "SELECT 1", set()),
        ("x.py", "__depends__ = {'a', 'b'}", {"a", "b"}),
        ("x.py", "__depends__: set[str] = {'a'}", {"a"}),
        ("x.py", "__depends__: set[str]", set()),
        ("x.py", "__depends__ = ['a']", {"a"}),
        ("x.py", "__depends__ = 'a'", {"a"}),
        ("x.py", "__depends__ = others()", set()),
        ("x.py", "no Python", set()),
    ],
)
def test_dependencies_are_read_without_running_the_file(
    tmp_path: Path, name: str, text: str, depends: set[str]
) -> None:
    write(tmp_path, {name: text})
    [file] = list_files([str(tmp_path)]).migrations
    assert dependencies(file) == depends
