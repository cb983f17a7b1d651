"""`make release-check` refuses a wrong release, and takes its notes from the changelog."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dev.release.__main__ import parser
from dev.release.builds import BuildError, output, read_commit, uncommitted
from dev.release.check import package_differences, write_checksums
from dev.release.images import Image, differences, wrong_labels
from dev.release.notes import NotesError, notes_of, section_of
from dev.release.versions import problems_of
from initmig.version import __version__
from tests.support.migrations import write

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
FILES = {
    "initmig/version.py": '"""The version."""\n\n__version__ = "1.2.3"\n',
    "Dockerfile": "FROM scratch\nARG VERSION=1.2.3\n",
    "charts/initmig/Chart.yaml": 'name: initmig\nversion: 1.2.3\nappVersion: "1.2.3"\n',
    "CHANGELOG.md": "# Changelog\n\n## 1.2.3\n\n- New.\n\n## 1.2.2\n\n- Old.\n",
}
UNRELEASED = FILES["CHANGELOG.md"].replace("## 1.2.3", "## Unreleased\n\n- Newer.\n\n## 1.2.3")


# --- versions ---


def test_this_repository_states_one_version() -> None:
    charts = [str(path.relative_to(ROOT)) for path in ROOT.glob("charts/*/Chart.yaml")]
    names = ["initmig/version.py", "Dockerfile", "CHANGELOG.md", *charts]
    assert problems_of({name: (ROOT / name).read_text() for name in names}, None) == []


@pytest.mark.parametrize(
    ("tag", "changelog"),
    [("v1.2.3", FILES["CHANGELOG.md"]), (None, FILES["CHANGELOG.md"]), (None, UNRELEASED)],
)
def test_matching_files_have_no_problem(tag: str | None, changelog: str) -> None:
    assert problems_of({**FILES, "CHANGELOG.md": changelog}, tag) == []


@pytest.mark.parametrize(
    ("changed", "tag", "problem"),
    [
        ({}, "1.2.3", "the tag '1.2.3' is not 'v1.2.3'"),
        ({}, "v1.2.4", "the tag 'v1.2.4' is not 'v1.2.3'"),
        ({}, "v1.2.3-rc1", "the tag 'v1.2.3-rc1' is not 'v1.2.3'"),
        ({}, "refs/tags/v1.2.3", "the tag 'refs/tags/v1.2.3' is not"),
        ({"Dockerfile": "ARG VERSION=1.2.2\n"}, None, "Dockerfile: .* finds '1.2.2' instead"),
        ({"Dockerfile": "FROM scratch\n"}, None, "Dockerfile: .* finds nothing instead"),
        (
            {"Dockerfile": "ARG VERSION=1.2.3\nARG VERSION=1.2.3\n"},
            None,
            "finds '1.2.3', '1.2.3' instead of '1.2.3' once",
        ),
        (
            {"charts/initmig/Chart.yaml": "version: 1.2.3\nappVersion: 1.2.2\n"},
            None,
            "charts/initmig/Chart.yaml: 'appVersion.* finds '1.2.2' instead",
        ),
        (
            {"charts/other/Chart.yaml": "version: 0.1.0\nappVersion: 1.2.3\n"},
            None,
            "charts/other/Chart.yaml: 'version.* finds '0.1.0' instead",
        ),
        ({"initmig/version.py": ""}, None, "initmig/version.py: '' is not a version"),
        (
            {name: text.replace("1.2.3", "1.3.0rc1") for name, text in FILES.items()},
            "v1.3.0rc1",
            "'1.3.0rc1' is not a version such as 1.2.3",
        ),
        ({"CHANGELOG.md": "# Changelog\n"}, None, '0 headings "## 1.2.3" instead of one'),
        ({"CHANGELOG.md": UNRELEASED}, "v1.2.3", '"## Unreleased" is still there'),
    ],
)
def test_release_is_refused(changed: dict[str, str], tag: str | None, problem: str) -> None:
    first, *others = problems_of({**FILES, **changed}, tag)
    assert re.search(problem, first)
    assert bool(others) == (changed == {"initmig/version.py": ""})  # with which none can agree


# --- notes ---


@pytest.mark.parametrize(
    ("changelog", "problem"),
    [
        ("", "0 headings"),
        ("## 1.2.30\n\n- Other.\n", "0 headings"),
        ("## 1.2.3 and more\n\n- Other.\n", "0 headings"),
        ("### 1.2.3\n\n- Other.\n", "0 headings"),
        ("## 1x2x3\n\n- Other.\n", "0 headings"),
        ("## 1.2.3\n\n- One.\n\n## 1.2.3\n\n- Two.\n", "2 headings"),
        ("## 1.2.3\n", "is empty"),
        ("## 1.2.3\n\n \n## 1.2.2\n\n- Old.\n", "is empty"),
    ],
)
def test_changelog_without_the_version_has_no_notes(changelog: str, problem: str) -> None:
    with pytest.raises(NotesError, match=problem):
        section_of(changelog, "1.2.3")


@pytest.mark.parametrize(
    ("section", "notes"),
    [
        ("- One\n  line.\n- Another.", "- One line.\n- Another."),
        ("A paragraph\nin two lines.\n\nAnother.", "A paragraph in two lines.\n\nAnother."),
        ("1. One\n   line.\n2. Two.", "1. One line.\n2. Two."),
        ("- One:\n  - below\n    it", "- One:\n  - below it"),
        ("### Added\nText\n**bold**", "### Added\nText **bold**"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("```sql\nSELECT\n1\n```\nText", "```sql\nSELECT\n1\n```\nText"),
        ("[Upgrade](docs/up.md#now)", "[Upgrade](https://git.example/x/docs/up.md#now)"),
        ("[0.1.0](#010)", "[0.1.0](https://git.example/x/CHANGELOG.md#010)"),
        ("[PostgreSQL](https://postgresql.example)", "[PostgreSQL](https://postgresql.example)"),
    ],
)
def test_notes_have_long_lines_and_complete_links(section: str, notes: str) -> None:
    changelog = f"## 1.2.3\n\n{section}\n\n## 1.2.2\n\n- Old.\n"
    assert notes_of(changelog, "1.2.3", "https://git.example/x") == f"{notes}\n"


def test_notes_of_this_version_have_every_entry_in_one_line() -> None:
    section = section_of(CHANGELOG, __version__)
    notes = notes_of(CHANGELOG, __version__, "https://git.example/x").splitlines()
    assert len(notes) == len(re.findall(r"^- ", section, re.MULTILINE)) > 10
    assert " ".join(notes).count("](https://git.example/x/docs/") == section.count("](docs/") > 0
    assert re.sub(r"\s+", " ", section) == re.sub(r"https://git.example/x/", "", " ".join(notes))


# --- packages and images ---


def test_different_packages_are_named() -> None:
    assert [*package_differences({"a": "1", "b": "2"}, {"a": "1", "b": "2"})] == []
    assert [*package_differences({"a": "1", "b": "2"}, {"b": "3", "c": "4"})] == [
        "a is not reproducible: 1 and None",
        "b is not reproducible: 2 and 3",
        "c is not reproducible: None and 4",
    ]


def test_downloaded_files_match_their_checksums(tmp_path: Path) -> None:
    names = ("python/a.whl", "python/a.tar.gz", "charts/a.tgz", "a-linux-amd64.cdx.json")
    write(tmp_path, dict.fromkeys((*names, "notes.md", "image.tar"), "text"))
    write_checksums(tmp_path)
    page = write(tmp_path / "page", {Path(name).name: "text" for name in names})
    check = ["sha256sum", "--check", "--strict", str(tmp_path / "SHA256SUMS")]
    done = subprocess.run(check, cwd=page, capture_output=True, check=True, text=True)
    assert sorted(done.stdout.split(": OK\n")[:-1]) == sorted(path.name for path in page.iterdir())


def layer(
    content: bytes = b"text", *, mode: int = 0o644, modified: int = 0, name: str = "a"
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), mode, modified
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def image(
    *layers: bytes, builder: str = "", created: str = "1970-01-01T00:00:00Z", **config: Any
) -> Image:
    history = [{"created": created}, {"created": created, "comment": builder}]
    whole = {"os": "linux", "architecture": "amd64", "created": created, "history": history}
    return Image("", {**whole, "config": config}, layers)


PADDED = layer() + bytes(512)  # the same files, packed differently


@pytest.mark.parametrize(
    "other",
    [
        image(layer()),
        image(layer(), created="2026-01-01T00:00:00Z"),
        image(layer(), Hostname="builder", Image="sha256:1", User="", WorkingDir="/", Cmd=None),
        image(PADDED, builder="buildkit.dockerfile.v0"),
    ],
)
def test_images_of_one_source_do_not_differ(other: Image) -> None:
    assert [*differences(image(layer()), other)] == []


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (image(layer(b"other")), "/a: "),
        (image(layer(mode=0o600)), "/a: "),
        (image(layer(modified=1)), "/a: "),
        (image(layer(name="b")), "/a: "),
        (image(layer(), User="0"), "User:  and 0"),
        (image(layer(), Labels={"a": "b"}), "Labels: "),
        (image(PADDED), "layers: "),
    ],
)
def test_difference_between_images_is_named(other: Image, difference: str) -> None:
    found = [*differences(image(layer()), other)]
    assert found
    assert found[0].startswith(difference)


def test_wrong_labels_are_named() -> None:
    labelled = image(layer(), Labels={"org.opencontainers.image.revision": "unknown"})
    assert [*wrong_labels(labelled, {"revision": "unknown"})] == []
    found = [*wrong_labels(labelled, {"revision": "abc", "source": "https://git.example"})]
    assert [re.sub(r"the label \S*\.(\w+) of linux/amd64", r"\1", each) for each in found] == [
        "revision is 'unknown' instead of 'abc'",
        "source is None instead of 'https://git.example'",
    ]


# --- the commit ---


def test_commit_has_only_committed_files_with_its_date_and_usual_modes(tmp_path: Path) -> None:
    repository, exported = tmp_path / "repository", tmp_path / "exported"
    write(repository, {"initmig/version.py": FILES["initmig/version.py"], "program": "#!/bin/sh\n"})
    (repository / "program").chmod(0o755)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=A"]):
        subprocess.run([*git, *command], cwd=repository, check=True)
    assert uncommitted(repository) == ""
    write(repository, {"program": "#!/bin/bash\n", "new": ""})
    assert uncommitted(repository) == "M program\n?? new"

    commit = read_commit(repository, exported, "https://git.example")
    assert (commit.version, commit.source) == ("1.2.3", "https://git.example")
    assert re.fullmatch(r"[0-9a-f]{40}", commit.sha)
    assert {path.name for path in exported.iterdir()} == {"initmig", "program"}
    assert (exported / "program").read_text() == "#!/bin/sh\n"
    assert (exported / "program").stat().st_mode & 0o777 == 0o755
    assert (exported / "initmig/version.py").stat().st_mode & 0o777 == 0o644
    assert (exported / "program").stat().st_mtime == int(commit.epoch)


@pytest.mark.parametrize(
    ("command", "variables", "missing"),
    [
        ("check", {}, "--source-url"),
        ("check", {"SOURCE_URL": "", "TAG": "v1.2.3"}, "--source-url"),
        ("image", {"TAG": "v1.2.3"}, "--source-url"),
        ("publish", {"SOURCE_URL": "https://git.example"}, "--registry"),
        ("publish", {"REGISTRY": ""}, "--registry"),
    ],
)
def test_command_without_its_variable_does_nothing(
    command: str,
    variables: dict[str, str],
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("SOURCE_URL", "TAG", "REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        parser().parse_args([command])
    assert f"the following arguments are required: {missing}" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["git", "helm", "docker", "skopeo"])
def test_missing_program_is_named(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match=f"^{program} is not installed"):
        output(program, "--version")


def test_folder_without_a_commit_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not a git repository"):
        read_commit(tmp_path, tmp_path / "exported", "https://git.example")


def test_failed_program_is_quoted() -> None:
    with pytest.raises(BuildError, match="`git not-a-command` failed:\ngit: 'not-a-command'"):
        output("git", "not-a-command")
