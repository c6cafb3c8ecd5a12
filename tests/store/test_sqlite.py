"""What only SQLite needs looking at: the file, its settings, and a disk that is full."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from tests.store.builders import event, ground, lease, token
from vws.core.errors import Unavailable
from vws.core.site import Changes
from vws.ports import Filter
from vws.store.sql import SqlStore


@pytest.fixture
def opened(sqlite_url):
    store = SqlStore.open(sqlite_url)
    yield store
    store.close()


def test_the_files_are_the_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        store = SqlStore.open(f"sqlite:///{tmp_path / 'site.db'}")
        store.commit(ground(), expected=0)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    store.close()
    assert modes == {"site.db": 0o600, "site.db-wal": 0o600, "site.db-shm": 0o600}


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path, sqlite_url):
    (tmp_path / "site.db").chmod(0o644)
    SqlStore.open(sqlite_url).close()
    assert stat.S_IMODE((tmp_path / "site.db").stat().st_mode) == 0o600


def test_a_relative_path_is_in_the_present_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = SqlStore.open("sqlite:///site.db")
    store.commit(ground(), expected=0)
    store.close()
    assert (tmp_path / "site.db").stat().st_size > 0


def test_every_connection_is_set_up_to_survive_a_power_loss(opened):
    for use in (opened._database.reading_one, opened._database.reading, opened._database.writing):
        with use() as connection:
            settings = [
                connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
            assert settings == ["wal", 2, 1]


def test_readers_do_not_wait_for_the_writer(opened):
    with opened._database.writing() as connection:
        connection.execute(text("UPDATE site SET revision = 5"))
        assert opened.revision() == 0
        assert opened.load().revision == 0
    assert opened.revision() == 5


@contextmanager
def full_disk(size):
    """No file of this process may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_changes_nothing_and_says_so(opened, tmp_path):
    opened.commit(ground(events=(event(),)), expected=0)
    before = opened.load()
    large = Changes(leases=(lease(2, reason="x" * 300_000),), events=(event(2),), tokens=(token(),))
    with full_disk((tmp_path / "site.db-wal").stat().st_size + 8192):
        with pytest.raises(Unavailable, match="nothing was changed") as refused:
            opened.commit(large, expected=1)
        assert opened.load() == before
    assert "disk" in refused.value.problem
    assert "x" * 100 not in refused.value.problem
    assert opened.commit(large, expected=1) == (2, 2)
    assert len(opened.events(Filter(), after=0, limit=10)) == 2


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(Unavailable, match="No such file or directory") as refused:
        SqlStore.open(f"sqlite:///{tmp_path / 'nowhere' / 'site.db'}")
    assert "nowhere" in refused.value.problem


def test_a_file_that_is_no_database_is_not_touched(tmp_path):
    (tmp_path / "site.db").write_bytes(b"these are somebody's notes\n" * 200)
    with pytest.raises(Unavailable, match="not a database"):
        SqlStore.open(f"sqlite:///{tmp_path / 'site.db'}")
    assert (tmp_path / "site.db").read_bytes() == b"these are somebody's notes\n" * 200


def test_a_small_site_loads_no_more_than_it_needs(sqlite_url):
    program = (
        "import sys; from vws.store.sql import SqlStore; SqlStore.open(sys.argv[1]).load(); "
        "print([name for name in ('psycopg', 'alembic', 'mako') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, sqlite_url], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
