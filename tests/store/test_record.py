"""The record of events can only grow, even for whoever has the database open."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.store.builders import event
from vws.core.site import Changes
from vws.ports import Filter
from vws.store.database import open_database


@pytest.fixture
def database(store, store_url):
    store.commit(Changes(events=(event(1), event(2))), expected=0)
    database = open_database(store_url)
    yield database
    database.close()


def refuses(store, database, *statements):
    before = store.events(Filter(), after=0, limit=10)
    for statement in statements:
        with pytest.raises(IntegrityError, match="events are"), database.writing() as connection:
            connection.execute(text(statement))
    assert store.events(Filter(), after=0, limit=10) == before


def test_events_are_never_changed_or_deleted(store, database):
    refuses(
        store,
        database,
        "UPDATE events SET actor = 'nobody' WHERE seq = 1",
        "DELETE FROM events WHERE seq = 2",
        "DELETE FROM events",
    )


def test_no_way_around_that_a_database_has_of_its_own(store, database):
    if database.engine.dialect.name == "sqlite":
        columns = "at, actor, kind, owner, lease, workspace, node, image, data, seq, revision"
        insert = f"INTO events ({columns}) SELECT 0, 'nobody', kind, '', '', '', '', '', '[]', seq, 1 FROM events"
        refuses(store, database, f"INSERT OR REPLACE {insert}", f"REPLACE {insert}")
    else:
        refuses(store, database, "TRUNCATE events")
