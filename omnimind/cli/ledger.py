"""`omnimind ledger`: the durable record as a whole: check, back up, restore, move, migrate, prune."""

from __future__ import annotations

import click

from omnimind.cli.lazy import Lazy, LazyGroup

_SAFE = "Keep it safe"
_MOVE = "Move it"
_TIDY = "Look after it"

COMMANDS = {
    "backup": Lazy("omnimind.cli.ledger_backup:backup", "Copy the ledger, also while it is at work.", _SAFE),
    "backups": Lazy("omnimind.cli.ledger_backup:backups", "List the backups.", _SAFE),
    "restore": Lazy("omnimind.cli.ledger_backup:restore", "Make a backup the ledger again.", _SAFE),
    "export": Lazy("omnimind.cli.ledger_move:export", "Write all of it to one file.", _MOVE),
    "import": Lazy("omnimind.cli.ledger_move:import_", "Fill an empty ledger from such a file.", _MOVE),
    "check": Lazy("omnimind.cli.ledger_care:check", "Say whether what it holds can be true.", _TIDY),
    "migrate": Lazy("omnimind.cli.ledger_care:migrate", "Bring it to this OmniMind's schema.", _TIDY),
    "prune": Lazy("omnimind.cli.ledger_care:prune", "Delete tasks that ended long ago.", _TIDY),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def ledger() -> None:
    """Check, back up, restore and move the ledger."""
