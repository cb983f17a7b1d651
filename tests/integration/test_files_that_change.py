"""A file that changes after initmig has read it: initmig runs the text that it checked."""

from __future__ import annotations

import os
import py_compile
import shutil
from contextlib import contextmanager
from hashlib import sha256
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_journal import IN_PARTS
from tests.support.databases import ASLEEP, WAIT_FOR_GATE
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Running

# The server's version does not affect when a file is read.
pytestmark = pytest.mark.any_version

MARK = "INSERT INTO marks VALUES ('{}')"
PYTHON = (
    "from yoyo import step\n__transactional__ = {}\n"
    'def f(connection):\n    connection.execute("' + MARK + '")\nstep(f)\n'
)
CONTENTS = {
    "x.sql": f"{MARK};",
    "x.py": PYTHON.format(True, "{}"),
    "alone.sql": f"{IN_PARTS}{MARK};",
    "alone.py": PYTHON.format(False, "{}"),
    "post-apply.sql": f"{MARK};",
    "post-apply.py": PYTHON.format(True, "{}"),
}
"""Files by name. Each inserts a mark."""
GATE = {"0.sql": WAIT_FOR_GATE}


def with_mark(name: str, mark: str) -> str:
    return CONTENTS[name].replace("{}", mark)


def checksum_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def replace_atomically(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture(autouse=True)
def marks(database: Database) -> None:
    database.execute("CREATE TABLE marks (mark text); CREATE TABLE gate ()")


def marks_in(database: Database) -> list[str]:
    return [mark for (mark,) in database.query("SELECT mark FROM marks ORDER BY mark")]


def recorded_checksum(database: Database, id: str) -> str:
    query = "SELECT checksum FROM _initmig_migration WHERE migration_id = %s"
    return str(database.value(query, [id]))


class ConfigMap:
    """A folder as Kubernetes mounts it: the names link through one link, which is replaced."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._generation = 0
        folder.mkdir(parents=True)
        self.switch(files)
        for name in files:
            (folder / name).symlink_to(f"..data/{name}")

    def switch(self, files: Mapping[str, str]) -> None:
        """Replace the contents of all files in one step, and remove the old contents."""
        old = self._folder / f"..{self._generation}"
        self._generation += 1
        new = write(self._folder / f"..{self._generation}", files)
        link = self._folder / "..data_tmp"
        link.symlink_to(new.name)
        link.replace(self._folder / "..data")
        shutil.rmtree(old, ignore_errors=True)


def change(path: Path, new: str) -> None:
    replace_atomically(path, new)


def truncate_in_place(path: Path, new: str) -> None:
    path.write_text(new)


def remove(path: Path, new: str) -> None:
    del new
    path.unlink()


def make_unreadable(path: Path, new: str) -> None:
    del new
    path.unlink()
    path.symlink_to("nowhere")


CHANGES: Sequence[Callable[[Path, str], None]] = (
    change,
    truncate_in_place,
    remove,
    make_unreadable,
)


def start_at_gate(initmig: Initmig, database: Database, folder: Path) -> Running:
    running = initmig.start("migrate", url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    return running


def open_gate(database: Database, *processes: Running) -> None:
    database.execute("DROP TABLE gate")
    for running in processes:
        result = running.result()
        assert result.code == 0, result.err


def assert_ran_as_read(database: Database, name: str, *, text: str) -> None:
    assert marks_in(database) == ["old"]
    id = name.rpartition(".")[0]
    if not id.startswith("post-apply"):  # a hook has no checksum
        assert recorded_checksum(database, id) == checksum_of(text)


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("alter", CHANGES)
def test_file_that_changes_while_another_one_runs_is_run_as_read(
    initmig: Initmig,
    database: Database,
    folder: Path,
    name: str,
    alter: Callable[[Path, str], None],
) -> None:
    old = with_mark(name, "old")
    write(folder, {**GATE, name: old})
    running = start_at_gate(initmig, database, folder)
    alter(folder / name, with_mark(name, "new"))
    open_gate(database, running)
    assert_ran_as_read(database, name, text=old)


@pytest.mark.parametrize("name", CONTENTS)
def test_configmap_update_during_a_migration_does_not_affect_the_run(
    initmig: Initmig, database: Database, folder: Path, name: str
) -> None:
    old = with_mark(name, "old")
    mount = ConfigMap(folder, {**GATE, name: old})
    running = start_at_gate(initmig, database, folder)
    mount.switch({**GATE, name: with_mark(name, "new")})
    open_gate(database, running)
    assert_ran_as_read(database, name, text=old)


@pytest.mark.parametrize("name", ["x.sql", "x.py", "alone.sql", "alone.py"])
@pytest.mark.parametrize("alter", [*CHANGES, "switch"])
def test_file_that_changes_in_the_queue_is_read_after_the_wait(
    initmig: Initmig,
    database: Database,
    tmp_path: Path,
    name: str,
    alter: Callable[[Path, str], None] | str,
) -> None:
    first = start_at_gate(initmig, database, write(tmp_path / "first", GATE))
    new = with_mark(name, "new")
    second = tmp_path / "second"
    mount = ConfigMap(second, {**GATE, name: with_mark(name, "old")})
    waiting = initmig.start("migrate", url=database.url, folder=second)
    waiting.wait_for_line("waiting")
    if callable(alter):
        alter(second / name, new)
    else:
        mount.switch({**GATE, name: new})
    open_gate(database, first)
    result = waiting.result()
    if alter in (remove, make_unreadable):
        assert result.code == 2
        assert f"cannot read {second / name}" in result.err
        assert marks_in(database) == []
        return
    assert result.code == 0, result.err
    assert marks_in(database) == ["new"]
    assert recorded_checksum(database, name.rpartition(".")[0]) == checksum_of(new)


@pytest.mark.parametrize("name", ["x.sql", "x.py", "alone.sql", "alone.py"])
def test_file_added_during_a_run_is_applied_by_the_next_run(
    initmig: Initmig, database: Database, folder: Path, name: str
) -> None:
    running = start_at_gate(initmig, database, write(folder, GATE))
    text = with_mark(name, "old")
    write(folder, {name: text})
    open_gate(database, running)
    assert marks_in(database) == []
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 1
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert_ran_as_read(database, name, text=text)


@pytest.mark.parametrize("header", ["", IN_PARTS], ids=["transactional", "non-transactional"])
@pytest.mark.parametrize("alter", CHANGES)
def test_rollback_file_that_changes_during_another_rollback_is_run_as_read(
    initmig: Initmig,
    database: Database,
    folder: Path,
    header: str,
    alter: Callable[[Path, str], None],
) -> None:
    write(
        folder,
        {
            "a.sql": f"{header}SELECT 1;",
            "a.rollback.sql": f"{header}{MARK.format('old')};",
            "b.sql": "SELECT 1;",
            "b.rollback.sql": WAIT_FOR_GATE,
        },
    )
    assert initmig(url=database.url, folder=folder).code == 0
    running = initmig.start("rollback", "--all", url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    alter(folder / "a.rollback.sql", f"{header}{MARK.format('new')};")
    open_gate(database, running)
    assert marks_in(database) == ["old"]
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 0


# --- swapped continuously ---


@contextmanager
def swapping(path: Path, texts: Sequence[str]) -> Iterator[None]:
    """Replace *path* with one of *texts* after the other, as fast as possible."""
    stop = Event()

    def swap() -> None:
        while not stop.is_set():
            for text in texts:
                replace_atomically(path, text)

    replace_atomically(path, texts[0])
    thread = Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("name", ["x.sql", "x.py", "alone.sql", "alone.py"])
def test_recorded_checksum_matches_the_text_that_ran_while_the_file_is_swapped(
    initmig: Initmig, database: Database, folder: Path, name: str
) -> None:
    texts = {mark: with_mark(name, mark) for mark in ("1", "2", "3" * 9, "4" * 999)}
    suffix = name.rpartition(".")[2]
    folder.mkdir()
    for number in range(25):
        database.execute("TRUNCATE marks")
        with swapping(folder / f"{number:02}.{suffix}", list(texts.values())):
            result = initmig("--changed=allow", url=database.url, folder=folder)
        assert result.code == 0, result.err
        [mark] = marks_in(database)
        assert recorded_checksum(database, f"{number:02}") == checksum_of(texts[mark])


# --- Python sources ---

RAISES = "from yoyo import step\ndef f(connection):\n    raise ValueError('old')  # {}\nstep(f)\n"


def test_error_shows_the_line_that_ran_after_the_file_changed(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {**GATE, "x.py": RAISES.format("before")})
    running = start_at_gate(initmig, database, folder)
    write(folder, {"x.py": "\n" + RAISES.format("after")})
    database.execute("DROP TABLE gate")
    result = running.result()
    assert result.code == 1
    assert "x.py:3: x raised ValueError: old" in result.err
    assert "# before" in result.err
    assert "# after" not in result.err


def test_cached_bytecode_is_not_used(initmig: Initmig, database: Database, folder: Path) -> None:
    path = write(folder, {"x.py": with_mark("x.py", "old")}) / "x.py"
    py_compile.compile(str(path))
    times = path.stat()
    path.write_text(with_mark("x.py", "new"))  # the size stays the same
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert marks_in(database) == ["new"]


@pytest.mark.parametrize(
    ("prefix", "encoding"),
    [
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("# -*- coding: latin-1 -*-\n", "latin-1"),
        ("#!/usr/bin/python\n# vim: set fileencoding=cp1251 :\r\n", "cp1251"),
    ],
)
def test_declared_encoding_of_a_python_file_is_used(
    initmig: Initmig, database: Database, folder: Path, prefix: str, encoding: str
) -> None:
    mark = "я" if encoding == "cp1251" else "é"
    text = f"{prefix}from yoyo import step\nstep(\"{MARK.format(mark)}\")\nstep('SELECT 1/0')\n"
    data = text.encode(encoding)
    write(folder, {"x.py": data})
    failed = initmig(url=database.url, folder=folder)
    assert f"x.py:{text.count(chr(10))}:" in failed.err
    data = data.replace(b"1/0", b"1/1")
    write(folder, {"x.py": data})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert marks_in(database) == [mark]
    assert recorded_checksum(database, "x") == sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"from yoyo import step\nstep(\n", ("x.py:2:5", "was never closed")),
        (b"# coding: nonsense\n", ("x.py", "unknown encoding")),
        (b"from yoyo import step\nstep('\xe9')\n", ("x.py:2", "codec can't decode")),
        (b"a = 1\x00\n", ("x.py", "null bytes")),
    ],
)
def test_unreadable_python_file_is_refused_with_its_place(
    initmig: Initmig, database: Database, folder: Path, data: bytes, expected: tuple[str, str]
) -> None:
    write(folder, {"x.py": data})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 2
    assert [each for each in expected if each not in result.err] == []
    assert "[invalid-python]" in result.err


def test_python_migration_has_the_same_file_and_name_as_in_yoyo(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    text = (
        "import inspect, sys\nfrom yoyo import step\n"
        "sys.path.insert(0, __file__.rpartition('/')[0] + '/lib')\n"
        "from helper import MARK\n"
        "def f(connection):\n    connection.execute(MARK, [__file__])\n"
        "    connection.execute(MARK, [__name__])\n"
        "    connection.execute(MARK, [inspect.getsource(f).splitlines()[0]])\n"
        "step(f)\n"
    )
    helper = "MARK = 'INSERT INTO marks VALUES (%s)'\n"
    write(folder, {"x.py": text, "lib/helper.py": helper})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert marks_in(database) == sorted([str(folder / "x.py")] * 2 + ["def f(connection):"])
