"""Docker images that are built for a test and removed after it."""

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
    """Build *folder* with its Dockerfile, and yield the name of the image."""
    name = unique("image")
    docker_out("build", "--quiet", "--pull=false", f"--tag={name}", folder)
    try:
        yield name
    finally:
        docker("image", "rm", "--force", name)


def app_folder(folder: Path, *, base: str, query: str) -> Path:
    """An example app based on *base* that runs *query*, ready to be built."""
    return write(folder, {"Dockerfile": f'FROM {base}\nENV QUERY="{query}"\n'})


def migrations_folder(folder: Path, *, base: str, files: Mapping[str, str]) -> Path:
    """A user's image of two lines, and its migrations, ready to be built."""
    write(folder, {"Dockerfile": f"FROM {base}\nCOPY migrations /migrations\n"})
    write(folder / "migrations", files)
    return folder


def image_id(name: str) -> str:
    """The id, which names an image without a query to a registry."""
    return docker_out("image", "inspect", "--format={{.Id}}", name)
