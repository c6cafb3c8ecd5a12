"""Compiled SQL, shared by the stores of one run of the tests.

SQLAlchemy compiles each statement once per engine. A service does so once in its life; of a test with a store of its
own that would be half the work. What is compiled is kept under the statement and the dialect, so engines for the same
kind of database share the dialect too, as soon as it has met a server and knows its version.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine

from vws.store import database

_first: dict[str, Engine] = {}


def share() -> None:
    database.create_engine = _sharing  # type: ignore[assignment]


def _sharing(url: Any, **options: Any) -> Engine:
    engine = create_engine(url, **options)
    first = _first.get(engine.dialect.name)
    if first is None or first.dialect.server_version_info is None:
        _first[engine.dialect.name] = engine
    else:
        engine.dialect = engine.pool._dialect = first.dialect
        engine._compiled_cache = first._compiled_cache
    return engine
