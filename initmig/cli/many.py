"""Shows the results of `migrate` for many targets: each when it ends, or all in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.cli.output import log_for, screen_for, write
from initmig.commands.many import many
from initmig.core.events import OutputLost
from initmig.reporting.tables import target_json, targets_table

if TYPE_CHECKING:
    from initmig.commands.many.many import Migrated
    from initmig.config.config import Config
    from initmig.core.events import Emit
    from initmig.core.model import TargetResult


def migrate_many(config: Config, emit: Emit) -> Migrated:
    """Run `many.migrate_many`; after an error or a signal, still show the results so far.

    :raises InitmigError: the targets cannot be listed
    """
    results: list[TargetResult] = []

    def report(result: TargetResult) -> None:
        results.append(result)
        if config.json:
            _write(config, target_json(result))

    try:
        return many.migrate_many(
            config, emit, emit_for=lambda name: log_for(config, target=name), report=report
        )
    finally:
        if results and not config.json:
            _write(config, targets_table(results, screen_for(config)))


def _write(config: Config, text: str) -> None:
    if lost := write(text):
        log_for(config)(OutputLost(str(lost)))
