"""An unknown word gets a suggestion if it resembles a known word or belongs to another tool."""

from __future__ import annotations

import re

import pytest

from initmig.config.config import parse_config
from initmig.config.options import COMMANDS, OPTIONS
from initmig.config.suggestions import COMMANDS_ELSEWHERE, FLAGS_ELSEWHERE, Elsewhere, nearest
from initmig.core.errors import ConfigError, Problem

EVERY_ROW = (*COMMANDS_ELSEWHERE, *FLAGS_ELSEWHERE)


def problem_of(*argv: str) -> Problem:
    """The only problem of a command line. initmig never runs a guess."""
    with pytest.raises(ConfigError) as caught:
        parse_config(argv, {})
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("migrat", "migrate"),
        ("migarte", "migrate"),
        ("mirgate", "migrate"),
        ("Migrate", "migrate"),
        ("statsu", "status"),
        ("satus", "status"),
        ("sta", "status"),
        ("stauts", "status"),
        ("roll", "rollback"),
        ("rolback", "rollback"),
        ("roll_back", "rollback"),
        ("paln", "plan"),
        ("docter", "doctor"),
        ("rehears", "rehearse"),
        ("wiat", "wait"),
        ("nwe", "new"),
        ("verfy", "verify"),
        ("exce", "exec"),
        ("versoin", "version"),
        ("hlep", "help"),
        ("base-line", "baseline"),
    ],
)
def test_misspelt_command_gets_the_similar_command(typed: str, expected: str) -> None:
    assert nearest(typed, COMMANDS) == (expected,)
    problem = problem_of(typed)
    assert problem.id == "unknown-command"
    assert problem.hint == f"did you mean {expected}?"


@pytest.mark.parametrize("typed", ["xyzzy", "x", "backup", "user", "0001_users", "stop", ""])
def test_dissimilar_word_gets_no_suggestion(typed: str) -> None:
    assert nearest(typed, COMMANDS) == ()
    assert "did you mean" not in problem_of(typed).hint
    assert "initmig --help" in problem_of(typed).hint


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--lock-timout", "5s"], ["--lock-timeout"]),
        (["--lock-timout=5s"], ["--lock-timeout"]),
        (["--lock"], ["--lock-timeout", "--lock-retries"]),
        (["--history"], ["--history-schema", "--history-table"]),
        (["--log_level", "debug"], ["--log-level"]),
        (["--schmea", "a"], ["--schema"]),
        (["--migration", "a"], ["--migrations"]),
        (["--databse-url", "a"], ["--database-url"]),
        (["--out-of-oder=fail"], ["--out-of-order"]),
        (["--versoin"], ["--version"]),
        (["--hlep"], ["--help"]),
        (["status", "--jsn"], ["--json"]),
        (["status", "--chek"], ["--check"]),
        (["rollback", "--step", "1", "--all"], ["--steps"]),
        (["rollback", "--al", "--steps=1"], ["--all"]),
        (["new", "--pyton", "x"], ["--python"]),
        (["serve", "--listn", ":80"], ["--listen"]),
        # the flag of another command
        (["wait", "--steps-to"], ["--steps"]),
    ],
    ids=" ".join,
)
def test_misspelt_flag_gets_the_similar_flags(argv: list[str], expected: list[str]) -> None:
    problem = problem_of(*argv)
    assert problem.id == "unknown-flag"
    assert re.findall(r"--[a-z-]+", problem.hint) == expected


@pytest.mark.parametrize(
    "flag", ["--xyzzy", "--x", "-x", "--threads", "--colour-scheme", "--log-rotation-age", "---"]
)
def test_dissimilar_flag_gets_no_suggestion(flag: str) -> None:
    problem = problem_of("status", flag)
    assert problem.hint == "run `initmig status --help` for a list of options"


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: row.words)
def test_command_or_flag_of_another_tool_gets_its_equivalent(row: Elsewhere) -> None:
    for word in row.words.split():
        argv = (word, *(["x"] if row.takes_value else []))
        problem = problem_of(*argv)
        assert problem.id == ("unknown-flag" if word.startswith("-") else "unknown-command")
        assert problem.message.endswith(f" {word}")
        assert problem.hint == row.hint


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: row.words)
def test_suggested_equivalent_exists(row: Elsewhere) -> None:
    flags = re.findall(r"(?<![\w`-])--[a-z-]+", row.hint)
    commands = re.findall(r"`initmig ([a-z]+)", row.hint)
    others = re.findall("leave it out|[A-Z_]{7,}|transactional|yoyo", row.hint)
    assert flags or commands or others
    assert set(flags) <= {*OPTIONS, "--help", "--version"}
    assert set(commands) <= COMMANDS.keys()


def test_words_of_other_tools_are_unique_and_unused_by_initmig() -> None:
    words = [word for row in EVERY_ROW for word in row.words.split()]
    assert len(words) == len(set(words))
    assert not set(words) & {*COMMANDS, *OPTIONS, "--help", "-h", "--version"}


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["up"], "migrate"),
        (["UP"], "migrate"),
        (["down", "1"], "rollback"),
        (["create", "add_email"], "new"),
        (["force", "3"], "baseline"),
        (["repair"], "baseline"),
        (["info"], "status"),
        (["help", "up"], "migrate"),
        (["migrate", "up"], "migrate"),
        (["migrate", "down"], "rollback"),
        (["migrate", "status"], "initmig status"),
        (["-m", "add email", "new", "add_email"], "initmig new NAME"),
        (["-schema=app", "migrate"], "--schema"),
        (["--dry-run"], "plan"),
        (["migrate", "--dry-run"], "rehearse"),
        (["--path", "db", "status"], "--migrations"),
        (["new", "--verbose", "add_email"], "--log-level"),
        (["-database", "postgres://u:hunter2@h/d", "migrate"], "DATABASE_URL"),
    ],
    ids=" ".join,
)
def test_command_line_of_another_tool_is_one_problem(argv: list[str], named: str) -> None:
    problem = problem_of(*argv)
    assert named in problem.hint
    assert "hunter2" not in f"{problem}"
