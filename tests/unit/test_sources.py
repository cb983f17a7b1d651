"""Which folders a source names, and the error if it names no folder."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from initmig.config.config import parse_config
from initmig.config.targets import read_targets
from initmig.core.errors import ConfigError, Problem
from initmig.migrations.files import list_files, list_other_entries
from initmig.migrations.sources import expand, to_write_in
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory from which Python imports packages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def found(*sources: str) -> list[str]:
    problems: list[Problem] = []
    folders = expand(sources, problems)
    assert not problems
    return folders


def problem(source: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        list_files([source])
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("sources", "folders"),
    [
        (["one"], ["one"]),
        (["missing"], ["missing"]),
        (["one/", "apps/b"], ["one/", "apps/b"]),
        (["apps/*"], ["apps/[a]", "apps/b", "apps/c"]),
        (["apps/?"], ["apps/b", "apps/c"]),
        (["apps/[ac]"], ["apps/c"]),
        (["apps/[!c]"], ["apps/b"]),
        (["apps/[a]"], ["apps/[a]"]),
        (["*/c", "one"], ["apps/c", "one"]),
        (["apps/c", "apps/*"], ["apps/c", "apps/[a]", "apps/b"]),
        (["one", "./one", "one/../one", "link"], ["one"]),
        (["package:pack:m"], ["pack/m"]),
        (["package:pack:"], ["pack/"]),
        (["package:pack.sub:m/n"], ["pack/sub/m/n"]),
        (["package:spread:m", "package:spread.deep:m"], ["spread/m", "spread/deep/m"]),
        (["package:pack:m", "pack/*"], ["pack/m", "pack/sub"]),
        (["package:one"], ["package:one"]),
        (["package:a/b:c"], ["package:a/b:c"]),
    ],
)
def test_source_names_folders(here: Path, sources: list[str], folders: list[str]) -> None:
    for folder in ("one", "apps/[a]", "apps/b", "apps/c", "apps/.d", "pack/m", "pack/sub/m/n"):
        (here / folder).mkdir(parents=True)
    for folder in ("spread/m", "spread/deep/m"):  # namespaces, without an __init__.py
        (here / folder).mkdir(parents=True)
    write(here, {"apps/file": "", "pack/__init__.py": "1/0", "pack/sub/__init__.py": "1/0"})
    (here / "link").symlink_to("one")

    assert [folder.removeprefix(f"{here}/") for folder in found(*sources)] == folders


def test_namespace_package_has_a_folder_in_each_location(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("first", "second", "third"):
        write(here / place / "wide", {"x.txt": ""})
        monkeypatch.syspath_prepend(f"{here}/{place}")
    write(here / "first" / "wide" / "m", {"1.sql": ""})
    write(here / "third" / "wide" / "m", {"2.sql": ""})

    assert found("package:wide:m") == [f"{here}/third/wide/m", f"{here}/first/wide/m"]


def test_every_folder_that_matches_a_pattern_is_read(here: Path) -> None:
    write(here / "apps", {"b/2.sql": "", "a/1.sql": "", "a/3.SQL": "", "b/4.SQL": ""})

    listed = [file.path for file in list_files(["apps/*"]).migrations]
    assert listed == ["apps/a/1.sql", "apps/b/2.sql"]
    assert list_other_entries(["apps/*"]).ignored == ("apps/a/3.SQL", "apps/b/4.SQL")


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("apps/*/m", "no folder matches apps/*/m", "set --migrations or INITMIG_MIGRATIONS"),
        ("file*", "no folder matches file*", "set --migrations or INITMIG_MIGRATIONS"),
        ("v[1]", "no folder matches v[1]", "set --migrations or INITMIG_MIGRATIONS"),
        ("missing", "cannot list the migrations folder missing: No such", "set --migrations"),
        ("package:nowhere:m", "the package nowhere is not installed in ", "install it for"),
        ("package:pack.nowhere:m", "the package pack.nowhere is not installed", "install it"),
        ("package:module:m", "the package module is not installed in ", "install it for"),
        (
            "package:pack:m",
            "the package pack has no folder m: looked for {here}/pack/m",
            "correct the name. If it is correct, add the SQL files",
        ),
        (
            "package:zipped:m",
            "the package zipped is installed as a file, not as a folder: {here}/x.zip/zipped",
            "install it as a folder",
        ),
    ],
)
def test_source_that_names_no_folder_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str, hint: str
) -> None:
    write(here, {"file1": "", "pack/__init__.py": "", "module.py": ""})
    with ZipFile(here / "x.zip", "w") as file:
        file.writestr("zipped/__init__.py", "")
        file.writestr("zipped/m/1.sql", "")
    monkeypatch.syspath_prepend(f"{here}/x.zip")

    refused = problem(source)

    assert refused.id == "folder-unreadable"
    assert refused.message.startswith(message.format(here=here))
    assert refused.hint.startswith(hint)


def test_isolated_python_reports_its_search_path() -> None:
    script = (
        "import sys\nfrom initmig.migrations.sources import expand\nfound = []\n"
        "expand(['package:nowhere:m'], found)\nprint(found[0].hint, sys.path[-1], sep='\\n')"
    )
    argv = [sys.executable, "-I", "-c", script]

    hint, place = subprocess.run(argv, capture_output=True, check=True, text=True).stdout.split(
        "\n"
    )[:2]

    assert hint == (
        f"install it for the Python that runs initmig: copy it to {place}. This Python (-I) ignores"
        " PYTHONPATH and the working directory"
    )


@pytest.mark.parametrize(
    ("sources", "folder"),
    [
        (["new"], "new"),
        (["apps/*", "new"], "new"),
        (["package:pack:m", "apps/b"], "apps/b"),
        (["app*"], "apps"),
        (["v[1]"], "v[1]"),
        (["package:pack:m"], "{here}/pack/m"),
    ],
)
def test_new_migration_goes_into_the_first_plain_path_or_the_only_folder(
    here: Path, sources: list[str], folder: str
) -> None:
    for each in ("apps/a", "apps/b", "pack/m", "v[1]"):
        (here / each).mkdir(parents=True)

    assert to_write_in(sources) == folder.format(here=here)


def test_new_migration_is_refused_unless_exactly_one_folder_matches(here: Path) -> None:
    write(here / "apps", {"a/1.sql": "", "b/2.sql": ""})

    with pytest.raises(ConfigError) as several:
        to_write_in(["apps/*"])
    with pytest.raises(ConfigError) as none:
        to_write_in(["nowhere/*"])

    assert several.value.id == "several-folders"
    assert "apps/* matches several folders: apps/a, apps/b" in str(several.value)
    assert none.value.id == "folder-unreadable"


def test_each_target_has_its_own_sources(here: Path) -> None:
    write(here, {"apps/a/1.sql": "", "apps/b/2.sql": "", "pack/m/3.sql": ""})
    file = here / "targets.toml"
    file.write_text(
        '[[target]]\nname = "one"\nurl = "postgresql:///x"\nmigrations = "apps/*"\n'
        '[[target]]\nname = "two"\nurl = "postgresql:///x"\n'
        'migrations = ["package:pack:m", "apps/b"]\n'
    )

    targets = read_targets(parse_config(["migrate", f"--targets={file}"], {}), {})

    ids = [[file.id for file in list_files(each.config.migrations).migrations] for each in targets]
    assert ids == [["1", "2"], ["3", "2"]]
