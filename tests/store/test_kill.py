"""A process that is killed at any instant while it commits leaves the store whole."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from vws.core.site import Lease
from vws.ports import Filter
from vws.store.sql import SqlStore

WRITER = """
import sys
from tests.store.builders import answer, event, ground, lease, workspace
from vws.core.site import Changes
from vws.store.sql import SqlStore

store = SqlStore.open(sys.argv[1])
revision = store.revision()
while True:
    number = revision + 1
    change = Changes(
        leases=(lease(reason=str(number)),),
        workspaces=tuple(workspace(n, boots=number) for n in range(1, 9)),
        events=tuple(event(data={"number": number}) for _ in range(5)),
        answers=(answer(number),),
    )
    revision, _ = store.commit(ground() + change, expected=revision)
    print(revision, flush=True)
"""


def write_until_killed(url, after_s):
    """The last revision that the writer was told is committed."""
    command = [sys.executable, "-c", WRITER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        first = writer.stdout.readline()
        time.sleep(after_s)
        writer.kill()
        told = [first, *writer.stdout.readlines()]
    # The kill may cut the last line short.
    return int([line for line in told if line.endswith("\n")][-1])


def check(url):
    """The revision, after looking that every table tells of the same commit."""
    store = SqlStore.open(url)
    there, record = store.load(), store.events(Filter(), after=0, limit=1_000_000)
    last = there.revision
    assert store.get(Lease, "lse-000001").reason == str(last)
    assert [w.boots for w in there.workspaces] == [last] * 8
    assert [(e.seq, e.data["number"]) for e in record] == [(n + 1, n // 5 + 1) for n in range(5 * last)]
    assert store.last_seq() == 5 * last
    assert store.answer("ann", f"once-{last}") is not None
    assert store.answer("ann", f"once-{last + 1}") is None
    assert store.changed_since(last - 1).workspaces == there.workspaces
    assert store.changed_since(last).workspaces == ()
    store.close()
    return last


@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_at_any_instant_leaves_the_store_whole(store_url, seed):
    instants = random.Random(seed)
    for _ in range(3):
        told = write_until_killed(store_url, instants.uniform(0, 0.15))
        kept = check(store_url)
        # The commit that the kill interrupted may have been kept; one that was acknowledged must be.
        assert told <= kept <= told + 1
