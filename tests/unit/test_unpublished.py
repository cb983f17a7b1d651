"""initmig is not published yet, so no page or example installs it from a registry.

Remove these tests when a release is published.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dev.prose.files import pages_of

ROOT = Path(__file__).parents[2]
COPIED = [
    path
    for folder in ("charts", "examples", "k8s", "swarm")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix not in {".pyc", ".tgz"}
]
PAGES = sorted({*pages_of(ROOT), *COPIED, ROOT / "compose.yaml", ROOT / "Dockerfile"})
FROM_A_REGISTRY = re.compile(
    r"""pip3?\ install\ (?:-\S+\ )*['"]?initmig\b(?!\S*\ @)  # `initmig @ git+https://…` is fine
    | docker\ pull\ \S*initmig
    | (?:ghcr|docker|quay)\.io/\S*initmig
    | pypi\.org/\S*initmig
    | img\.shields\.io
    | helm\ repo\ add\ \S*initmig""",
    re.VERBOSE,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_does_not_install_initmig_from_a_registry(page: Path) -> None:
    assert FROM_A_REGISTRY.findall(page.read_text()) == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("pip install initmig", True),
        ("pip install --user 'initmig[verify]'", True),
        ("docker pull registry.example/initmig:1", True),
        ("image: ghcr.io/example/initmig", True),
        ("pip install 'initmig[verify] @ git+https://git.example/initmig'", False),
        ("pip install './initmig[verify]'", False),
        ("pip install '.[verify]'", False),
        ("docker build -t initmig .", False),
    ],
)
def test_only_installation_from_a_registry_is_found(text: str, is_found: bool) -> None:
    assert bool(FROM_A_REGISTRY.search(text)) == is_found
