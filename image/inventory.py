#!/usr/bin/env python3
"""inventory.py ROOT OPT SITE: writes a list of the contents of ROOT, and their licences, into ROOT.

It writes a bill of materials (CycloneDX) and Debian's copyright files below OPT, and dpkg's status
files where scanners expect them in images without dpkg. In ROOT, a file of Debian has its own path,
with OPT instead of /usr. Python packages are in OPT/SITE, and their metadata names their licences.
The build fails if a file comes from neither and is not our own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

SBOM = "share/sbom/initmig.cdx.json"
COPIED_FROM = {"/usr/cert.pem": "/usr/share/ca-certificates/mozilla"}
OURS = {"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/usr/bin/initmig", "/usr/nss"}
COMMON = "/usr/share/common-licenses"

Component = dict[str, Any]


def main(root: Path, opt: str, site: str) -> None:
    """Write the inventory of *root*."""
    folder = root / opt.removeprefix("/")
    packages = owners(origins(root, opt, site))
    wheels = sorted(distributions(path=[f"{folder}/{site}"]), key=lambda wheel: wheel.name.lower())
    [version] = [wheel.version for wheel in wheels if wheel.name == "initmig"]
    for package in packages:
        keep_copyright(folder, package)
        keep_status(root, package)
    components = [*(debian(package, opt) for package in packages), *map(pypi, wheels)]
    write_sbom(folder / SBOM, version, components)


def origins(root: Path, opt: str, site: str) -> set[str]:
    """The paths that the files of *root* were copied from, without those of *site* and our own."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    paths = {re.sub(f"^{opt}/", "/usr/", f"/{path.relative_to(root)}") for path in files}
    return {
        os.path.realpath(COPIED_FROM.get(path, re.sub(r"\.pyc$", ".py", path)))
        for path in paths - OURS
        if not path.startswith(f"/usr/{site}/")
    }


def owners(paths: set[str]) -> list[str]:
    """The Debian packages of *paths*."""
    asked = ["dpkg-query", "--search", *sorted(paths)]
    done = subprocess.run(asked, capture_output=True, check=False, text=True)
    found = [line.split(": ", 1) for line in done.stdout.splitlines()]
    if strangers := paths - {path for _, path in found}:
        sys.exit(f"from no Debian package: {' '.join(sorted(strangers))}")
    return sorted({name for names, _ in found for name in names.split(", ")})


def keep_copyright(folder: Path, package: str) -> None:
    """The copyright file of *package*, and the licences that it leaves to be read elsewhere."""
    copyright = f"/usr/share/doc/{package.partition(':')[0]}/copyright"
    copy(copyright, folder)
    text = Path(copyright).read_text(encoding="utf-8")
    for name in set(re.findall(rf"{COMMON}/([\w.+-]*\w)", text)):
        if Path(COMMON, name).exists():  # one names a licence that Debian has not
            copy(f"{COMMON}/{name}", folder)


def copy(path: str, folder: Path) -> None:
    """Copy a file below /usr to the same path below *folder*."""
    target = folder / Path(path).relative_to("/usr")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def keep_status(root: Path, package: str) -> None:
    """Write the status of *package* as dpkg reports it."""
    target = root / "var/lib/dpkg/status.d" / package.partition(":")[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(output("dpkg-query", "--status", package), encoding="utf-8")


def debian(package: str, opt: str) -> Component:
    """A Debian package as a component, whose licence is below *opt*."""
    fields = "${Package} ${Version} ${Architecture}"
    name, version, architecture = output("dpkg-query", "-W", f"-f={fields}", package).split()
    system = platform.freedesktop_os_release()
    distro = f"{system['ID']}-{system['VERSION_ID']}"
    purl = f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}&distro={distro}"
    licence = {"type": "license", "url": f"file://{opt}/share/doc/{name}/copyright"}
    return component("library", name, version, purl) | {"externalReferences": [licence]}


def pypi(wheel: Distribution) -> Component:
    """An installed wheel as a component, including the libraries that it bundles."""
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', wheel.name).lower()}@{quote(wheel.version)}"
    kind = "application" if wheel.name == "initmig" else "library"
    found = component(kind, wheel.name, wheel.version, purl) | {"licenses": [licence(wheel)]}
    inside = bundled(wheel)
    return found | {"components": inside} if inside else found


def licence(wheel: Distribution) -> Component:
    """The licence of *wheel*: an SPDX expression if it has one, otherwise a name."""
    metadata = wheel.metadata.json
    if expression := metadata.get("license_expression"):
        return {"expression": expression}
    names = [name for name in metadata["classifier"] if name.startswith("License ::")]
    return {"license": {"name": names[0].rpartition(" :: ")[2]}}


def bundled(wheel: Distribution) -> list[Component]:
    """The shared libraries in *wheel*, and the components that its bills of materials list."""
    name = re.sub(r"[-_.]+", "_", wheel.name).lower()
    site = Path(str(wheel.locate_file("")))
    bills = sorted(site.glob(f"{name}-{wheel.version}.dist-info/sboms/*.cdx.json"))  # PEP 770
    libraries = sorted(site.glob(f"{name}.libs/*.so*"))
    return [*map(library, libraries), *(part for bill in bills for part in parts(bill))]


def library(path: Path) -> Component:
    """A shared library, of unknown origin, with its name and checksum."""
    digest = sha256(path.read_bytes()).hexdigest()
    hashes = [{"alg": "SHA-256", "content": digest}]
    return {"type": "file", "bom-ref": f"file:{path.name}", "name": path.name, "hashes": hashes}


def parts(path: Path) -> list[Component]:
    """The components of the bill of materials in *path*, without its subject."""
    bill = json.loads(path.read_text(encoding="utf-8"))
    itself = bill["metadata"]["component"]["bom-ref"]
    keys = ("type", "bom-ref", "name", "version", "purl")
    return [
        {key: part[key] for key in keys if key in part}
        for part in bill["components"]
        if part["bom-ref"] != itself
    ]


def component(kind: str, name: str, version: str, purl: str) -> Component:
    """The fields that every component has."""
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def write_sbom(path: Path, version: str, components: list[Component]) -> None:
    """Write the bill of materials, with the same bytes for the same *components*."""
    image = {"type": "container", "bom-ref": "image", "name": "initmig", "version": version}
    serial = uuid5(NAMESPACE_URL, json.dumps(components))
    made = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial.urn,
        "version": 1,
        "metadata": {"timestamp": made.isoformat(), "component": image},
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [part["bom-ref"] for part in components]}],
    }
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")


def output(*command: str) -> str:
    """The output of *command*; :raises subprocess.CalledProcessError: it fails."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
