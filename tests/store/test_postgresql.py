"""What only PostgreSQL has: several processes, one of which leads, and a server that goes away and comes back."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from tests.store.builders import event, ground, lease, token
from vws.core.errors import Unavailable
from vws.core.site import Changes, Lease
from vws.ports import Filter, StaleRevision
from vws.store.sql import SqlStore

END_LEADER = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"


@pytest.fixture
def pair(postgres_url):
    """Two service processes' stores on one database."""
    stores = SqlStore.open(postgres_url), SqlStore.open(postgres_url)
    yield stores
    for store in stores:
        store.close()


def test_one_leads_until_it_closes(pair):
    first, second = pair
    assert [first.lead(), second.lead(), first.lead(), second.lead()] == [True, False, True, False]
    first.close()
    assert second.lead()


def test_a_leader_notices_that_it_is_none_any_more(pair, postgres, migrated):
    first, second = pair
    assert first.lead()
    postgres.run(END_LEADER, migrated)
    assert second.lead()
    assert [first.lead(), first.lead()] == [False, False]
    second.close()
    assert first.lead()


def test_stores_see_and_respect_each_others_commits(pair):
    first, second = pair
    first.commit(ground(), expected=0)
    with pytest.raises(StaleRevision):
        second.commit(Changes(tokens=(token(),)), expected=0)
    assert second.changed_since(0).leases == (lease(),)
    assert second.commit(Changes(events=(event(),)), expected=1) == (2, 1)
    assert first.last_seq() == 1


def test_many_processes_take_turns(pair):
    """Each tries until it has committed its share; the record shows every commit once and in order."""

    def commit(store, share):
        while share:
            try:
                revision = store.revision()
                store.commit(Changes(events=(event(data={"on": revision}),)), expected=revision)
                share -= 1
            except StaleRevision:
                continue

    threads = [threading.Thread(target=commit, args=(store, 25)) for store in pair for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = pair[0].events(Filter(), after=0, limit=1000)
    assert [(e.seq, e.data["on"]) for e in found] == [(n, n - 1) for n in range(1, 101)]
    assert pair[1].revision() == 100


def test_readers_do_not_wait_for_a_writer(pair):
    first, second = pair
    with first._database.writing() as connection:
        connection.execute(text("UPDATE site SET revision = 5"))
        assert second.load().revision == second.revision() == 0
    assert second.revision() == 5


def test_a_writer_that_hangs_is_not_waited_for_long(pair, monkeypatch):
    first, second = pair
    with second._database.writing() as connection:
        connection.execute(text("SET lock_timeout = '100ms'"))
    with first._database.writing() as connection:
        connection.execute(text("UPDATE site SET revision = 0"))
        with pytest.raises(Unavailable, match="lock timeout; nothing was changed"):
            second.commit(Changes(events=(event(),)), expected=0)
    assert second.commit(Changes(events=(event(),)), expected=0) == (1, 1)


def test_a_server_that_goes_away_and_comes_back(pair, postgres):
    first, second = pair
    first.commit(ground(), expected=0)
    assert first.lead()
    postgres.stop()
    try:
        for use in (first.revision, first.load, lambda: first.commit(Changes(events=(event(),)), expected=1)):
            with pytest.raises(Unavailable):
                use()
        assert not first.lead()
        assert not second.lead()
    finally:
        postgres.start()
    assert first.get(Lease, "lse-000001") == lease()
    assert second.commit(Changes(events=(event(),)), expected=1) == (2, 1)
    assert first.lead()


def test_a_connection_lost_before_the_commit_changed_nothing(pair, postgres, migrated):
    first, second = pair

    def write():
        with first._database.writing() as connection:
            connection.execute(text("UPDATE site SET revision = 9"))
            postgres.end_sessions(migrated)
            connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable, match="nothing was changed"):
        write()
    assert second.revision() == first.revision() == 0


def test_a_connection_lost_during_the_commit_leaves_it_open_whether_it_was_kept(pair, postgres, migrated):
    first, second = pair

    def write():
        with first._database.writing() as connection:
            connection.execute(text("UPDATE site SET revision = 9"))
            postgres.end_sessions(migrated)

    with pytest.raises(Unavailable, match="not known whether") as unsure:
        write()
    assert "client token" in unsure.value.possible
    assert second.revision() == first.revision() == 0


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unavailable, match="could not be read") as refused:
        SqlStore.open(f"postgresql://ann:secret@/vws?host={tmp_path}")
    assert "secret" not in refused.value.problem
