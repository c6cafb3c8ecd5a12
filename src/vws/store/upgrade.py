"""A database's tables brought up to date when the service opens it.

Nobody runs a migration by hand: the first process of a new version does it under a lock, in one transaction, and the
others wait and find it done. A database that a newer version has changed is refused: this code does not know what its
columns mean. Alembic is loaded only when there is something to do.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import ProgrammingError

from vws.core.errors import Conflict, Unavailable
from vws.store.database import Database
from vws.store.schema import REVISION

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> None:
    """Bring the tables to REVISION. Raises Conflict if they are newer, Unavailable if they cannot be changed."""
    try:
        with database.reading_one() as connection:
            if _found(connection) == REVISION:
                return
        with database.migrating() as connection:
            _migrate(connection, database.name)
    except ProgrammingError as error:
        raise Unavailable(
            f"the tables in {database.name} could not be made: {error.orig}; nothing was changed",
            possible="a database that VWS's user owns",
        ) from error


def _found(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def _migrate(connection: Connection, name: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    # Read again: another process may have migrated while this one waited for the lock.
    found = _found(connection)
    if found is not None and found not in known:
        raise Conflict(
            f"the database {name} has schema {found}, written by a newer VWS than this one, which knows {REVISION}; "
            "nothing was changed",
            possible="start the newer VWS, or restore the backup made before its upgrade",
        )
    command.upgrade(config, "head")
