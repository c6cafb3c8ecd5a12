"""A store for every test that wants one, on SQLite and on PostgreSQL in turn.

`store` is open and empty; `store_url` is for tests that open it themselves or hand it to other processes. PostgreSQL
is started by the first test that needs it (tests/postgres.py). Both start as copies of a migrated database: a
migration for each test would cost more than most tests.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Server, absent
from vws.store.sql import SqlStore


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    SqlStore.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(sqlite_template, tmp_path) -> str:
    """An empty store in a file of the test's own."""
    shutil.copy(sqlite_template, tmp_path / "site.db")
    return f"sqlite:///{tmp_path / 'site.db'}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running server with the database `vws_template`, migrated."""
    if absent():
        pytest.skip(absent())
    with Server() as server:
        SqlStore.open(server.create("vws_template")).close()
        yield server


@pytest.fixture
def postgres_url(postgres) -> Iterator[str]:
    """An empty store in a database of the test's own."""
    name = postgres.new_name()
    yield postgres.create(name, template="vws_template")
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request) -> str:
    return request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])


@pytest.fixture
def store(store_url) -> Iterator[SqlStore]:
    store = SqlStore.open(store_url)
    yield store
    store.close()
