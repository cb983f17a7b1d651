"""`python -m dev.prose` finds translated English in pages, messages and code, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dev.prose.__main__ import main
from dev.prose.check import Check, Page
from dev.prose.comments import texts_of_hash_comments
from dev.prose.files import files_of, page_of, pages_of
from dev.prose.markdown import texts_of_markdown, unreleased
from dev.prose.markers import markers, table
from dev.prose.python import texts_of_python
from dev.prose.rules import ROOT, Excuse, Rules
from dev.prose.texts import Text, count

RULES = Rules.read()
LONG = "This sentence has one word after another" + " and another" * 12 + "."
SHORT = "This one has few words."


def found(page: str, *, name: str = "docs/page.md") -> list[tuple[int, str]]:
    """The line and the kind of each finding in a page of Markdown."""
    findings = Page(name, texts_of_markdown(page)).findings(RULES.words)
    return [(finding.line, finding.what) for finding in findings]


def found_in_code(source: str) -> list[tuple[int, str]]:
    findings = Page("initmig/module.py", texts_of_python(source)).findings(RULES.words)
    return [(finding.line, finding.what) for finding in findings]


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("Mend the file.", "'Mend'"),
        ("It lacks the rights to do it.", "'rights'"),
        ("The role may\nnot create it.", "'may not'"),
        ("It stopped half-way.", "'half-way'"),
        ("Another migrator was **still at it**.", "'still at it'"),
        ("The [holder](x.md) is no more.", "'is no more'"),
        ("It has a table of its own.", "'of its own'"),
    ],
)
def test_unwanted_word_is_found(sentence: str, word: str) -> None:
    assert found(f"# Title\n\nA paragraph.\n\n{sentence}\n") == [(5, word)]


@pytest.mark.parametrize(
    "sentence",
    [
        "Run `mend rights of its own`.",
        "```\nmend the rights\n```",
        "    mend the rights",
        "<!-- mend the rights -->",
        "It is no more than a second.",
        "An amendment: the recommended one is on the right.",
        "See [the page](mend.md).",
    ],
)
def test_code_and_parts_of_words_are_not_found(sentence: str) -> None:
    assert found(sentence) == []


def test_finding_has_its_line_and_a_suggestion() -> None:
    page = Page("docs/page.md", texts_of_markdown("First line,\nsecond: mend the file.\n"))
    [finding] = page.findings(RULES.words)
    assert str(finding).startswith("docs/page.md:2: 'mend': First line, second: mend the")
    assert str(finding).endswith(" -> fix")


def test_sentence_of_more_than_thirty_words_is_found_with_its_count() -> None:
    page = Page("docs/page.md", texts_of_markdown(f"{SHORT}\n{LONG} {SHORT}\n"))
    [finding] = page.findings(RULES.words)
    assert (finding.line, finding.what) == (2, "long sentence")
    assert finding.instead == "split it: 31 words"


@pytest.mark.parametrize(
    "page",
    [
        LONG.replace(" and another", " and", 2),
        f"{SHORT} " * 10,
        "initmig waits for the database. `plan` reports it. " * 5,
        "- one two three four five six seven eight\n" * 5,
        "| one two three four five six | one two three four five six |\n|---|---|\n" * 5,
        "Set `" + "one " * 40 + "`.",
        "See [the page](a/long/address.md#" + "-and-more" * 40 + ").",
        "```\n" + LONG + "\n```",
        "Why is it so? " * 10,
        "Use it ('in quotes.' \"And others.\") " + "and some more words " * 4,
        "one -- two | three / four - " * 7,
    ],
)
def test_several_short_sentences_are_not_one_long_sentence(page: str) -> None:
    assert found(page) == []


@pytest.mark.parametrize(
    "page", [f"- item\n- {LONG}\n", f"|a|b|\n|--|--|\n|x|{LONG}|\n", f"> a\n\n## {LONG}\n"]
)
def test_long_sentence_is_found_in_item_cell_and_heading(page: str) -> None:
    assert found(page) == [(2 if page.startswith("-") else 3, "long sentence")]


def test_chain_of_semicolons_is_found() -> None:
    assert found("It waits; it locks; it ends.") == [(1, "semicolons")]
    assert found("It waits; it locks. It applies; it ends.") == []


def test_table_cell_of_more_than_twenty_words_is_found_only_in_the_readme() -> None:
    cell = "Some words are here. " * 5
    table = f"|a|b|\n|--|--|\n|x|{cell}and `this one`|\n|y|{cell}|\n"
    assert found(table, name="README.md") == [(3, "long cell")]
    assert found(table) == []


def test_messages_hints_and_help_are_read() -> None:
    source = f'''
raise ConfigError("some-id", f"{{path}} is" f" no more: {{'mend it' if x else ''}}", hint="mend it")
Option("--flag", "field", "{LONG}")
_Rendering("info", lambda e: "the rights" + e.of + " of its own")
'''
    kinds = [what for _, what in found_in_code(source)]
    assert kinds == [
        "'is no more'",
        "'mend'",
        "'mend'",
        "long sentence",
        "'rights'",
        "'of its own'",
    ]


def test_value_in_a_message_counts_as_one_word_and_is_checked() -> None:
    assert found_in_code("""text = f"{'mend it' if x else ''} {y}" """) == [(1, "'mend'")]
    [text, _] = texts_of_python("""f"in {a.b(c, 'd and e')} words" """)
    assert count(text.words) == 3


def test_sql_in_a_string_has_no_sentences() -> None:
    source = f"""
"SELECT a, b, c FROM d; SELECT " + "starelid stanum stainherit " * 12
sql = "SELECT {"a = b AND " * 20}; COMMIT; BEGIN; END"
block = f"; {{sql}}; END"
"""
    assert found_in_code(source) == []


@pytest.mark.parametrize(
    ("source", "findings"),
    [
        ('"""Mend it."""', [(1, "'Mend'")]),
        ('class A:\n    """Mend it."""', [(2, "'Mend'")]),
        ('def f():\n    """Fix it.\n\n    Then\n    mend it.\n    """', [(5, "'mend'")]),
        ('x: int\n"""To mend."""', [(2, "'mend'")]),
        ('"""Fix it.\n\n:raises MendError: the rights are missing\n"""', [(3, "'rights'")]),
        ('"""Call `mend`, ``mend()`` and :func:`mend`."""', []),
        ('"""The ``mend\nfunction``, which\nmends it."""', [(3, "'mends'")]),
        (f'"""{LONG}"""', [(1, "long sentence")]),
        (f'"""{SHORT[:-1]}\n\n{LONG}"""', [(3, "long sentence")]),
        ('"""It waits; it locks; it ends."""', [(1, "semicolons")]),
        ('"""Options:\n' + "  - one two three four five\n" * 8 + '"""', []),
        ('"""Options:\n' + "  ONE  two three four five\n" * 8 + '"""', []),
        ("# mend it", [(1, "'mend'")]),
        ("x = 1  # mend it", [(1, "'mend'")]),
        ("# It may\n# not run.", [(1, "'may not'")]),
        ("x = 1  # it may\ny = 2  # not here", []),
        ("# it may\n\n# not", []),
        ("if x:\n    # it may\n# not\n    pass", []),
        ("# it may\n#\n# not", []),
        (f"# {LONG}", [(1, "long sentence")]),
        ("# --- rights ---", [(1, "'rights'")]),
        ("#!/usr/bin/mend", []),
        ("x = 1  # noqa: S608  mend", []),
        ("x = 1  # type: ignore[mend]", []),
        ("# fix it  # noqa: S608", []),
        ("def mend(): ...", [(1, "'mend'")]),
        ("class MendError: ...", [(1, "'Mend'")]),
        ("def f(told, *, half_way): ...", [(1, "'half way'"), (1, "'told'")]),
        ("TOLD = 1\nTOLD = 2", [(1, "'TOLD'")]),
        ("self.is_told = 1", [(1, "'told'")]),
        ("for _ in fix(mend, told=1): told.told", []),
        ("def test_it_may_not_run(): ...", [(1, "'may not'")]),
        ("def test_what_is_pending_is_applied(): ...", [(1, "'what'")]),
        (f"def test_{'_and_another' * 31}(): ...", []),
    ],
)
def test_docstrings_comments_and_names_are_checked(
    source: str, findings: list[tuple[int, str]]
) -> None:
    assert found_in_code(source) == findings


@pytest.mark.parametrize(
    ("comment", "word"),
    [
        ("What the server sends.", "'What'"),
        ("The time of what is pending.", "'of what'"),
        ("Who holds the lock waits.", "'Who'"),
        ("Of a statement: its place.", "'Of'"),
        ("It waits for those that run.", "'those that'"),
        ("None where there is none.", "'where there'"),
        ("A line of which the end is missing.", "'of which'"),
        ("It is no error.", "'is no error'"),
        ("The file is there.", "'is there'"),
        ("It runs behind the second one.", "'behind'"),
        ("Lock it, else fail.", "'else'"),
        ("A setting of initmig's.", "'of initmig's'"),
        ("It runs however often it fails.", "'however often'"),
        ("The lock is waited for.", "'is waited for'"),
    ],
)
def test_translated_english_is_found_in_code_and_not_in_pages(comment: str, word: str) -> None:
    assert word in [what for _, what in found_in_code(f"# {comment}")]
    assert found(comment) == []


@pytest.mark.parametrize(
    "comment",
    [
        "Report what to do.",
        "What to do next.",
        "Of course it waits.",
        "The one that holds the lock waits.",
        "There is no table.",
        "It runs behind a pooler, and behind the proxy.",
        "The order in which they run.",
        "It stands for a value.",
        "x if y else z",
        "It has no effect, or something else.",
        "It gives up after 5 s.",
        "initmig's own limits, and PostgreSQL's limit.",
    ],
)
def test_plain_english_is_not_found_in_code(comment: str) -> None:
    assert found_in_code(f"# {comment}") == []


def test_comments_of_shell_yaml_and_make_are_checked() -> None:
    source = """#!/bin/mend
a: b#mend  # It may
# not "mend"
c: "mend"
target: ## mend it
"""
    findings = Page("k8s/a.yaml", texts_of_hash_comments(source)).findings(RULES.words)
    assert [(each.line, each.what) for each in findings] == [(3, "'mend'"), (5, "'mend'")]


def test_strings_are_checked_in_initmig_but_not_in_tests(tmp_path: Path) -> None:
    source = "text = 'mend the rights'  # mend\n"
    (tmp_path / "odd.py").write_text(source)
    assert {text.kind for text in page_of(tmp_path / "odd.py").texts} == {"text", "comment", "name"}
    kinds = {text.kind for text in page_of(Path(__file__)).texts}
    assert kinds == {"comment", "name"}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("initmig/cli.py", "initmig"),
        ("initmig/sql/relations/state.py", "initmig/sql/relations"),
        ("tests/unit/test_prose.py", "tests/unit"),
        ("dev/prose/check.py", "dev"),
        ("Makefile", "."),
    ],
)
def test_folder_is_the_package_or_the_folder_of_tests(name: str, folder: str) -> None:
    assert Page(name, []).folder == folder


def test_every_file_is_checked_once() -> None:
    files = files_of(ROOT)
    assert len(files) == len(set(files))
    assert {*pages_of(ROOT), Path(__file__), ROOT / ".ci" / "run", ROOT / "Makefile"} < {*files}


def test_markers_are_counted_by_folder_and_kind() -> None:
    source = "# mend the file\nhalf_way = 'mend'\n"
    page = Page("initmig/sql/odd.py", texts_of_python(source))
    assert markers(RULES, [page], "comment") == (3, 1)
    assert markers(RULES, [page], "name") == (2, 1)
    assert markers(RULES, [page], "comment").per_thousand == pytest.approx(1000 / 3)
    lines = list(table(RULES, [page, Page("docs/page.md", texts_of_markdown("Mend it."))]))
    figures = ["3", "1", "333.3", "2", "1", "500.0"]
    assert [line.split() for line in lines[2:]] == [["initmig/sql", *figures], ["all", *figures]]


def test_markers_of_paths_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.py").write_text("# mend it\n")
    assert main(["--markers", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:4] == ["all", "2", "1", "500.0"]


def test_only_the_unreleased_section_of_the_changelog_is_read() -> None:
    changelog = "# C\n\n## Unreleased\n\nMend it.\n\n## 0.1.0\n\nMend it.\n"
    assert found(unreleased(changelog)) == [(5, "'Mend'")]


def test_exception_covers_its_words_only_on_its_page() -> None:
    page = Page("docs/page.md", [Text(1, "a dirty database, dirty files")])
    excuse = Excuse("docs/page.md", "dirty database,", "golang-migrate calls it so")
    covered = [excuse.covers(finding) for finding in page.findings(RULES.words)]
    assert covered == [True, True]  # both are shown with the words around them
    other = Page("docs/other.md", page.texts)
    assert not any(excuse.covers(finding) for finding in other.findings(RULES.words))


def test_exception_that_covers_nothing_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("A dirty database.\n")
    needed = Excuse("page.md", "dirty database", "a name")
    needless = Excuse("page.md", "clean database", "a name")
    check = Check(Rules(RULES.words, (needed, needless)), [page_of(path)])
    assert (check.findings, check.needless) == ([], [needless])


def test_exit_code_is_1_only_with_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.md").write_text("Fix the file.\n")
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "bad.md").write_text("Mend the file.\n")
    assert main([str(tmp_path)]) == 1
    assert re.fullmatch(r".*/bad.md:1: 'Mend': .* -> fix\n", capsys.readouterr().out)


def test_every_exception_has_a_reason() -> None:
    assert all(excuse.reason for excuse in RULES.excuses)
