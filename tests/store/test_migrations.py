"""The migrations make what the code expects, once, whoever comes first, and never touch what is newer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from tests.store.builders import ground, lease
from vws.core.errors import Conflict, InvalidRequest, Unavailable
from vws.core.site import Answer, Event, Lease
from vws.store import schema
from vws.store.database import open_database
from vws.store.sql import SqlStore
from vws.store.upgrade import MIGRATIONS


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request, tmp_path):
    """A database without any tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    server = request.getfixturevalue("postgres")
    name = server.new_name()
    yield server.create(name)
    server.drop(name)


def execute(url, *statements):
    database = open_database(url)
    with database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))
    database.close()


def tables(url):
    database = open_database(url)
    with database.reading_one() as connection:
        found = set(inspect(connection).get_table_names())
    database.close()
    return found


def test_the_migrations_make_the_tables_of_the_code(new_url):
    SqlStore.open(new_url).close()
    database = open_database(new_url)
    with database.reading_one() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        made = {i["name"]: condition(i) for t in schema.metadata.tables for i in inspect(connection).get_indexes(t)}
        wanted = {
            index.name: str(index.dialect_options[database.engine.dialect.name]["where"])
            for table in schema.metadata.sorted_tables
            for index in table.indexes
        }
    database.close()
    # Alembic does not compare the conditions of indices.
    assert made == wanted


def condition(index):
    options = index.get("dialect_options", {})
    return str(options.get("sqlite_where", options.get("postgresql_where")))


def test_the_code_knows_its_newest_migration():
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == schema.REVISION


@pytest.mark.parametrize(
    ("kind", "table"), [*schema.TABLES.items(), (Event, schema.events), (Answer, schema.answers)], ids=str
)
def test_columns_are_fields_in_their_order(kind, table):
    names = [field.name for field in fields(kind)]
    assert [column.name for column in table.c][: len(names)] == names


def test_opening_again_changes_nothing(new_url):
    store = SqlStore.open(new_url)
    store.commit(ground(), expected=0)
    store.close()
    store = SqlStore.open(new_url)
    assert store.get(Lease, "lse-000001") == lease()
    assert store.revision() == 1
    store.close()


def test_a_newer_database_is_refused_and_left_alone(new_url):
    SqlStore.open(new_url).close()
    execute(new_url, "UPDATE alembic_version SET version_num = '9999'", "ALTER TABLE leases ADD COLUMN wish text")
    with pytest.raises(Conflict, match=r"schema 9999, written by a newer VWS") as refused:
        SqlStore.open(new_url)
    assert "newer VWS" in refused.value.possible
    database = open_database(new_url)
    with database.reading_one() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    database.close()


def test_a_migration_that_fails_leaves_nothing_behind(new_url):
    # The last of the tables is in the way: all others are made before it.
    execute(new_url, "CREATE TABLE workspaces (mine integer)")
    with pytest.raises(Unavailable, match="nothing was changed"):
        SqlStore.open(new_url)
    assert tables(new_url) == {"workspaces"}
    execute(new_url, "DROP TABLE workspaces")
    SqlStore.open(new_url).close()


def test_processes_that_start_together_migrate_once(new_url):
    program = "import sys; from vws.store.sql import SqlStore; print(SqlStore.open(sys.argv[1]).load().revision)"
    command = [sys.executable, "-c", program, new_url]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=60) for process in started]
    assert answers == [("0\n", "")] * 4


@pytest.mark.parametrize(
    "url",
    ["", "site.db", "sqlite://", "sqlite:///:memory:", "mysql://root:secret@host/vws", "postgresql+asyncpg://h/d"],
)
def test_another_url_is_refused(url):
    with pytest.raises(InvalidRequest, match="no database that VWS can use") as refused:
        SqlStore.open(url)
    assert "secret" not in refused.value.problem
    assert "sqlite:///PATH" in refused.value.possible
