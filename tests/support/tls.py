"""Certificates created by openssl, and a server that uses them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from dev.postgres import Server


class Authority:
    """A certificate authority in *folder*, and the files that it has created there."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl")
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.certificate = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(self, name: str, *, host: str = "", expired: bool = False) -> tuple[Path, Path]:
        """Issue a certificate and a key for *name*, which is also the user name."""
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        request, extensions = self._folder / "request", self._folder / "extensions"
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        extensions.write_text(f"subjectAltName=DNS:{host or name}\n")
        self._openssl(
            *("x509", "-req", "-in", str(request), "-extfile", str(extensions)),
            *("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"),
            *(("-days", "-1") if expired else ("-days", "2")),
            *("-out", str(certificate)),
        )
        key.chmod(0o600)
        return certificate, key

    def encrypted(self, key: Path, password: str) -> Path:
        """A copy of *key*, encrypted with *password*."""
        copy = key.with_suffix(".encrypted")
        self._openssl(
            *("pkcs8", "-topk8", "-in", str(key), "-out", str(copy)),
            *("-passout", f"pass:{password}"),
        )
        copy.chmod(0o600)
        return copy

    def revocations(self) -> Path:
        """An empty list of revoked certificates."""
        (self._folder / "index.txt").touch()
        config, crl = self._folder / "ca.cnf", self._folder / "revoked.crl"
        config.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndefault_md=sha256\ndatabase={self._folder}/index.txt\n"
        )
        self._openssl(
            *("ca", "-config", str(config), "-gencrl", "-crldays", "2"),
            *("-keyfile", str(self._key), "-cert", str(self.certificate), "-out", str(crl)),
        )
        return crl

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def speak_tls(
    server: Server, certificate: Path, key: Path, *, authority: Path | None = None, rules: str = ""
) -> None:
    """Restart *server* with TLS. *rules* can require a client certificate of *authority*.

    *rules* are put before the other rules of pg_hba.conf.
    """
    data = server.data
    shutil.copyfile(certificate, data / "server.crt")
    shutil.copyfile(key, data / "server.key")
    (data / "server.key").chmod(0o600)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("\nssl = on\n")
        if authority:
            shutil.copyfile(authority, data / "root.crt")
            settings.write("ssl_ca_file = 'root.crt'\n")
    if rules:
        hba = data / "pg_hba.conf"
        hba.write_text(f"{rules}\n{hba.read_text()}")
    server.installation.take(data)
    server.restart()
