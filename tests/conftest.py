"""A store for every test that wants one, on SQLite and on PostgreSQL in turn.

`store` is open and empty; `store_url` is for tests that open it themselves or hand it to other processes. PostgreSQL
is started by the first test that needs it (tests/postgres.py). A migration for each test would cost more than most
tests: SQLite's file is a copy of a migrated one, PostgreSQL's database is emptied behind the triggers' back.
"""

from __future__ import annotations

import gc
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import statements
from tests.compiled import stale
from tests.postgres import Server, absent
from vws.store.schema import metadata, site
from vws.store.sql import SqlStore

# For a search of hours: pytest --hypothesis-profile=search
settings.register_profile("search", max_examples=20_000, deadline=None)


def pytest_configure() -> None:
    """No test says anything about a source which is not what runs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it, and what they start
        signal.signal(signal.SIGINT, signal.default_int_handler)
    changed = stale(Path(__file__).parents[1] / "src")
    if changed:
        names = ", ".join(path.name for path in changed)
        raise pytest.UsageError(f"changed since it was compiled: {names}. Next: scripts/setup planner")
    statements.share()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with real machines in them take longest: they come first, so that no worker waits for one at the end."""
    for item in items:
        if item.get_closest_marker("live") and item.get_closest_marker("soak_live"):
            item.add_marker("soak")
    long = {item.path for item in items if item.get_closest_marker("live")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from tests.scheduling import FromBothEnds

    return FromBothEnds(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """All that was imported and collected stays: the collector of garbage need not walk through it again and again."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def sqlite_store(sqlite_url) -> Iterator[SqlStore]:
    """For tests of what no store can change."""
    store = SqlStore.open(sqlite_url)
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    if absent():
        pytest.skip(absent())
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres) -> str:
    """The name of a database with VWS's tables."""
    SqlStore.open(postgres.create("vws")).close()
    return "vws"


@pytest.fixture(scope="session")
def empty_postgres(postgres, migrated) -> Callable[[], str]:
    """Call it for an empty store that nobody else is connected to; the one before is gone then."""
    emptied = [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables) if table is not site]
    others = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    anew = [others, "SET session_replication_role = replica", *emptied, "UPDATE site SET revision = 0, last_seq = 0"]

    def empty() -> str:
        postgres.run("; ".join(anew), migrated)
        return postgres.url(migrated)

    return empty


@pytest.fixture
def postgres_url(empty_postgres) -> str:
    return empty_postgres()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request) -> str:
    return request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])


@pytest.fixture
def store(store_url) -> Iterator[SqlStore]:
    store = SqlStore.open(store_url)
    yield store
    store.close()
