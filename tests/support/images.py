"""Images that are there for as long as somebody needs them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.docker import REPOSITORY, docker, docker_out, unique
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

EXAMPLE_APP = REPOSITORY / "examples" / "app"


@contextmanager
def built_image(folder: Path) -> Iterator[str]:
    """The name of the image that *folder* with its Dockerfile gives."""
    name = unique("image")
    docker_out("build", "--quiet", "--pull=false", f"--tag={name}", folder)
    try:
        yield name
    finally:
        docker("image", "rm", "--force", name)


def app_folder(folder: Path, *, base: str, query: str) -> Path:
    """An example app of *base* that asks for *query*, ready to be built."""
    return write(folder, {"Dockerfile": f'FROM {base}\nENV QUERY="{query}"\n'})


def migrations_folder(folder: Path, *, base: str, files: Mapping[str, str]) -> Path:
    """The two lines of a user's own image, and the migrations for it, ready to be built."""
    write(folder, {"Dockerfile": f"FROM {base}\nCOPY migrations /migrations\n"})
    write(folder / "migrations", files)
    return folder


def image_id(name: str) -> str:
    """What names an image without a registry being asked for it."""
    return docker_out("image", "inspect", "--format={{.Id}}", name)
