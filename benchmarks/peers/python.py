"""Tools in Python, each in its own virtual environment."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.installing import install_initmig, install_requirements
from benchmarks.measuring import Command, output_of
from benchmarks.peers.peer import Peer, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.installing import Home
    from benchmarks.migrations import Migration

_PINS: Final = Path(__file__).parent
_MINIMAL: Final = _PINS.parent / "floor" / "minimal.py"


def _pinned(name: str) -> Callable[[Home], None]:
    return partial(install_requirements, requirements=_PINS / f"requirements-{name}.txt")


def _version_of(package: str) -> Callable[[Home], str]:
    ask = f"from importlib.metadata import version; print(version('{package}'))"
    return lambda home: output_of(home.program("python", "-c", ask)).strip()


# --- initmig, yoyo and the floor: a folder of SQL files ---


def _initmig(home: Home, folder: Path, url: str) -> Command:
    return home.program("initmig", DATABASE_URL=url, INITMIG_MIGRATIONS=str(folder))


def _yoyo(home: Home, folder: Path, url: str) -> Command:
    database = url.replace("postgresql://", "postgresql+psycopg://")
    options = ("--batch", "--no-config-file", "--database", database)
    return home.program("yoyo", "apply", *options, str(folder))


def _minimal(home: Home, folder: Path, url: str) -> Command:
    return home.program("python", str(_MINIMAL), str(folder), DATABASE_URL=url)


INITMIG: Final = Peer(
    "initmig", "interpreted", install_initmig, _version_of("initmig"), write_files, _initmig
)
YOYO: Final = Peer(
    "yoyo",
    "interpreted",
    _pinned("yoyo"),
    _version_of("yoyo-migrations"),
    write_files,
    _yoyo,
)
MINIMAL: Final = Peer(
    "psycopg-script",
    "floor",
    _pinned("psycopg"),
    _version_of("psycopg"),
    write_files,
    _minimal,
)


# --- yandex-pgmigrate ---


def _write_pgmigrate(folder: Path, migrations: Sequence[Migration]) -> None:
    (folder / "migrations.yml").write_text("callbacks: {}\n")
    (folder / "migrations").mkdir()
    for migration in migrations:
        name = f"V{migration.number:05}__{migration.name}.sql"
        (folder / "migrations" / name).write_text(migration.sql)


def _pgmigrate(home: Home, folder: Path, url: str) -> Command:
    # --ungroup: a separate transaction for each migration
    options = ("--conn", url, "--base_dir", str(folder), "--target", "latest", "--ungroup")
    return home.program("pgmigrate", *options, "migrate")


YANDEX_PGMIGRATE: Final = Peer(
    "yandex-pgmigrate",
    "interpreted",
    _pinned("yandex-pgmigrate"),
    _version_of("yandex-pgmigrate"),
    _write_pgmigrate,
    _pgmigrate,
)


# --- alembic ---

_ALEMBIC_INI = """\
[alembic]
script_location = %(here)s
path_separator = os
"""
_ALEMBIC_ENV = """\
import os

import sqlalchemy
from alembic import context

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""


def _write_alembic(folder: Path, migrations: Sequence[Migration]) -> None:
    (folder / "alembic.ini").write_text(_ALEMBIC_INI)
    (folder / "env.py").write_text(_ALEMBIC_ENV)
    (folder / "versions").mkdir()
    before = None
    for migration in migrations:
        path = folder / "versions" / f"{migration.id}.py"
        path.write_text(_alembic_file(migration, before))
        before = migration.id


def _alembic_file(migration: Migration, before: str | None) -> str:
    return f"""\
from alembic import op

revision = {migration.id!r}
down_revision = {before!r}


def upgrade():
    op.execute({migration.sql!r})
"""


def _alembic(home: Home, folder: Path, url: str) -> Command:
    config = str(folder / "alembic.ini")
    return home.program("alembic", "--config", config, "upgrade", "head", DATABASE_URL=url)


ALEMBIC: Final = Peer(
    "alembic",
    "interpreted",
    _pinned("alembic"),
    _version_of("alembic"),
    _write_alembic,
    _alembic,
)


# --- Django ---

_DJANGO_SETTINGS = """\
import os
from urllib.parse import urlsplit

url = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
        "PASSWORD": url.password,
        "NAME": url.path[1:],
        "OPTIONS": {"sslmode": "disable"},
    }
}
INSTALLED_APPS = ["app"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""


def _write_django(folder: Path, migrations: Sequence[Migration]) -> None:
    (folder / "settings.py").write_text(_DJANGO_SETTINGS)
    package = folder / "app" / "migrations"
    package.mkdir(parents=True)
    (folder / "app" / "__init__.py").touch()
    (package / "__init__.py").touch()
    before: list[tuple[str, str]] = []
    for migration in migrations:
        (package / f"{migration.id}.py").write_text(_django_migration(migration, before))
        before = [("app", migration.id)]


def _django_migration(migration: Migration, before: Sequence[tuple[str, str]]) -> str:
    return f"""\
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = {before!r}
    operations = [migrations.RunSQL({migration.sql!r})]
"""


def _django(home: Home, folder: Path, url: str) -> Command:
    where = {"PYTHONPATH": str(folder), "DJANGO_SETTINGS_MODULE": "settings"}
    return home.program("django-admin", "migrate", DATABASE_URL=url, **where)


DJANGO: Final = Peer(
    "Django", "interpreted", _pinned("django"), _version_of("django"), _write_django, _django
)
