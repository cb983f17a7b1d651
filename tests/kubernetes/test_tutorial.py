"""The Kubernetes tutorial, followed from start to finish on the test cluster."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.docker import IMAGE, REPOSITORY, docker
from tests.support.kubernetes import kubectl
from tests.support.tutorial import Step, assert_done, follow, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KIND = """\
#!/bin/sh
# `kind load docker-image NAME`
exec "$INITMIG_TEST_CLUSTER" load "$3"
"""
_DOCKER = """\
#!/bin/sh
# The image is built already, under another name.
case "$*" in
*" initmig initmig") exit 0 ;;
build*)
  shift
  sed -i 's/^FROM initmig$/FROM {image}/' Dockerfile
  exec {docker} build --pull=false "$@"
  ;;
*) exec {docker} "$@" ;;
esac
"""


@pytest.fixture
def namespace(_cluster: None) -> Iterator[str]:
    """The name of a namespace that does not exist yet, and of the images created there."""
    name = f"initmig-test-{secrets.token_hex(4)}"
    yield name
    kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    for release in range(1, 5):
        docker("rmi", f"{name}:{release}")


def test_kubernetes_tutorial_works_as_written(namespace: str, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    (folder / "initmig").symlink_to(REPOSITORY)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "kind": _KIND,
        "docker": _DOCKER.format(image=IMAGE, docker=shutil.which("docker")),
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    # `kubectl config` changes the file
    config = shutil.copy(os.environ["KUBECONFIG"], tmp_path / "kubeconfig")
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(config)}

    *steps, last = [_renamed(step, namespace) for step in steps_of("tutorial/kubernetes.md")]
    assert isinstance(last, Step)
    # without waiting for the deletion, which takes an old kubelet a minute
    steps.append(replace(last, command=f"{last.command} --wait=false"))
    dns = {"kubectl run db": '"$INITMIG_TEST_CLUSTER" dns'}
    assert_done(follow(steps, folder, env=env, after=dns, timeout=600))


def _renamed(step: Step | tuple[str, str], name: str) -> Step | tuple[str, str]:
    """*step* with *name* for the namespace and the images, because other runs use these names."""
    if isinstance(step, tuple):
        file, content = step
        return file, content.replace("shop-migrations", name)
    command = re.sub(r"(?<=namespace[= ])shop\b|shop-migrations", name, step.command)
    return replace(step, command=command)
