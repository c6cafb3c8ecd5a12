"""Two databases, one behaviour: what SQLite and PostgreSQL do differently, and nothing else.

Three ways to use a connection: `reading_one` (a single statement), `reading` (several statements that see one moment)
and `writing` (one transaction, the only writer of its process). What goes wrong outside (a full disk, a server that is
away) becomes `Unavailable`, with an honest word on what was kept; what breaks a rule of the tables stays an
IntegrityError for the store to explain.

SQLite: WAL, so readers never wait for the writer; synchronous=FULL, so that a commit survives a power loss. A writer
begins IMMEDIATE: it would otherwise fail halfway, when it first writes. The file and its companions are the owner's
alone (SQLite gives the companions the file's mode).

PostgreSQL: a lock that cannot be had within 10 s, or a session that stops in the middle of a transaction for 30 s, is
given up, so that one hanging process never hangs the others.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnection

from vws.core.errors import InvalidRequest, Unavailable

BUSY_S = 10
# The first key of VWS's advisory locks, which share one space with those of other programs in the same database.
LOCKS = 0x767773
LOCK_LEAD, LOCK_MIGRATE, LOCK_FILES = 1, 2, 3


def open_database(url: str) -> Database:
    """Connect to `sqlite:///PATH` or `postgresql://…`. InvalidRequest for another URL, Unavailable if it fails."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise _wrong_url(url) from None
    match parsed.drivername:
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return SqliteDatabase(parsed)
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return PostgresqlDatabase(parsed.set(drivername="postgresql+psycopg"))
    raise _wrong_url(parsed.render_as_string(hide_password=True))


def _wrong_url(shown: str) -> InvalidRequest:
    return InvalidRequest(
        f"{shown!r} names no database that VWS can use",
        field="store",
        asked=shown,
        possible="sqlite:///PATH or postgresql://USER@HOST/DATABASE",
    )


class Database:
    """An engine and the three ways to use it."""

    # Execution options for reading_one, reading and writing.
    one: dict[str, Any]
    snapshot: dict[str, Any]
    write: dict[str, Any]

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.url.render_as_string(hide_password=True)
        # Each database has its own INSERT … ON CONFLICT.
        self.insert: Callable[..., Any] = importlib.import_module(f"sqlalchemy.dialects.{engine.dialect.name}").insert
        self._for_one = engine.execution_options(**self.one)
        self._for_snapshots = engine.execution_options(**self.snapshot)
        self._for_writing = engine.execution_options(**self.write)
        self._writer = threading.Lock()

    @contextmanager
    def reading_one(self) -> Iterator[Connection]:
        with _reading_explained(), self._for_one.connect() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with _reading_explained(), self._for_snapshots.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block and rolled back by any exception."""
        committing = False
        try:
            with self._writer, self._for_writing.connect() as connection:
                transaction = connection.begin()
                yield connection
                committing = True
                transaction.commit()
        except (IntegrityError, ProgrammingError):
            raise
        except (DataError, UnicodeEncodeError, OverflowError) as error:
            raise _unstorable(error) from error
        except (DBAPIError, NoConnection) as error:
            # The server may have committed just before the connection broke.
            unknown = committing and getattr(error, "connection_invalidated", False)
            raise _not_written(error, unknown=unknown) from error

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A transaction that no other process migrates during."""
        with self.writing() as connection:
            yield connection

    def lead(self) -> bool:
        return True

    @contextmanager
    def bringing_files(self) -> Iterator[None]:
        """There is one process, which knows by itself what it brings."""
        yield

    @contextmanager
    def dropping_files(self) -> Iterator[bool]:
        yield True

    def close(self) -> None:
        self.engine.dispose()


class SqliteDatabase(Database):
    one = {"vws_begin": ""}
    snapshot = {"vws_begin": "BEGIN"}
    write = {"vws_begin": "BEGIN IMMEDIATE"}

    def __init__(self, url: URL) -> None:
        _make_private(Path(str(url.database)))
        # isolation_level None: the driver begins nothing by itself.
        driver = {"isolation_level": None, "timeout": BUSY_S}
        engine = create_engine(url, connect_args=driver, max_overflow=40)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        super().__init__(engine)


def _make_private(path: Path) -> None:
    try:
        # Never open and close a file that SQLite may have open in this process: that would drop SQLite's locks.
        if path.exists():
            path.chmod(0o600)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise Unavailable(
            f"the database {path} cannot be made: {error.strerror}", possible="an existing folder that VWS may write to"
        ) from error


def _set_up_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    statement = connection.get_execution_options().get("vws_begin", "BEGIN")
    if statement:
        connection.exec_driver_sql(statement)


class PostgresqlDatabase(Database):
    one = {"isolation_level": "AUTOCOMMIT"}
    snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    write = {"isolation_level": "READ COMMITTED"}

    def __init__(self, url: URL) -> None:
        settings = f"-c lock_timeout={BUSY_S}s -c idle_in_transaction_session_timeout=30s"
        asked = url.query.get("options", "")
        driver = {
            "connect_timeout": BUSY_S,
            "tcp_user_timeout": 30_000,
            "application_name": "vws",
            **url.query,
            "options": f"{settings} {asked}".strip(),
        }
        super().__init__(create_engine(url, connect_args=driver, pool_pre_ping=True, max_overflow=20))
        self._leading: Connection | None = None
        self._leader = threading.Lock()

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        with self.writing() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:locks, :lock)"), _lock(LOCK_MIGRATE))
            yield connection

    def lead(self) -> bool:
        """Hold the leader's lock on a connection of its own: the lock ends with the connection."""
        with self._leader:
            try:
                if self._leading is None:
                    self._leading = self._try_to_lead()
                else:
                    self._leading.execute(text("SELECT 1"))
            except (DBAPIError, NoConnection):
                self._stop_leading()
            return self._leading is not None

    def _try_to_lead(self) -> Connection | None:
        connection = self._for_one.connect()
        try:
            won = connection.scalar(text("SELECT pg_try_advisory_lock(:locks, :lock)"), _lock(LOCK_LEAD))
        except DBAPIError:
            connection.invalidate()
            raise
        if not won:
            connection.close()
            return None
        connection.detach()
        return connection

    @contextmanager
    def bringing_files(self) -> Iterator[None]:
        with self._holding("SELECT pg_advisory_lock_shared(:locks, :lock)", "pg_advisory_unlock_shared"):
            yield

    @contextmanager
    def dropping_files(self) -> Iterator[bool]:
        with self._holding("SELECT pg_try_advisory_lock(:locks, :lock)", "pg_advisory_unlock") as won:
            yield bool(won)

    @contextmanager
    def _holding(self, take: str, give: str) -> Iterator[Any]:
        """A lock on files, by a connection of its own: the server lets go of it when this process dies."""
        with _reading_explained():
            connection = self._for_one.connect()
            try:
                won = connection.scalar(text(take), _lock(LOCK_FILES))
            except BaseException:
                connection.invalidate()
                connection.close()
                raise
        try:
            yield won
        finally:
            if won is not False:
                self._let_go(connection, give)
            connection.close()

    @staticmethod
    def _let_go(connection: Connection, give: str) -> None:
        try:
            connection.execute(text(f"SELECT {give}(:locks, :lock)"), _lock(LOCK_FILES))
        except DBAPIError:
            connection.invalidate()

    def _stop_leading(self) -> None:
        if self._leading is not None:
            self._leading.close()
            self._leading = None

    def close(self) -> None:
        with self._leader:
            self._hand_over()
            self._stop_leading()
        super().close()

    def _hand_over(self) -> None:
        """Give the lock back now rather than when the server has noticed that the connection is gone."""
        try:
            if self._leading is not None:
                self._leading.execute(text("SELECT pg_advisory_unlock(:locks, :lock)"), _lock(LOCK_LEAD))
        except DBAPIError:
            pass


def _lock(which: int) -> dict[str, int]:
    return {"locks": LOCKS, "lock": which}


@contextmanager
def _reading_explained() -> Iterator[None]:
    try:
        yield
    except ProgrammingError:
        raise
    except (DataError, UnicodeEncodeError, OverflowError) as error:
        raise _unstorable(error) from error
    except (DBAPIError, NoConnection) as error:
        raise Unavailable(
            f"the site's database could not be read: {_cause(error)}", possible="the same request again in a moment"
        ) from error


def _unstorable(error: Exception) -> InvalidRequest:
    return InvalidRequest(
        f"a value cannot be kept by the site's database: {_cause(error)}; nothing was changed",
        possible="text without control characters and numbers below 2^63",
    )


def _not_written(error: Exception, *, unknown: bool) -> Unavailable:
    if unknown:
        return Unavailable(
            f"the site's database went away during a commit: {_cause(error)}; "
            "it is not known whether the change was kept",
            possible="the same request again with the same client token: it is carried out at most once",
        )
    return Unavailable(
        f"the site's database could not be written: {_cause(error)}; nothing was changed",
        possible="the same request again once the cause is mended (a full disk, a stopped server)",
    )


def _cause(error: Exception) -> str:
    """The driver's own sentence, without the statement and its values."""
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
