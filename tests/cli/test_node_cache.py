"""`vws node cache`: what is there, what shall come, what shall go, and what became of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import FakeClient, cache_task
from vws.cli.node_cache import last_used

Run = Callable[..., Result]


def test_the_last_use_is_told_as_nodes_tell_it_to_the_minute(monkeypatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert [last_used(at) for at in (0, 999_990, 999_875, 913_500)] == ["", "just now", "2m ago", "1d ago"]


def test_a_listing_says_what_is_there_who_uses_it_and_how_full_it_is(vws: Run) -> None:
    lines = vws("node", "cache", "list").stdout.splitlines()
    assert lines[0].split("  ")[0] == "NODE"
    assert "debian" in lines[1]
    assert "demo-1" in lines[1]
    assert "2h ago" in lines[1]
    assert "arriving 50 %" in lines[2]
    assert "planned leases" in lines[2]
    assert re.search("one was altered here, 2m[0-9]+s ago, and replaced", lines[2])
    assert lines[3:] == [
        "host-1: 2 GiB of 20 GiB in 2 files, fetching at most 400 Mbit/s",
        "host-2: 2 GiB of 20 GiB in 0 files, fetching at most 400 Mbit/s",
    ]
    one = json.loads(vws("node", "cache", "list", "host-2", "--json").stdout)
    assert [(file["node_name"], file["sha256"][:4]) for file in one] == [("host-2", "abab"), ("host-2", "cdcd")]


def test_a_prefetch_is_waited_for_unless_it_is_said_not_to(vws: Run, client: FakeClient) -> None:
    client.tasks = [cache_task(), cache_task(), cache_task(state="done")]
    result = vws("node", "cache", "prefetch", "host-2", "debian")
    assert result.stdout.startswith("host-2 has debian after ")
    assert client.asked == [("prefetch_image", "host-2", "debian")]
    assert vws("node", "cache", "prefetch", "host-2", "debian", "--no-wait").stdout == "host-2 will fetch debian.\n"


def test_what_cannot_be_prefetched_is_told_with_what_was_kept_and_what_to_do(vws: Run, client: FakeClient) -> None:
    client.tasks = [cache_task(state="failed", reason="the node's image cache is full")]
    result = vws("node", "cache", "prefetch", "host-2", "debian")
    assert result.exit_code == 1
    assert "host-2 does not have debian: the node's image cache is full" in result.stderr
    assert "vws node cache list host-2" in result.stderr
    slow = cache_task()
    client.tasks = [slow]
    late = vws("node", "cache", "prefetch", "host-2", "debian", "--timeout", "1s")
    assert late.exit_code != 0
    assert "host-2 is not done yet after 1s" in late.stderr


def test_a_clear_says_what_it_freed_and_what_it_kept(vws: Run, client: FakeClient) -> None:
    kept = [{"sha256": "ab" * 32, "reason": "a workspace uses it"}]
    client.tasks = [cache_task(kind="clear", state="done", freed_bytes=3 << 30, dropped=["cd" * 32], kept=kept)]
    lines = vws("node", "cache", "clear", "host-2", "--unused").stdout.splitlines()
    assert lines == [
        "host-2 freed 3 GiB: 1 file dropped, 1 kept.",
        "  kept debian disk abababababab: a workspace uses it (demo-1)",
    ]
    client.tasks = [cache_task(kind="clear", state="done", kept=kept)]
    assert "host-2 freed nothing: 0 files dropped, 1 kept." in vws("node", "cache", "clear", "host-2", "debian").stdout
    assert client.asked == [("clear_cache", "host-2", None), ("clear_cache", "host-2", "debian")]
    assert vws("node", "cache", "clear", "host-2", "debian", "--unused").exit_code == 2
    nothing = vws("node", "cache", "clear", "host-2")
    assert (nothing.exit_code, "name an image, or say --unused" in nothing.stderr) == (2, True)
