from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from initmig.reporting.termination import LIMIT_BYTES, write_outcome


def outcome_of(text: str, folder: Path) -> bytes:
    path = folder / "outcome"
    write_outcome(str(path), text)
    return path.read_bytes()


def test_outcome_replaces_the_previous_content(tmp_path: Path) -> None:
    assert outcome_of("a long first outcome", tmp_path) == b"a long first outcome"
    assert outcome_of("short", tmp_path) == b"short"


def test_text_of_4096_bytes_is_not_cut(tmp_path: Path) -> None:
    assert outcome_of("x" * LIMIT_BYTES, tmp_path) == b"x" * 4096


def test_long_text_is_cut_between_two_characters(tmp_path: Path) -> None:
    # 3 bytes each, so byte 4,096 is inside a character
    assert outcome_of("漢" * 2000, tmp_path).decode() == "漢" * 1365


def test_unwritable_file_raises_no_error(tmp_path: Path) -> None:
    write_outcome(str(tmp_path / "no" / "folder"), "text")
    write_outcome(str(tmp_path), "text")
    assert list(tmp_path.iterdir()) == []


@given(text=st.text(max_size=3000))
def test_outcome_is_always_the_beginning_of_the_text(text: str) -> None:
    whole = text.encode()
    with TemporaryDirectory() as folder:
        written = outcome_of(text, Path(folder))
    assert whole.startswith(written)
    assert min(len(whole), LIMIT_BYTES) - len(written) < 4
