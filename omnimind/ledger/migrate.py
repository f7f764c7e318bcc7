"""Bring a database to the present schema, inside the caller's transaction."""

from __future__ import annotations

import sqlalchemy as sa

from omnimind.errors import LedgerVersion

HEAD = "0004"
"""The revision that `schema.py` describes: the last one in `migrations/versions`."""


def revisions() -> list[str]:
    """Return the revisions that this program can make, the oldest first."""
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "omnimind.ledger:migrations")
    scripts = ScriptDirectory.from_config(config).walk_revisions(base="base", head=HEAD)
    return [script.revision for script in scripts][::-1]


def revision_of(connection: sa.Connection) -> str | None:
    """Return the revision that the database is at, None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    return None if found is None else str(found)


def migrate(connection: sa.Connection, where: str, target: str = HEAD) -> str | None:
    """Run the revisions that are missing; return the revision of before. `where` names the database.

    Raises LedgerVersion when the database is newer than this program.
    """
    present = revision_of(connection)
    if present == target:
        return present
    # Alembic takes 0.2 s to import, and a coordinator that comes back is in a hurry.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "omnimind.ledger:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        msg = f"{where} has schema {present}, which is newer than this OmniMind's {HEAD}"
        hint = "upgrade OmniMind: pip install --upgrade omnimind-runtime; or use another OMNIMIND_HOME"
        raise LedgerVersion(msg, hint=hint, schema=present)
    config.attributes["connection"] = connection
    command.upgrade(config, target)
    return present
