"""The migrations make what the code expects, once, whoever comes first, and never touch what is newer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from tests.store.builders import ground, lease
from vws.core.errors import Conflict, InvalidRequest, NameTaken, Unavailable
from vws.core.manifest import digest
from vws.core.site import (
    Answer,
    Capacity,
    Changes,
    Document,
    Event,
    Group,
    Image,
    Lease,
    LeaseKind,
    LeaseState,
    OriginKind,
)
from vws.core.traits import Traits
from vws.ports import Filter
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
    ("kind", "table"),
    [*schema.TABLES.items(), (Event, schema.events), (Answer, schema.answers), (Document, schema.image_documents)],
    ids=str,
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


# A site of the first release: what it said of a lease that ran, of one that never did, and of a workspace.
FIRST_RELEASE = (
    "INSERT INTO images VALUES ('img-000001', 'demo', 'ann', 'ef', 1, 'direct', '[]', '', 'root', 'ssh', 96, 8, false, "
    "1800000000.5, NULL, true, 1)",
    "INSERT INTO nodes VALUES ('nod-000001', 'n1', '10.64.1.0/24', 1800000000.5, "
    """'{"cpus": 2, "memory_mib": 4096, "disk_mib": 9000, "cpu_ratio": 1.0, "overhead_mib": 0}', """
    "'kvm', '', 1, 0, '', 0, '', false, false, false, '', NULL, 'joining', true, 1)",
    *(
        f"INSERT INTO leases VALUES ('lse-00000{number}', 'old-{number}', 'ann', 'immediate', '{state}', "
        """'[{"name": "", "image": "img-000001", "image_name": "demo", "count": 1, "cpus": 1, "memory_mib": 160, """
        f""""disk_mib": 1024}}]', 1800000000, 1800007200, '[]', 1800000000.5, {active_at}, NULL, NULL, '', true, 1)"""
        for number, state, active_at in ((1, "active", "1800000004.25"), (2, "pending", "NULL"))
    ),
    "INSERT INTO workspaces VALUES ('wsp-000001', 'old-1-1', 'lse-000001', 'ann', '', 1, 'nod-000001', 'img-000001', "
    "'running', 'run', '10.64.1.2', '02:77:0a:40:01:02', 1, 160, 1024, 1, 160, 1800007200, 1800000000.5, "
    "1800000004.25, 1, 1, true, 1800000004.25, NULL, '', '', '', true, 1)",
    "INSERT INTO events VALUES (1800000000.5, 'ann', 'lease.granted', 'ann', 'lse-000001', '', '', '', '{}', 1, 1)",
    "UPDATE site SET revision = 1, last_seq = 1",
)


def migrate(url, until):
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    database = open_database(url)
    with database.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, until)
    database.close()


def make_first_release(url):
    migrate(url, "0001")
    execute(url, *FIRST_RELEASE)


def image_before_origins(id, disk, base=""):
    file = f'[{{"role": "disk", "sha256": "{disk * 64}", "size_bytes": 1, "format": "qcow2", "virtual_size_mib": 1, '
    file += '"base": "", "encryption": "", "data_bytes": 0}]'
    values = f"'{id}', '{id}', 'ann', 'ef', 1, 'disk', '{file}', '', 'root', 'ssh', 0, 0, false, 1.5, NULL"
    return f"INSERT INTO images VALUES ({values}, true, 1, '[]', '{base}', NULL, '')".replace(": ", r"\: ")


def provenance_before_origins(id, image, content, url):
    written = content.encode().hex()
    shown = f"X'{written}'" if url.startswith("sqlite") else f"decode('{written}', 'hex')"
    return f"INSERT INTO image_documents VALUES ('{id}', '{image}', 'provenance', 'json', {shown}, 1.5, 'ann')"


def test_what_was_made_from_others_before_it_was_kept_is_found_out_where_it_can_be(new_url):
    migrate(new_url, "0016")
    said = {"buildType": "urn:vws:build:flatten:1", "externalParameters": {"image": "img-saved"}}
    provenance = json.dumps({"predicate": {"buildDefinition": said}})
    execute(
        new_url,
        image_before_origins("img-first", "a"),
        image_before_origins("img-saved", "b", "img-first"),
        image_before_origins("img-flat", "c"),
        image_before_origins("img-sealed", "d"),
        provenance_before_origins("doc-1", "img-flat", provenance, new_url),
        provenance_before_origins("doc-2", "img-first", "not even JSON", new_url),
        "INSERT INTO events (at, actor, kind, owner, lease, workspace, node, image, data, seq, revision) VALUES "
        """(1.5, 'ann', 'image.encrypted', 'ann', '', '', '', 'img-sealed', '{"source"\\: "img-flat"}', 1, 1)""",
    )
    store = SqlStore.open(new_url)
    images = {each.id: each for each in store.load().images}
    assert [(o.how, o.image) for o in images["img-sealed"].origins] == [
        (OriginKind.ENCRYPTED, "img-flat"),
        (OriginKind.FLATTENED, "img-saved"),
        (OriginKind.SAVED, "img-first"),
    ]
    assert images["img-first"].origins == ()
    assert images["img-saved"].origins[0].digest == digest(images["img-first"])
    (found,) = store.page(Image, Filter(content="a" * 64), after=None, limit=9).items
    assert found.id == "img-first"
    store.close()


def test_a_site_of_the_first_release_is_taken_over_with_all_it_holds(new_url):
    make_first_release(new_url)
    store = SqlStore.open(new_url)
    ran = Lease(
        id="lse-000001",
        name="old-1",
        owner="ann",
        kind=LeaseKind.IMMEDIATE,
        state=LeaseState.ACTIVE,
        groups=(Group("", "img-000001", "demo", 1, 1, 160, 1024),),
        start=1_800_000_000,
        end=1_800_007_200,
        duration_s=7200,
        ssh_keys=(),
        created_at=1_800_000_000.5,
        submitted_at=1_800_000_000.5,
        active_at=1_800_000_004.25,
        begun_at=1_800_000_004.25,
    )
    never = replace(ran, id="lse-000002", name="old-2", state=LeaseState.PENDING, active_at=None, begun_at=None)
    loaded = store.load()
    assert loaded.leases == (ran, never)
    assert [(n.capacity, n.traits, n.labels) for n in loaded.nodes] == [(Capacity(2, 4096, 9000), Traits(), ())]
    assert [(w.lease, w.name, w.end) for w in loaded.workspaces] == [("lse-000001", "old-1-1", 1_800_007_200)]
    assert [event.kind for event in store.events(Filter(), after=0, limit=10)] == ["lease.granted"]
    # What refers to a lease, and what keeps the record, still holds.
    waits = lease(3, state=LeaseState.WAITING, kind=LeaseKind.DEADLINE, start=None, end=None, deadline=1_900_000_000)
    store.commit(Changes(leases=(waits,)), expected=1)
    assert store.get(Lease, waits.id) == waits
    with pytest.raises(NameTaken):
        store.commit(Changes(leases=(lease(4, name="old-1"),)), expected=2)
    store.close()
    for statement in ("DELETE FROM leases WHERE id = 'lse-000001'", "DELETE FROM events"):
        with pytest.raises(IntegrityError):
            execute(new_url, statement)


def test_a_site_of_the_first_release_gets_the_tables_of_the_code(new_url):
    make_first_release(new_url)
    test_the_migrations_make_the_tables_of_the_code(new_url)


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
