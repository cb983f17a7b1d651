"""The commands as functions, for tests and tools: the same settings, behavior and errors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypedDict, Unpack

from initmig.commands.migrate import migrate as _migrate
from initmig.config.config import parse_config
from initmig.core.quoting import join_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.commands.result import Result
    from initmig.commands.verify.comparison import Verdict
    from initmig.config.config import Config
    from initmig.core.events import Emit, Event
    from initmig.core.model import MigrationStatus

    Path = str | os.PathLike[str]


class Settings(TypedDict, total=False):
    """The settings of the commands, named like their flags.

    Durations are strings as in the flags, such as "5s", or numbers of seconds.

    A setting that is missing comes from the environment, then from the default, as in the commands.
    """

    database_url: str
    password_command: str
    migrations: Path | Sequence[Path]
    schema: str | Sequence[str]
    """As ``--schema``, or a sequence of names that need no quotes."""
    history_schema: str
    history_table: str
    role: str
    wait_timeout: str | float
    queue_timeout: str | float
    lock_timeout: str | float
    lock_retries: int
    statement_timeout: str | float
    transaction: str
    out_of_order: str
    changed: str
    foreign: str
    allow_empty: bool


def _ignore(_: Event) -> None:
    pass


def migrate(*, to: str = "", on_event: Emit = _ignore, **settings: Unpack[Settings]) -> Result:
    """Apply the pending migrations, up to and including *to* if it is set.

    Iterating over the result yields the ids that this call applied, in order.

    :raises InitmigError: as `initmig migrate`; its ``committed`` ids stay applied
    """
    return _migrate(_config("migrate", settings, to=to), on_event)


def rollback(
    *,
    to: str = "",
    steps: int = 0,
    all: bool = False,
    irreversible: str = "",
    on_event: Emit = _ignore,
    **settings: Unpack[Settings],
) -> Result:
    """Roll back the migrations after *to*, the last *steps* migrations, or *all* of them.

    Iterating over the result yields the ids that this call rolled back, in order. *irreversible*
    is "fail" or "skip", as in `initmig rollback --irreversible`.

    :raises InitmigError: as `initmig rollback`; its ``committed`` ids stay rolled back
    """
    from initmig.commands.rollback import rollback as roll_back

    config = _config("rollback", settings, to=to, steps=steps, all=all, irreversible=irreversible)
    return roll_back(config, on_event)


def status(
    *, on_event: Emit = _ignore, **settings: Unpack[Settings]
) -> tuple[MigrationStatus, ...]:
    """Return every migration and its state, as `initmig status` shows them.

    :raises InitmigError: as `initmig status`
    """
    from initmig.commands.status import status as read_status

    return read_status(_config("status", settings), on_event).migrations


def verify(
    *,
    require_rollback: bool = False,
    from_baseline: str = "",
    on_event: Emit = _ignore,
    **settings: Unpack[Settings],
) -> tuple[Verdict, ...]:
    """Apply and roll back each migration on a scratch database; return a verdict on each.

    A migration that is not accepted has ``problems``; `initmig verify` fails with all of them.

    :raises InitmigError: there is no scratch database, or a file cannot be read
    """
    from initmig.commands.verify.verify import verify as verify_all

    config = _config(
        "verify", settings, require_rollback=require_rollback, from_baseline=from_baseline
    )
    return verify_all(config, on_event).verdicts


def _config(command: str, settings: Settings, **options: str | int) -> Config:
    """:raises ConfigError: with every invalid value."""
    given = {**settings, **options}
    flags = (_flag(name, value) for name, value in given.items() if value or name in settings)
    return parse_config([command, *flags], os.environ)


def _flag(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    if value is False:
        return f"{flag}=no"
    if isinstance(value, (str, int, float, os.PathLike)):
        return f"{flag}={value}"
    assert isinstance(value, (list, tuple))  # noqa: S101
    join = join_names if name == "schema" else ",".join
    return f"{flag}={join(map(str, value))}"
