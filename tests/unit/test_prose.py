"""`python -m dev.prose` finds what no reader should have to read, and nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from dev import prose
from dev.prose import Excuse, Page, Rules, Text, texts_of_markdown, texts_of_python

if TYPE_CHECKING:
    from pathlib import Path

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
def test_word_of_the_not_column_is_found(sentence: str, word: str) -> None:
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


def test_finding_has_the_line_inside_its_paragraph_and_what_to_write() -> None:
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
def test_several_sentences_items_cells_code_and_addresses_are_no_long_sentence(page: str) -> None:
    assert found(page) == []


@pytest.mark.parametrize(
    "page", [f"- item\n- {LONG}\n", f"|a|b|\n|--|--|\n|x|{LONG}|\n", f"> a\n\n## {LONG}\n"]
)
def test_long_sentence_is_found_in_item_cell_and_heading(page: str) -> None:
    assert found(page) == [(2 if page.startswith("-") else 3, "long sentence")]


def test_chain_of_semicolons_is_found() -> None:
    assert found("It waits; it locks; it ends.") == [(1, "semicolons")]
    assert found("It waits; it locks. It applies; it ends.") == []


def test_table_cell_of_more_than_twenty_words_is_found_in_readme_alone() -> None:
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


def test_value_within_a_message_is_one_word_and_read_itself() -> None:
    assert found_in_code("""text = f"{'mend it' if x else ''} {y}" """) == [(1, "'mend'")]
    [text, _] = texts_of_python("""f"in {a.b(c, 'd and e')} words" """)
    assert prose.count(text.words) == 3


def test_docstrings_comments_names_and_sql_are_not_read() -> None:
    source = f'''"""{LONG}"""
class A:
    """Mend the rights."""

    x: str = "rights"
    """What is to be mended."""
    def f(self):
        """{LONG}"""
        # mend it
        return "SELECT a, b, c FROM d; SELECT " + "starelid stanum stainherit " * 12
sql = "SELECT {"a = b AND " * 20}; COMMIT; BEGIN; END"
block = f"; {{sql}}; END"
'''
    assert found_in_code(source) == []


def test_only_the_section_unreleased_of_the_changelog_is_read() -> None:
    changelog = "# C\n\n## Unreleased\n\nMend it.\n\n## 0.1.0\n\nMend it.\n"
    assert found(prose.unreleased(changelog)) == [(5, "'Mend'")]


def test_exception_covers_its_words_on_its_page_alone() -> None:
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
    check = prose.Check(Rules(RULES.words, (needed, needless)), [path])
    assert (check.findings, check.needless) == ([], [needless])


def test_exit_code_is_that_of_the_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.md").write_text("Fix the file.\n")
    assert prose.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "bad.md").write_text("Mend the file.\n")
    assert prose.main([str(tmp_path)]) == 1
    assert re.fullmatch(r".*/bad.md:1: 'Mend': .* -> fix\n", capsys.readouterr().out)


def test_every_exception_has_a_reason() -> None:
    assert all(excuse.reason for excuse in RULES.excuses)
